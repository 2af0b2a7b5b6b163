package qcow2

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/combine"
	"github.com/diskimg/diskimg/internal/rangelock"
)

// Opening: header, L1 table, data file and backing image; for writing also the
// refcount table and the map of all metadata.

// Defaults of OpenOptions, those of QEMU (docs/qcow2-cache.txt).
const (
	DefaultL2CacheSize = 32 << 20
	// DefaultRefcountCacheSize is that of images with clusters of up to 64 KiB.
	// Of others it is four clusters.
	DefaultRefcountCacheSize = 256 << 10
	// DefaultCacheCleanInterval is after what time without use tables leave the
	// memory.
	DefaultCacheCleanInterval = 10 * time.Minute
)

// OpenOptions say how to open an image. The zero value opens it read-only and
// refuses every file that the image names.
type OpenOptions struct {
	// Path is used in messages and to resolve what the image names.
	Path     string
	Writable bool
	// Policy opens the backing image and the data file; nil refuses them.
	Policy block.Policy
	// Backing lies below in place of what the image names; nil is that. The
	// image closes it once Open has succeeded.
	Backing *block.Image
	// NoBacking leaves the backing image closed: what it holds reads as zero.
	// Guest data of such an image can't be written.
	NoBacking bool
	// Data is the external data file, if the caller has opened it; otherwise
	// Policy is asked. The image closes it.
	Data block.File
	// Passphrase is asked for that of an encrypted image, once, and once more
	// for each key slot that is added. What it returns is cleared after use.
	Passphrase func() ([]byte, error)
	// EncryptFormat is how the image is encrypted, aes or luks; if it is not
	// empty and not so, the image is refused.
	EncryptFormat string
	// NoIO opens an encrypted image without a passphrase; its data can't be
	// read. Not with Writable.
	NoIO bool
	// NoSync orders nothing and syncs nothing: fast, and after a power cut
	// the image is lost. For images that are made in one go and can be made
	// again.
	NoSync bool
	// Repair opens an image to be checked and repaired, even if it was not
	// closed or is marked corrupt. Nothing but Check writes to it.
	Repair  bool
	Discard DiscardOptions
	// L2CacheSize and RefcountCacheSize bound the memory for tables, in
	// bytes; 0 is the default. Memory is taken as tables are used.
	L2CacheSize, RefcountCacheSize int
	// L2CacheEntrySize is how much of an L2 table is read at once, in bytes: a
	// power of two from 512 to the cluster size; 0 is 4 KiB.
	L2CacheEntrySize int
	// CacheCleanInterval is after what time without use tables leave the memory;
	// 0 is the default, and below 0 they never do for that. No timer runs: it is
	// looked at when tables are read.
	CacheCleanInterval time.Duration
	// LazyRefcounts, if not nil, says whether updates of refcounts are postponed,
	// whatever the image says.
	LazyRefcounts *bool
	// InactiveL2 has writes checked against the L2 tables that only internal
	// snapshots use, too. It takes longer to open an image then that has some.
	InactiveL2 bool
	// SkipOverlaps names the checks that writes do not pass, of those in
	// OverlapTemplates["all"]. What the package writes itself is checked always.
	SkipOverlaps []string
}

// disk is the layer: an open qcow2 image file.
type disk struct {
	file     block.File      // tables
	data     block.File      // guest clusters; the same as file unless external
	external bool            // guest clusters are in a file of their own
	events   block.EventSink // nil if nobody wants to know
	backing  *block.Image
	self     *block.Image // reads what the guest reads, for copy on write
	path     string
	geo      geometry
	writable bool
	noSync   bool
	// repairOnly is an image that was opened to be repaired.
	repairOnly bool
	sparse     bool         // data may well be holes
	size       atomic.Int64 // of the guest disk
	crypt      *encryption  // nil: not encrypted
	used       atomic.Bool  // something may have been written

	whole   sync.Mutex   // held by what looks at, or changes, the image as a whole
	writers sync.RWMutex // shared by requests that write; see alone
	pins    pins
	// reclaimable is how many clusters of unlinked the guest has discarded.
	reclaimable atomic.Int64
	sectors     rangelock.Lock // of an encrypted image, see crypt.go
	ranges      rangelock.Lock
	flushes     combine.Calls
	decoded     decodedCluster
	codec       atomic.Uint32 // the compression type
	bitmaps     bitmaps

	mu            sync.RWMutex // guards what follows
	hdr           *header
	l1            []uint64
	l1Dirty       map[int64]bool // by sector
	l2            *cache.Cache
	reftable      []uint64
	reftableDirty map[int64]bool // by sector
	refs          *cache.Cache
	meta          metaMap
	searchFrom    int64   // the cluster at which the search for space goes on
	fileEnd       int64   // clusters from here on have never been written
	extended      bool    // fileEnd has moved since the image was opened
	pack          hostOff // where the next compressed data may go; 0: nowhere
	newData       bool    // links were set since the last collect
	unlinked      []hostRun
	flushing      bool // tables are on their way to where they were
	retired       []retired
	cause         cause     // why space is given up just now
	punching      bool      // space that becomes free just now goes back to the file system
	holes         []hostRun // space that is to go there
	discards      DiscardOptions
	unchecked     map[metaKind]bool
	inactiveL2    bool // snapshots' L2 tables are claimed as well
	lazy          bool // refcounts may be behind while the image is marked dirty
	exact         bool // for the time being they may not
	cleanAfter    time.Duration
	cleaned       time.Time // when caches were last looked through
	broken        error
	unflushed     error // why a write that was asked for was not made, for Close to tell; nil: none is to be
	sealed        error // why guest data can't be written, nil if it can
}

