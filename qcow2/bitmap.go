package qcow2

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// Persistent dirty bitmaps: the directory, as it is on disk and in memory.
// Facts: qcow2 specification, "Bitmaps extension" and "Bitmaps"; limits: those
// of QEMU. Stations: bitmap.go reads the directory, bitmapread.go what is in a
// bitmap, bitmaptrack.go follows writes, bitmapedit.go changes bitmaps,
// bitmapstore.go writes them, bitmapcheck.go counts what they refer to.

const (
	bitmapExtension    = 24 // bytes of the header extension
	bitmapFixed        = 24 // bytes of a directory entry before extra data and name
	maxBitmaps         = 65535
	maxBitmapDirectory = 1024 * maxBitmaps
	maxBitmapTable     = 0x8000000
	maxBitmapBytes     = 512 << 20 // of clusters of one bitmap
	maxBitmapName      = 1023
	minGranularityBits = 9
	maxGranularityBits = 31

	bitmapInUse      = 1 << 0
	bitmapAuto       = 1 << 1
	bitmapExtraKnown = 1 << 2 // extra data does not forbid using the bitmap
	bitmapFlags      = 1<<3 - 1

	dirtyTracking = 1 // the type of bitmap

	tableReserved  = ^uint64(offsetMask | 1)
	tableAllOnes   = 1
	atBitmapFlags  = 12
	defaultMinGran = 4 << 10
	defaultMaxGran = 64 << 10
)

// bitmap is a bitmap of the image. What is on disk is its base; bits that have
// been set since are its delta.
type bitmap struct {
	name     string
	granBits uint8
	extra    []byte

	// As on disk.
	at      int64 // of the entry in the directory
	flags   uint32
	table   hostOff // 0 if there is none
	entries int64

	enabled bool
	why     error // it can't be used, because; it can be removed
	held    bool  // marked in use on disk by us, until it is stored
	changed bool  // what is on disk does not tell all
	bits    int64 // for the disk of now
	valid   int64 // so many bits of the base count; behind them all are clear
	delta   bitset
}

// bitmaps are those of an open image.
type bitmaps struct {
	begun  atomic.Bool // writing has begun: enabled bitmaps are marked in use
	active atomic.Bool // some bitmap is enabled

	mu   sync.Mutex // guards what follows
	list []*bitmap
}

var errNoBitmaps = block.Unsupportedf("Cannot store dirty bitmaps in qcow2 v2 files")

func errInconsistent(name string) error {
	return block.Errorf(block.ErrInvalid, "Bitmap '%s' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk", name)
}

// bitmapBits returns how many bits describe a disk of size bytes.
func bitmapBits(size int64, granBits uint8) int64 {
	n := size >> granBits
	if size&(1<<granBits-1) != 0 {
		n++
	}
	return n
}

// tableEntries returns how many clusters hold so many bits.
func (d *disk) tableEntries(bits int64) int64 { return d.geo.clusters((bits + 7) / 8) }

// bitmapPlace is what the header extension says.
type bitmapPlace struct {
	count uint32
	size  int64
	off   hostOff
}

// bitmapPlace reads the header extension; ok is false if there is none that
// counts.
func (d *disk) bitmapPlace() (p bitmapPlace, ok bool, err error) {
	b := d.hdr.find(extBitmaps)
	if b == nil || d.hdr.autoclear&autoclearBitmaps == 0 {
		return p, false, nil
	}
	be := binary.BigEndian
	if len(b) != bitmapExtension {
		return p, true, block.Corruptf("bitmaps extension has %d bytes, not %d", len(b), bitmapExtension)
	}
	size, off := be.Uint64(b[8:]), be.Uint64(b[16:])
	p = bitmapPlace{be.Uint32(b), int64(size), hostOff(off)}
	switch {
	case p.count == 0 || p.count > maxBitmaps:
		return p, true, block.Corruptf("bitmaps extension: %d bitmaps, there are between 1 and %d", p.count, maxBitmaps)
	case be.Uint32(b[4:]) != 0:
		return p, true, block.Corruptf("bitmaps extension: reserved field is %#x", be.Uint32(b[4:]))
	case size > maxBitmapDirectory || size < uint64(p.count)*bitmapFixed:
		return p, true, block.Corruptf("bitmap directory of %d bytes for %d bitmaps, the limit is %d", size, p.count, maxBitmapDirectory)
	case off&uint64(d.geo.clusterSize-1) != 0 || off == 0 || off >= maxHostOffset:
		return p, true, block.Corruptf("bitmap directory offset invalid: %#x", off)
	}
	return p, true, d.inFile("bitmap directory", off, p.size)
}

