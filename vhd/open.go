package vhd

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/combine"
	"github.com/diskimg/diskimg/internal/rangelock"
	"github.com/diskimg/diskimg/internal/zero"
)

// Opening: which footer counts, then dynamic header, block allocation table and
// parent; for writing also whether blocks are apart.

// formatName is that of the format in messages and on command lines.
const formatName = "vpc"

// DefaultBitmapCacheSize is that of OpenOptions.BitmapCacheSize, in bytes. It
// holds the bitmaps of 32 GiB in blocks of 2 MiB.
const DefaultBitmapCacheSize = 8 << 20

// OpenOptions say how to open an image. The zero value opens it read-only and
// refuses every file that the image names.
type OpenOptions struct {
	// Path is used in messages and to resolve what the image names.
	Path     string
	Writable bool
	// Policy opens the parent of a differencing disk; nil refuses it.
	Policy block.Policy
	// NoBacking leaves the parent closed: what it holds reads as zero. The
	// guest can't write such an image.
	NoBacking bool
	// AnyParentTime takes a parent that has the right UUID also if it is older
	// or newer than the one that the disk was made for.
	AnyParentTime bool
	// Repair opens an image that is broken, for block.Checker. Guest writes to
	// it are refused if writing would be without Repair.
	Repair bool
	// NoSync orders nothing and syncs nothing: fast, and after a power cut
	// the image is lost. For images that are made in one go and can be made
	// again.
	NoSync bool
	// SizeFrom says which of the two sizes that a footer states is that of the
	// disk.
	SizeFrom SizeSource
	// BitmapCacheSize bounds the memory for bitmaps, in bytes; 0 is the default.
	BitmapCacheSize int
}

// Probe reports whether a file that begins with head is a VHD that grows. One
// of fixed size can't be told by its beginning.
func Probe(head []byte) bool { return isFooter(head) }

// ProbeEnd reports whether a file of size bytes that ends with these 512 is a
// fixed VHD. It has to say of itself that the disk is all that comes before the
// footer, so that a disk that is taken for one by mistake loses no other byte.
func ProbeEnd(end []byte, size int64) bool {
	foot, err := parseFooter(end)
	if err != nil || foot.kind != Fixed || foot.dataOffset != nowhere || foot.current != uint64(size-footerSize) {
		return false
	}
	n, err := foot.size()
	return err == nil && n == size-footerSize
}

// Open opens the image in f. The image owns f once Open has succeeded.
func Open(f block.File, o *OpenOptions) (*block.Image, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	l, err := open(f, o)
	if err != nil {
		return nil, block.OpenError(o.Path, formatName, err)
	}
	return block.NewImage(l, block.ImageOptions{Path: o.Path, Format: formatName, Writable: o.Writable}), nil
}

func open(f block.File, o *OpenOptions) (block.Layer, error) {
	s, err := readFooters(f, maxBehind)
	if err != nil {
		return nil, err
	}
	foot, damage, err := s.choose()
	if err != nil {
		return nil, err
	}
	if damage != nil && !o.Repair && (o.Writable || foot == s.last) {
		return nil, damage
	}
	foot.sizeFrom = o.SizeFrom
	if foot.kind == Fixed {
		return openFixed(f, foot, s.lastAt, o)
	}
	d, err := newDisk(f, foot, o)
	if err != nil {
		return nil, err
	}
	d.damage = damage
	if err := d.load(s, o); err != nil {
		return nil, errors.Join(err, d.closeParent())
	}
	return d, nil
}

// footers are what a file has of them.
type footers struct {
	size              int64   // of the file
	lastAt            int64   // where the one at the end is, or would be
	first             *footer // at the beginning; nil if it is missing or bad
	last              *footer // at the end
	hasHead           bool    // the file begins like a footer
	hasTail           bool
	blank             bool // where the one at the end would be are zeros
	firstErr, lastErr error
}