// Open opens the image in f. The image owns f once Open has succeeded.
func Open(f block.File, o *OpenOptions) (*block.Image, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	d, err := open(f, o)
	if err != nil {
		return nil, block.OpenError(o.Path, "qcow2", err)
	}
	return block.NewImage(d, block.ImageOptions{Path: o.Path, Format: "qcow2", Writable: o.Writable && !o.Repair}), nil
}

func open(f block.File, o *OpenOptions) (*disk, error) {
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	if err := h.validateBut(o.Repair); err != nil {
		return nil, err
	}
	d := newDisk(f, h, o)
	if err := d.load(o); err != nil {
		return nil, errors.Join(err, d.closeReferred())
	}
	return d, nil
}

func newDisk(f block.File, h *header, o *OpenOptions) *disk {
	d := &disk{
		file: f, data: f, hdr: h, geo: h.geometry(), path: o.Path, writable: o.Writable, noSync: o.NoSync, repairOnly: o.Repair, discards: o.Discard,
		l1Dirty: make(map[int64]bool), reftableDirty: make(map[int64]bool),
	}
	d.size.Store(int64(h.size))
	d.codec.Store(uint32(h.compression))
	d.events, _ = f.(block.EventSink)
	slice, l2Slice := int(min(maxSlice, d.geo.clusterSize)), o.L2CacheEntrySize
	if l2Slice == 0 {
		l2Slice = slice
	}
	l2Size, refSize := o.L2CacheSize, o.RefcountCacheSize
	if l2Size == 0 {
		l2Size = DefaultL2CacheSize
	}
	if refSize == 0 {
		refSize = max(DefaultRefcountCacheSize, int(4*d.geo.clusterSize))
	}
	d.l2, d.refs = cache.New(l2Slice, l2Size), cache.New(slice, refSize)
	d.cleanAfter, d.cleaned = o.CacheCleanInterval, time.Now()
	if d.cleanAfter == 0 {
		d.cleanAfter = DefaultCacheCleanInterval
	}
	d.unchecked, d.inactiveL2 = uncheckedKinds(o.SkipOverlaps), o.InactiveL2
	d.self = block.NewImage(d, block.ImageOptions{Path: o.Path, Format: "qcow2"})
	return d
}

// setHeader makes h the header in use. Needs mu exclusively.
func (d *disk) setHeader(h *header) {
	*d.hdr = *h
	d.codec.Store(uint32(h.compression))
}

// headerRead is how much of a file is read to find the header in it; only
// headers that say so make it more, and none makes it more than maxHeader.
const (
	headerRead = 4 << 10
	maxHeader  = 256 << 10
)

func readHeader(f block.File) (*header, error) {
	for _, n := range []int{headerRead, maxHeader} {
		b, err := readStart(f, n)
		if err != nil {
			return nil, err
		}
		h, err := parseHeader(b, len(b) == n)
		if err != errMoreHeader {
			return h, err
		}
	}
	return nil, block.Unsupportedf("The header with its extensions is longer than %d bytes", maxHeader)
}