// encode returns the data of the header extension.
func (p bitmapPlace) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, p.count)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(p.size))
	return binary.BigEndian.AppendUint64(b, uint64(p.off))
}

// readBitmaps returns the bitmaps of the directory, which must not be longer
// than limit. A bitmap that can't be used is there and says why.
func (d *disk) readBitmaps(limit int64) ([]*bitmap, error) {
	p, ok, err := d.bitmapPlace()
	if err != nil || !ok {
		return nil, err
	}
	if p.size > limit {
		return nil, block.Unsupportedf("bitmap directory of %d bytes is too large, the limit is %d", p.size, limit)
	}
	dir := make([]byte, p.size)
	if err := d.readTable("bitmap directory", dir, p.off); err != nil {
		return nil, err
	}
	return d.parseBitmaps(dir, int(p.count))
}

func (d *disk) parseBitmaps(dir []byte, count int) ([]*bitmap, error) {
	var list []*bitmap
	seen := make(map[string]bool)
	for at := 0; at < len(dir); {
		b, n, err := parseBitmap(dir[at:])
		switch {
		case err != nil:
			return nil, block.Corruptf("bitmap directory entry %d: %w", len(list), err)
		case len(list) == count:
			return nil, block.Corruptf("bitmap directory has more than the %d entries that the header says", count)
		case seen[b.name]:
			return nil, block.Corruptf("bitmap directory has two entries of the name %q", b.name)
		}
		b.at = int64(at)
		d.judge(b)
		seen[b.name] = true
		list, at = append(list, b), at+n
	}
	if len(list) != count {
		return nil, block.Corruptf("bitmap directory has %d entries, the header says %d", len(list), count)
	}
	return list, nil
}

// parseBitmap decodes the directory entry at the start of dir; n is its length.
func parseBitmap(dir []byte) (b *bitmap, n int, err error) {
	if len(dir) < bitmapFixed {
		return nil, 0, block.Corruptf("only %d bytes are left", len(dir))
	}
	be := binary.BigEndian
	nameSize, extraSize := int64(be.Uint16(dir[18:])), int64(be.Uint32(dir[20:]))
	size := (bitmapFixed + nameSize + extraSize + 7) &^ 7
	b = &bitmap{
		table: hostOff(be.Uint64(dir)), entries: int64(be.Uint32(dir[8:])),
		flags: be.Uint32(dir[atBitmapFlags:]), granBits: dir[17],
	}
	switch {
	case size > int64(len(dir)):
		return nil, 0, block.Corruptf("it has %d bytes, only %d are left", size, len(dir))
	case nameSize == 0 || nameSize > maxBitmapName:
		return nil, 0, block.Corruptf("name of %d bytes, there are between 1 and %d", nameSize, maxBitmapName)
	case b.flags&^bitmapFlags != 0:
		return nil, 0, block.Unsupportedf("unknown flags %#x", b.flags)
	case dir[16] != dirtyTracking:
		return nil, 0, block.Unsupportedf("unknown type of bitmap %d", dir[16])
	case b.granBits < minGranularityBits || b.granBits > maxGranularityBits:
		return nil, 0, block.Unsupportedf("granularity of 2^%d bytes, known are 2^%d to 2^%d", b.granBits, minGranularityBits, maxGranularityBits)
	}
	b.extra = slices.Clone(dir[bitmapFixed : bitmapFixed+extraSize])
	b.name = string(dir[bitmapFixed+extraSize:][:nameSize])
	return b, int(size), nil
}

