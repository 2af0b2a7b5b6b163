package qcow2

import (
	"iter"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// What is in a bitmap: its base on disk and what has been set since.

// currentBitmaps returns copies of the bitmaps as they are now. Takes
// bitmaps.mu.
func (d *disk) currentBitmaps() ([]*bitmap, error) {
	if !d.writable {
		d.mu.RLock()
		defer d.mu.RUnlock()
		return d.readBitmaps(maxBitmapDirectory)
	}
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	list := cloneBitmaps(d.bitmaps.list)
	for _, b := range list {
		b.delta = b.delta.clone()
	}
	return list, nil
}

// Bitmaps implements block.BitmapLister.
func (d *disk) Bitmaps() ([]block.Bitmap, error) {
	d.mu.RLock()
	v3 := d.geo.v3
	d.mu.RUnlock()
	if !v3 {
		return nil, errNoBitmaps
	}
	list, err := d.currentBitmaps()
	if err != nil {
		return nil, err
	}
	return describeBitmaps(list), nil
}

func describeBitmaps(list []*bitmap) []block.Bitmap {
	all := make([]block.Bitmap, len(list))
	for i, b := range list {
		all[i] = block.Bitmap{
			Name: b.name, Granularity: 1 << b.granBits, Enabled: b.enabled,
			InUse: b.flags&bitmapInUse != 0 && !b.held, Unusable: b.why,
		}
	}
	return all
}

// DirtyExtents implements block.BitmapLister.
func (d *disk) DirtyExtents(name string) iter.Seq2[block.Span, error] {
	return func(yield func(block.Span, error) bool) {
		// While it is pinned, what the bitmap lies in is not used again.
		token := d.pins.pin()
		defer d.pins.unpin(token)
		list, err := d.currentBitmaps()
		if err != nil {
			yield(block.Span{}, err)
			return
		}
		b, err := usableBitmap(list, name)
		if err != nil {
			yield(block.Span{}, err)
			return
		}
		d.dirtySpans(b, yield)
	}
}

func usableBitmap(list []*bitmap, name string) (*bitmap, error) {
	b := findBitmap(list, name)
	if b == nil {
		return nil, block.Invalidf("Dirty bitmap '%s' not found", name)
	}
	return b, b.why
}

// dirtySpans yields the dirty ranges of the disk by a bitmap that nobody changes
// meanwhile.
func (d *disk) dirtySpans(b *bitmap, yield func(block.Span, error) bool) {
	var held block.Span
	size := d.Size()
	err := d.bitmapRuns(b, func(from, to int64) bool {
		start, end := from<<b.granBits, size
		if to < b.bits {
			end = to << b.granBits
		}
		if held.Length > 0 && held.Start+held.Length == start {
			held.Length += end - start
			return true
		}
		done := held
		held = block.Span{Start: start, Length: end - start}
		return done.Length == 0 || yield(done, nil)
	})
	switch {
	case err == errStopped:
	case err != nil:
		yield(block.Span{}, err)
	case held.Length > 0:
		yield(held, nil)
	}
}

// errStopped says that whoever is called has had enough.
var errStopped = block.Errorf(block.ErrInvalid, "stopped")

// bitmapRuns calls f for runs of bits that are set, until it returns false,
// which is errStopped.
func (d *disk) bitmapRuns(b *bitmap, f func(from, to int64) bool) error {
	table, err := d.bitmapTable(b)
	if err != nil {
		return err
	}
	per := d.geo.clusterSize * 8
	p := make([]byte, d.geo.clusterSize)
	for i, n := int64(0), d.tableEntries(b.bits); i < n; i++ {
		switch e := bitmapEntry(table, i); {
		case e == 0 && !b.delta.any(i*per, (i+1)*per):
			continue
		case e == tableAllOnes && (i+1)*per <= b.valid:
			if !f(i*per, (i+1)*per) {
				return errStopped
			}
			continue
		}
		if err := d.bitmapPiece(b, table, i, p); err != nil {
			return err
		}
		if !bitRuns(p, func(from, to int64) bool { return f(i*per+from, i*per+to) }) {
			return errStopped
		}
	}
	return nil
}

// bitmapTable reads the table of a bitmap and checks each entry.
func (d *disk) bitmapTable(b *bitmap) ([]uint64, error) {
	if b.table == 0 || b.entries == 0 {
		return nil, nil
	}
	raw := make([]byte, 8*b.entries)
	if err := d.readTable("bitmap table", raw, b.table); err != nil {
		return nil, err
	}
	table := decodeTable(raw)
	for i, e := range table {
		if err := d.validBitmapEntry(e); err != nil {
			return nil, block.Corruptf("Bitmap '%s', table entry %d: %w", b.name, i, err)
		}
	}
	return table, nil
}

func (d *disk) validBitmapEntry(e uint64) error {
	off := e & offsetMask
	switch {
	case e&tableReserved != 0 || off != 0 && e&tableAllOnes != 0:
		return block.Corruptf("reserved bits are set: %#x", e)
	case off&uint64(d.geo.clusterSize-1) != 0:
		return block.Corruptf("offset %#x is not a multiple of the cluster size %d", off, d.geo.clusterSize)
	case off != 0:
		return d.inFile("bitmap data", off, d.geo.clusterSize)
	}
	return nil
}

func bitmapEntry(table []uint64, i int64) uint64 {
	if i < int64(len(table)) {
		return table[i]
	}
	return 0
}

// bitmapPiece fills p, a cluster, with the i-th part of a bitmap.
func (d *disk) bitmapPiece(b *bitmap, table []uint64, i int64, p []byte) error {
	first := i * d.geo.clusterSize * 8
	switch e := bitmapEntry(table, i); e {
	case 0:
		clear(p)
	case tableAllOnes:
		for k := range p {
			p[k] = 0xff
		}
	default:
		if err := d.readTable("bitmap data", p, hostOff(e)); err != nil {
			return err
		}
	}
	clip(p, b.valid-first)
	b.delta.addTo(p, first)
	return nil
}

// pieceEntry returns the table entry for a piece that needs no cluster; ok is
// false if it needs one.
func pieceEntry(p []byte, whole bool) (entry uint64, ok bool) {
	switch {
	case zero.Is(p):
		return 0, true
	case whole && allOnes(p):
		return tableAllOnes, true
	}
	return 0, false
}

func allOnes(p []byte) bool {
	for _, c := range p {
		if c != 0xff {
			return false
		}
	}
	return true
}
