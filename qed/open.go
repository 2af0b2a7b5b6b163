package qed

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/combine"
	"github.com/diskimg/diskimg/internal/rangelock"
)

// Opening: header, L1 table and backing image; for writing also what a crash
// has left to be mended.

// DefaultL2CacheSize is the default of OpenOptions.L2CacheSize.
const DefaultL2CacheSize = 32 << 20

// OpenOptions say how to open an image. The zero value opens it read-only and
// refuses a backing file.
type OpenOptions struct {
	// Path is used in messages and to resolve what the image names.
	Path     string
	Writable bool
	// Policy opens the backing image; nil refuses it.
	Policy block.Policy
	// NoBacking leaves the backing image closed: what it holds reads as zero.
	// The guest's disk can't be written then.
	NoBacking bool
	// NoSync orders nothing, syncs nothing and leaves the need check bit
	// alone: fast, and after a power cut the image is lost. For images that
	// are made in one go and can be made again.
	NoSync bool
	// Repair opens an image to be checked and repaired by block.Checker, and
	// leaves that to the caller even if it was not closed. The guest's disk
	// can't be written then.
	Repair bool
	// L2CacheSize bounds the memory for L2 tables, in bytes; 0 is the default.
	// Memory is taken as tables are used.
	L2CacheSize int
	// CleanAfter is how long after the last new cluster the need check bit is
	// cleared; 0 is 5 seconds.
	CleanAfter time.Duration
}

// disk is the layer: an open QED image file.
type disk struct {
	file     block.File
	backing  *block.Image
	self     *block.Image // reads what the guest reads, for copy on write
	path     string
	geo      geometry
	writable bool
	noSync   bool
	repair   bool         // opened to be repaired: nothing is mended before
	size     atomic.Int64 // of the guest disk

	ranges  rangelock.Lock
	pins    sync.RWMutex // shared while requests use what Resolve said
	flushes combine.Calls
	trusted atomic.Bool // the tables have been checked, see examine

	mu      sync.RWMutex // guards what follows
	hdr     *header
	l1      []uint64
	l1Dirty map[int64]bool // by sector
	l2      *cache.Cache
	fileEnd hostOff // clusters from here on are free
	length  hostOff // the file has at least so many bytes
	tail    bool    // the file goes on behind fileEnd, with part of a cluster
	newData bool    // entries were set since the last collect
	filling int     // allocations that are not linked yet
	clean   cleaner
	sealed  error // why nothing is to be written, though all is well
	broken  error
}

// Open opens the image in f. The image owns f once Open has succeeded. If the
// image was not closed properly, and is opened for writing, entries that lead
// nowhere are cleared.
func Open(f block.File, o *OpenOptions) (*block.Image, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	d, err := open(f, o)
	if err != nil {
		return nil, block.OpenError(o.Path, "qed", err)
	}
	return block.NewImage(d, block.ImageOptions{Path: o.Path, Format: "qed", Writable: o.Writable && !o.Repair}), nil
}

func open(f block.File, o *OpenOptions) (*disk, error) {
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	d := newDisk(f, h, o)
	if o.NoBacking && h.backingName != "" {
		d.sealed = block.Invalidf("an image whose backing file is left closed can't be written")
	}
	if err := d.load(o); err != nil {
		return nil, errors.Join(err, d.closeBacking())
	}
	return d, nil
}

func newDisk(f block.File, h *header, o *OpenOptions) *disk {
	d := &disk{
		file: f, hdr: h, geo: h.geometry(), path: o.Path, writable: o.Writable, noSync: o.NoSync, repair: o.Repair,
		l1Dirty: make(map[int64]bool),
	}
	d.size.Store(int64(h.imageSize))
	l2Size := o.L2CacheSize
	if l2Size == 0 {
		l2Size = DefaultL2CacheSize
	}
	d.l2 = cache.New(sliceSize, l2Size)
	d.clean.after = o.CleanAfter
	if d.clean.after == 0 {
		d.clean.after = defaultCleanAfter
	}
	d.self = block.NewImage(d, block.ImageOptions{Path: o.Path, Format: "qed"})
	return d
}