// readStart reads the first n bytes of f, or all that there are.
func readStart(f block.File, n int) ([]byte, error) {
	b := make([]byte, n)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// load reads the tables and opens what the image refers to.
func (d *disk) load(o *OpenOptions) error {
	if err := d.mayOpen(o); err != nil {
		return err
	}
	if err := d.loadL1(); err != nil {
		return err
	}
	if err := d.openCrypt(o); err != nil {
		return err
	}
	if err := d.openData(o); err != nil {
		return err
	}
	d.sparse = d.crypt == nil && d.isSparse()
	if err := d.openBacking(o); err != nil {
		return err
	}
	if !d.writable {
		return nil
	}
	if err := d.prepareWrites(); err != nil {
		return err
	}
	return d.setLaziness(o)
}

func (d *disk) mayOpen(o *OpenOptions) error {
	n := o.L2CacheEntrySize
	switch {
	case n != 0 && (n < 512 || int64(n) > d.geo.clusterSize || n&(n-1) != 0):
		return block.Invalidf("L2 cache entry size must be a power of two between 512 and the cluster size (%d)", d.geo.clusterSize)
	case o.LazyRefcounts != nil && *o.LazyRefcounts && !d.geo.v3:
		return block.Invalidf("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
	case !d.writable:
		return nil
	case o.NoIO:
		return block.Invalidf("an image can't be written that is opened not to be read")
	}
	if d.hdr.incompat&incompatCorrupt != 0 && !o.Repair {
		return block.Corruptf("qcow2: Image is corrupt; cannot be opened read/write")
	}
	if o.NoBacking && d.hdr.backingName != "" {
		d.sealed = block.Invalidf("an image whose backing file is left closed can't be written")
	}
	return nil
}

func (d *disk) loadL1() error {
	n := int64(d.hdr.l1Size) * 8
	if err := d.inFile("Active L1 table", d.hdr.l1Offset, n); err != nil {
		return err
	}
	b := make([]byte, n)
	if err := d.readTable("Active L1 table", b, hostOff(d.hdr.l1Offset)); err != nil {
		return err
	}
	d.l1 = decodeTable(b)
	return nil
}

// inFile checks that n bytes at off lie within the file, before memory is
// taken for them.
func (d *disk) inFile(what string, off uint64, n int64) error {
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	if off > uint64(size) || n > size-int64(off) {
		return block.Corruptf("%s of %d bytes at %#x lies beyond the end of the file (%d bytes)", what, n, off, size)
	}
	return nil
}

// openData opens the external data file if the image has one.
func (d *disk) openData(o *OpenOptions) error {
	if d.hdr.incompat&incompatDataFile == 0 {
		if o.Data != nil {
			return block.Invalidf("'data-file' can only be set for images with an external data file")
		}
		return nil
	}
	if o.Data != nil {
		d.useData(o.Data)
		return nil
	}
	name := string(d.hdr.find(extDataFile))
	if name == "" {
		return block.Invalidf("'data-file' is required for this image")
	}
	f, err := policy(o).OpenFile(block.Ref{Role: block.RoleData, Name: name, From: o.Path, Writable: o.Writable})
	if err != nil {
		return err
	}
	d.useData(f)
	return nil
}

// useData has guest clusters in a file of their own.
func (d *disk) useData(f block.File) { d.data, d.external = f, true }

func policy(o *OpenOptions) block.Policy {
	if o.Policy == nil {
		return block.Deny{}
	}
	return o.Policy
}

func (d *disk) openBacking(o *OpenOptions) error {
	if o.Backing != nil {
		d.backing = o.Backing
		return nil
	}
	if d.hdr.backingName == "" || o.NoBacking {
		return nil
	}
	format := string(d.hdr.find(extBackingFormat))
	b, err := policy(o).OpenImage(block.Ref{Role: block.RoleBacking, Name: d.hdr.backingName, Format: format, From: o.Path})
	if err != nil {
		return err
	}
	d.backing = b
	return nil
}

// prepareWrites loads what only writing needs, and makes the header fit for it.
func (d *disk) prepareWrites() error {
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	d.fileEnd = d.geo.clusters(size)
	if err := d.loadReftable(); err != nil && !(d.repairOnly && errors.As(err, new(noReftable))) {
		return err
	}
	if err := d.loadBitmaps(); err != nil {
		return err
	}
	if err := d.mapMetadata(); err != nil {
		return err
	}
	if d.broken != nil {
		return nil
	}
	if err := d.clearAutoclear(); err != nil {
		return err
	}
	if d.hdr.incompat&incompatDirty == 0 || d.repairOnly {
		return nil
	}
	return d.recoverDirty()
}

// noReftable is the error of an image whose refcount table is not in the file.
// Such an image can be read, and it can be opened to be repaired.
type noReftable struct{ error }

// Unwrap returns the error with its kind.
func (e noReftable) Unwrap() error { return e.error }

func (d *disk) loadReftable() error {
	n := int64(d.hdr.reftableClusters) << d.geo.clusterBits
	if n == 0 || d.hdr.reftableOffset == 0 {
		return noReftable{block.Corruptf("Image does not contain a reference count table")}
	}
	if err := d.inFile("refcount table", d.hdr.reftableOffset, n); errors.Is(err, block.ErrCorrupt) {
		return noReftable{err}
	} else if err != nil {
		return err
	}
	d.event(block.EventReftableLoad)
	b := make([]byte, n)
	if err := d.readTable("refcount table", b, hostOff(d.hdr.reftableOffset)); err != nil {
		return err
	}
	d.reftable = decodeTable(b)
	return nil
}

// mapMetadata claims every cluster that holds metadata, for the overlap checks.
func (d *disk) mapMetadata() error {
	m := metaCollector{geo: &d.geo}
	m.add(metaHeader, 0, d.geo.clusterSize)
	m.add(metaL1, d.hdr.l1Offset, int64(len(d.l1))*8)
	m.add(metaReftable, d.hdr.reftableOffset, int64(len(d.reftable))*8)
	for _, e := range d.l1 {
		m.addTable(metaL2, e&offsetMask)
	}
	for _, e := range d.reftable {
		m.addTable(metaRefblock, e&^reftableReserved)
	}
	if d.hdr.cryptMethod == cryptLUKS {
		if off, n, err := d.hdr.luksPlace(); err == nil && d.inFile("encryption header", off, n) == nil {
			m.add(metaCrypt, off, n)
		}
	}
	snapshots, end, err := d.readSnapshots(maxSnapshotTable)
	if err != nil && !d.repairOnly && !errors.As(err, new(cutShort)) {
		return err
	}
	if err != nil {
		// What the disk holds now can be read all the same.
		d.broken = block.Errorf(block.ErrBroken, "the image can't be written while its snapshots can't be read: %w", err)
		return nil
	}
	m.add(metaSnapshots, d.hdr.snapshotsOffset, end)
	for i := range snapshots {
		if s := &snapshots[i]; d.validL1(s) {
			m.add(metaInactiveL1, s.l1Offset, int64(s.l1Size)*8)
		}
	}
	if d.inactiveL2 {
		if err := d.claimInactiveL2(&m, snapshots); err != nil {
			return err
		}
	}
	d.claimBitmaps(&m)
	d.meta = m.build()
	return nil
}

// seal refuses guest data, which could not be checked. Close tells again what was
// asked for and not written.
func (d *disk) seal(err error) {
	d.sealed, d.unflushed = err, err
	var errno syscall.Errno
	if errors.As(err, &errno) {
		d.unflushed = errno
	}
}

// claimInactiveL2 claims the L2 tables that only snapshots lead to, each once.
// What does not lie in the file, so that nobody can write over it, is left out.
func (d *disk) claimInactiveL2(m *metaCollector, snapshots []snapshotRecord) error {
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	inUse := make(map[uint64]bool, len(d.l1))
	for _, e := range d.l1 {
		inUse[e&offsetMask] = true
	}
	for i := range snapshots {
		s := &snapshots[i]
		if err := d.checkL1(s); err != nil {
			d.seal(err)
			return nil
		}
		if !d.validL1(s) {
			continue
		}
		b := make([]byte, int64(s.l1Size)*8)
		if err := d.readTable("snapshot L1 table", b, hostOff(s.l1Offset)); err != nil {
			return err
		}
		for _, e := range decodeTable(b) {
			if off := e & offsetMask; !inUse[off] && off < uint64(size) {
				inUse[off] = true
				m.addTable(metaInactiveL2, off)
			}
		}
	}
	return nil
}

// clearAutoclear clears the autoclear bits of features that we do not keep up:
// what they promise will no longer be true once something is written.
func (d *disk) clearAutoclear() error {
	kept := d.hdr.autoclear
	if !d.external {
		kept = 0
	}
	kept &= autoclearRawData
	if len(d.bitmaps.list) > 0 {
		kept |= autoclearBitmaps
	}
	if !d.geo.v3 || kept == d.hdr.autoclear {
		return nil
	}
	d.hdr.autoclear = kept
	return d.patchHeader(atAutoclear, be64(kept))
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// Size implements block.Layer.
func (d *disk) Size() int64 { return d.size.Load() }

// Backing implements block.Backed.
func (d *disk) Backing() *block.Image { return d.backing }

// Pin implements block.Pinner.
func (d *disk) Pin() uint32 { return d.pins.pin() }

// Unpin implements block.Pinner.
func (d *disk) Unpin(token uint32) { d.pins.unpin(token) }