// readFooters reads both footers. Old programs write one byte less of the
// second, so it is looked for at the end of a file rounded up to a sector; and
// that of a fixed disk in most bytes in front of zeros, see findLast.
func readFooters(f block.File, most int64) (*footers, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < footerSize-1 {
		return nil, block.Errorf(block.ErrFormat, "File too small for a VHD header")
	}
	s := &footers{size: size, lastAt: roundUp(size, sectorSize) - footerSize}
	b := make([]byte, footerSize)
	if err := block.ReadFull(f, b, 0); err != nil {
		return nil, err
	}
	s.hasHead = isFooter(b)
	s.first, s.firstErr = parseFooter(b)
	if err := block.ReadFull(f, b, s.lastAt); err != nil {
		return nil, err
	}
	s.hasTail = isFooter(b)
	s.last, s.lastErr = parseFooter(b)
	s.blank = zero.Is(b)
	if !s.hasHead && s.blank {
		return s, s.findLast(f, most)
	}
	return s, nil
}

// choose returns the footer that counts: the copy at the beginning, or that at
// the end of a fixed disk. damage is why the image is not as it must be to be
// written; a footer that is missing behind the blocks is none, as a power cut
// leaves that.
func (s *footers) choose() (foot *footer, damage, err error) {
	switch {
	case s.first != nil && s.first.kind == Fixed, !s.hasHead:
		foot, err := s.chooseFixed()
		return foot, nil, err
	case s.first != nil && s.last != nil && s.last.kind == Fixed:
		return nil, nil, block.Corruptf("the file begins as a %s disk and ends as a fixed one", s.first.kind)
	case s.first == nil && s.last == nil || s.first == nil && s.last.kind == Fixed:
		return nil, nil, s.firstErr
	case s.first == nil:
		return s.last, s.firstErr, nil
	case s.last == nil && s.hasTail:
		return s.first, block.Corruptf("the footer at the end is broken: %w", s.lastErr), nil
	case s.last != nil && s.last.raw != s.first.raw:
		return s.first, block.Corruptf("the footer at the end and its copy at the beginning differ"), nil
	}
	return s.first, nil, nil
}

// chooseFixed returns the footer at the end, which is all that a fixed disk
// has. What it begins with is the guest's.
func (s *footers) chooseFixed() (*footer, error) {
	switch {
	case s.last == nil:
		return nil, s.lastErr
	case s.last.kind != Fixed:
		return nil, block.Corruptf("invalid VPC image: it ends as a disk of type %d, and has no header at its beginning", s.last.kind)
	}
	return s.last, nil
}

// disk is the layer of an image with blocks.
type disk struct {
	file     block.File
	path     string
	policy   block.Policy
	writable bool
	noSync   bool
	damage   error // why nothing may be written; set by open only
	size     atomic.Int64
	// differencing is whether the parent shows where there is no data.
	differencing bool

	blockBits  uint
	blockSize  int64
	bitmapSize int64 // of one block, whole sectors
	parent     *block.Image
	self       *block.Image // reads what the guest reads

	writers sync.RWMutex // shared by requests that write; see alone
	readers sync.RWMutex // shared by requests that read
	ranges  rangelock.Lock
	flushes combine.Calls

	mu        sync.RWMutex // guards what follows
	sealed    error        // why the guest may write nothing
	foot      *footer
	hdr       *header
	bat       []uint32       // only the part that the disk needs
	batDirty  map[int64]bool // by sector
	bitmaps   *cache.Cache   // by sector of the file
	end       int64          // of what is in use; the footer's place
	tailDirty bool           // the footer is not there
	broken    error
}

var (
	_ block.Layer     = (*disk)(nil)
	_ block.Backed    = (*disk)(nil)
	_ block.Describer = (*disk)(nil)
)

// newDisk reads the dynamic header and checks it.
func newDisk(f block.File, foot *footer, o *OpenOptions) (*disk, error) {
	h, size, err := readHeader(f, foot)
	if err != nil {
		return nil, err
	}
	d := &disk{
		file: f, path: o.Path, policy: o.Policy, writable: o.Writable, noSync: o.NoSync, foot: foot, hdr: h,
		blockBits: uint(bits.TrailingZeros32(h.blockSize)), blockSize: int64(h.blockSize),
		bitmapSize: bitmapSize(int64(h.blockSize)), batDirty: make(map[int64]bool),
		differencing: foot.kind == Differencing,
	}
	memory := o.BitmapCacheSize
	if memory == 0 {
		memory = DefaultBitmapCacheSize
	}
	if d.policy == nil {
		d.policy = block.Deny{}
	}
	d.bitmaps = cache.New(sectorSize, memory)
	d.size.Store(size)
	d.self = block.NewImage(d, block.ImageOptions{Path: o.Path, Format: formatName})
	return d, nil
}