// readHeader reads and validates the header and the name of the backing file.
func readHeader(f block.File) (*header, error) {
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	h, err := parseHeader(b[:n])
	if err != nil {
		return nil, err
	}
	if err := h.validate(); err != nil || h.features&featureBacking == 0 {
		return h, err
	}
	name := make([]byte, h.backingLength)
	if err := readExact(f, "Backing file name", name, hostOff(h.backingOffset)); err != nil {
		return nil, err
	}
	// QEMU takes the name as ending at a zero byte.
	h.backingName, _, _ = strings.Cut(string(name), "\x00")
	return h, nil
}

// readExact reads a piece of metadata. Before memory is taken by a length from
// the image, that has been checked; here the end of the file is: what is cut
// short is never read as zeros.
func readExact(f block.File, what string, p []byte, off hostOff) error {
	n, err := f.ReadAt(p, int64(off))
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return block.Corruptf("%s of %d bytes at %#x lies beyond the end of the file", what, len(p), int64(off))
	}
	return err
}

// load reads the L1 table and opens the backing image.
func (d *disk) load(o *OpenOptions) error {
	if err := d.loadTables(); err != nil {
		return err
	}
	if err := d.openBacking(o); err != nil {
		return err
	}
	return d.prepareWrites()
}

// loadTables finds the end of the file and reads the L1 table.
func (d *disk) loadTables() error {
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	d.fileEnd = hostOff(d.geo.alignDown(size))
	d.length = d.fileEnd
	d.tail = size > int64(d.fileEnd)
	return d.loadL1()
}

func (d *disk) loadL1() error {
	if err := d.hdr.tableInFile(d.fileEnd); err != nil {
		return err
	}
	b := make([]byte, d.geo.tableBytes)
	if err := readExact(d.file, "L1 table", b, hostOff(d.hdr.l1Offset)); err != nil {
		return err
	}
	d.l1 = make([]uint64, d.geo.entries)
	for i := range d.l1 {
		d.l1[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

func (d *disk) openBacking(o *OpenOptions) error {
	if d.hdr.backingName == "" || o.NoBacking {
		return nil
	}
	policy := o.Policy
	if policy == nil {
		policy = block.Deny{}
	}
	b, err := policy.OpenImage(block.Ref{
		Role: block.RoleBacking, Name: d.hdr.backingName, Format: d.hdr.backingFormat(), From: o.Path,
	})
	if err != nil {
		return err
	}
	d.backing = b
	return nil
}

// prepareWrites makes an image that is to be written fit for it, and mends what
// needs it unless the caller will.
func (d *disk) prepareWrites() error {
	if !d.writable {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hdr.autoclear != 0 {
		// No autoclear bit is defined: what unknown ones promise will no
		// longer be true once something is written.
		d.hdr.autoclear = 0
		if err := d.patchHeader(atAutoclear, le64(0)); err != nil {
			return err
		}
	}
	if d.repair || d.hdr.features&featureNeedCheck == 0 {
		return nil
	}
	_, err := d.check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	return err
}

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// Size implements block.Layer.
func (d *disk) Size() int64 { return d.size.Load() }

// Backing implements block.Backed.
func (d *disk) Backing() *block.Image { return d.backing }

// ReadSpecial is never called: no extent of a QED image is special.
func (d *disk) ReadSpecial(block.Extent, []byte, int64) error { return block.ErrUnsupported }

var (
	_ block.Layer     = (*disk)(nil)
	_ block.Backed    = (*disk)(nil)
	_ block.Describer = (*disk)(nil)
	_ block.Checker   = (*disk)(nil)
	_ block.Resizer   = (*disk)(nil)

	_ block.BackingChanger = (*disk)(nil)
	_ block.Emptier        = (*disk)(nil)
	_ block.Pinner         = (*disk)(nil)
	_ block.Invalidator    = (*disk)(nil)
)