// judge finds out whether a bitmap that was read can be used. Its table is
// looked at when it is.
func (d *disk) judge(b *bitmap) {
	b.enabled = b.flags&bitmapAuto != 0
	b.bits = bitmapBits(d.Size(), b.granBits)
	b.valid = b.bits
	table := uint64(b.table)
	switch n := d.tableEntries(b.bits); {
	case b.flags&bitmapInUse != 0:
		b.why = errInconsistent(b.name)
	case len(b.extra) > 0 && b.flags&bitmapExtraKnown == 0:
		b.why = block.Unsupportedf("Bitmap '%s' has extra data that is not known and cannot be used", b.name)
	case b.entries != n || n > maxBitmapTable || n<<d.geo.clusterBits > max(maxBitmapBytes, d.geo.clusterSize):
		b.why = block.Corruptf("Bitmap '%s' has %d table entries, a disk of %d bytes needs %d", b.name, b.entries, d.Size(), n)
	case table&uint64(d.geo.clusterSize-1) != 0 || table >= maxHostOffset || table == 0 && n > 0:
		b.why = block.Corruptf("Bitmap '%s' has an invalid table offset: %#x", b.name, table)
	default:
		b.why = d.inFile("bitmap table", table, 8*b.entries)
	}
}

// encodeBitmaps returns the directory, and sets where each entry is in it.
func encodeBitmaps(list []*bitmap) []byte {
	var dir []byte
	be := binary.BigEndian
	for _, b := range list {
		b.at = int64(len(dir))
		dir = be.AppendUint64(dir, uint64(b.table))
		dir = be.AppendUint32(dir, uint32(b.entries))
		dir = be.AppendUint32(dir, b.flags)
		dir = append(dir, dirtyTracking, b.granBits)
		dir = be.AppendUint16(dir, uint16(len(b.name)))
		dir = be.AppendUint32(dir, uint32(len(b.extra)))
		dir = append(append(dir, b.extra...), b.name...)
		dir = append(dir, make([]byte, -len(dir)&7)...)
	}
	return dir
}

// loadBitmaps reads the bitmaps of an image that is to be written. What can't be
// understood is given up, as the specification has it for those who don't know
// bitmaps at all: the bit that vouches for it is cleared.
func (d *disk) loadBitmaps() error {
	list, err := d.readBitmaps(maxBitmapDirectory)
	if errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrUnsupported) {
		return nil
	}
	d.bitmaps.setList(list)
	return err
}

// claimBitmaps claims the directory and the tables.
func (d *disk) claimBitmaps(m *metaCollector) {
	p, ok, err := d.bitmapPlace()
	if !ok || err != nil || len(d.bitmaps.list) == 0 {
		return
	}
	m.add(metaBitmaps, uint64(p.off), p.size)
	for _, b := range d.bitmaps.list {
		if d.hasTable(b) {
			m.add(metaBitmaps, uint64(b.table), 8*b.entries)
		}
	}
}

// hasTable reports whether b has a table that lies where one can.
func (d *disk) hasTable(b *bitmap) bool {
	off := uint64(b.table)
	return b.entries > 0 && b.entries <= maxBitmapTable && off != 0 && off < maxHostOffset &&
		off&uint64(d.geo.clusterSize-1) == 0 && d.inFile("bitmap table", off, 8*b.entries) == nil
}

func (m *bitmaps) setList(list []*bitmap) {
	m.list = list
	m.active.Store(slices.ContainsFunc(list, func(b *bitmap) bool { return b.enabled && b.why == nil }))
}

// find returns the bitmap of that name, nil if there is none.
func findBitmap(list []*bitmap, name string) *bitmap {
	for _, b := range list {
		if b.name == name {
			return b
		}
	}
	return nil
}