// readHeader reads the dynamic header that a footer names, and the size.
func readHeader(f block.File, foot *footer) (*header, int64, error) {
	if foot.kind != Dynamic && foot.kind != Differencing {
		return nil, 0, block.Unsupportedf("disks of type %d are not supported", foot.kind)
	}
	size, err := foot.size()
	if err != nil {
		return nil, 0, err
	}
	b, err := readHeaderBytes(f, foot.dataOffset)
	if err != nil {
		return nil, 0, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, 0, err
	}
	return h, size, h.validate(size)
}

// readHeaderBytes reads a dynamic header. The last sector of the file is read as
// if it were whole.
func readHeaderBytes(f block.File, off uint64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	size = roundUp(size, sectorSize)
	if off > uint64(size) || headerSize > size-int64(off) {
		return nil, block.Corruptf("Error reading dynamic VHD header: %d bytes at %#x lie beyond the end of the file (%d bytes)", headerSize, off, size)
	}
	b := make([]byte, headerSize)
	return b, block.ReadFull(f, b, int64(off))
}

// readTable reads all of b at off, or says what could not be read.
func readTable(f block.File, what string, b []byte, off uint64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if off > uint64(size) || int64(len(b)) > size-int64(off) {
		return block.Corruptf("%s: %d bytes at %#x lie beyond the end of the file (%d bytes)", what, len(b), off, size)
	}
	n, err := f.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return block.Corruptf("%s: the file ends at %#x", what, int64(off)+int64(n))
	}
	return err
}

// bitmapSize returns how many bytes the bitmap of a block takes up.
func bitmapSize(blockSize int64) int64 { return roundUp(blockSize/sectorSize/8, sectorSize) }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// load reads the table, finds the end and opens the parent.
func (d *disk) load(s *footers, o *OpenOptions) error {
	if err := d.loadTable(o); err != nil {
		return err
	}
	d.end = roundUp(s.size, sectorSize)
	if s.hasTail || s.blank && d.contentEnd() <= s.lastAt {
		d.end = s.lastAt
	}
	d.tailDirty = s.last == nil && !o.Repair // a check is to find it missing
	if o.Writable {
		if err := d.apart(); err != nil && !o.Repair {
			return err
		} else if err != nil {
			d.damage = err
		}
	}
	return d.openParent(o)
}

// tableInFile makes sure that a file of size bytes has n entries of the BAT.
func (h *header) tableInFile(n, size int64) error {
	if h.tableOffset > uint64(size) || n*4 > size-int64(h.tableOffset) {
		return block.Corruptf("Error reading pagetable: %d entries at %#x lie beyond the end of the file (%d bytes)", n, h.tableOffset, size)
	}
	return nil
}

// loadTable reads the part of the BAT that the disk needs.
func (d *disk) loadTable(o *OpenOptions) error {
	n := blocks(d.Size(), d.blockSize)
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	if err := d.hdr.tableInFile(n, size); err != nil {
		return err
	}
	b := make([]byte, n*4)
	if err := readTable(d.file, "Error reading pagetable", b, d.hdr.tableOffset); err != nil {
		return err
	}
	d.bat = make([]uint32, n)
	for i := range d.bat {
		d.bat[i] = binary.BigEndian.Uint32(b[4*i:])
		if !o.Repair && d.bat[i] != unused && d.blockEnd(d.bat[i]) > size {
			return d.beyond(int64(i), size)
		}
	}
	return nil
}

// blockEnd returns where in the file the block of a BAT entry ends.
func (d *disk) blockEnd(entry uint32) int64 {
	return int64(entry)*sectorSize + d.bitmapSize + d.blockSize
}

func (d *disk) beyond(i, size int64) error {
	return block.Corruptf("BAT entry %d: the block at %#x ends behind the end of the file (%d bytes). The image has been truncated.",
		i, int64(d.bat[i])*sectorSize, size)
}

// apart makes sure that blocks overlap neither each other nor metadata: else
// writing to one would change another.
func (d *disk) apart() error {
	var first error
	for i, e := range d.bat {
		if e != unused && d.blockEnd(e) > d.end {
			return d.beyond(int64(i), d.end)
		}
	}
	d.eachOverlap(func(err error) bool { first = err; return false })
	return first
}

// Size implements block.Layer.
func (d *disk) Size() int64 { return d.size.Load() }

// Backing implements block.Backed.
func (d *disk) Backing() *block.Image { return d.parent }
