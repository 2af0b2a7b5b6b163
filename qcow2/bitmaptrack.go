package qcow2

import (
	"encoding/binary"
	"errors"

	"github.com/diskimg/diskimg/block"
)

// Following writes. A bitmap on disk is only a promise that nothing else has
// changed as long as it is not marked in use.

// announceWrite is called before guest data changes. Before the first change
// is made, all bitmaps that are to follow it are marked in use on disk: from
// there on a crash leaves them inconsistent, and never falsely clean.
func (d *disk) announceWrite() error {
	if d.bitmaps.begun.Load() {
		return nil
	}
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	if d.bitmaps.begun.Load() {
		return nil
	}
	return d.begin(func(b *bitmap) bool { return b.enabled })
}

// HoldBitmaps implements block.BitmapEditor.
func (d *disk) HoldBitmaps() error {
	if !d.writable {
		return block.ErrReadOnly
	}
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	return d.begin(func(*bitmap) bool { return true })
}

// begin marks bitmaps as in use and notes that writing may begin. Needs
// bitmaps.mu; takes mu.
func (d *disk) begin(which func(*bitmap) bool) error {
	if err := d.holdBitmaps(which); err != nil {
		return err
	}
	d.bitmaps.begun.Store(true)
	return nil
}

// markDirty is called after guest data may have changed, whether or not that
// has gone well: a bitmap that is cleared in between must not miss it.
func (d *disk) markDirty(off, n int64) {
	if !d.bitmaps.active.Load() {
		return
	}
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	for _, b := range d.bitmaps.list {
		if b.enabled && b.why == nil {
			b.mark(off, n)
		}
	}
}

// mark sets the bits for a range of the disk.
func (b *bitmap) mark(off, n int64) {
	if n > 0 {
		b.delta.set(off>>b.granBits, (off+n-1)>>b.granBits+1)
		b.changed = true
	}
}

// holdBitmaps marks bitmaps as in use on disk. One that turns out to be broken
// stays marked so and can't be used. Needs bitmaps.mu; takes mu.
func (d *disk) holdBitmaps(which func(*bitmap) bool) error {
	var todo []*bitmap
	for _, b := range d.bitmaps.list {
		if which(b) && b.flags&bitmapInUse == 0 {
			todo = append(todo, b)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	for _, b := range todo {
		if b.why != nil {
			continue
		}
		if _, err := d.bitmapTable(b); errors.Is(err, block.ErrCorrupt) {
			b.why = err
		} else if err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.writeInUse(todo); err != nil {
		return err
	}
	d.bitmaps.setList(d.bitmaps.list)
	return nil
}

// writeInUse sets the flag of bitmaps where they stand in the directory. Needs
// mu exclusively.
func (d *disk) writeInUse(list []*bitmap) error {
	if d.broken != nil {
		return d.broken
	}
	p, _, err := d.bitmapPlace()
	if err != nil {
		return err
	}
	for _, b := range list {
		at := p.off + hostOff(b.at+atBitmapFlags)
		if err := d.mayWriteMeta(metaBitmaps, at, 4); err != nil {
			return err
		}
		flags := b.flags | bitmapInUse
		if _, err := d.file.WriteAt(binary.BigEndian.AppendUint32(nil, flags), int64(at)); err != nil {
			return d.poison(err)
		}
		b.flags, b.held = flags, b.why == nil
	}
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	return nil
}

// resizeBitmaps has resize change the size of the disk, and the bitmaps with
// it: what is new is clean. Before the size changes on disk, all bitmaps are
// marked in use: they have another length until they are stored. Takes
// bitmaps.mu.
func (d *disk) resizeBitmaps(size int64, resize func() error) error {
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	for _, b := range d.bitmaps.list {
		if b.why != nil {
			return b.why
		}
		if err := d.bitmapFits(bitmapBits(size, b.granBits)); err != nil {
			return err
		}
	}
	if err := d.holdBitmaps(func(*bitmap) bool { return true }); err != nil {
		return err
	}
	old := d.Size()
	err := resize()
	for _, b := range d.bitmaps.list {
		if err != nil && b.enabled {
			b.mark(size, old-size) // what was to go may have been cleared
		}
		b.resize(d.Size())
	}
	return err
}

// resize makes the bitmap fit a disk of size bytes.
func (b *bitmap) resize(size int64) {
	bits := bitmapBits(size, b.granBits)
	if bits == b.bits {
		return
	}
	b.bits = bits
	b.valid = min(b.valid, b.bits)
	b.delta.truncate(b.bits)
	b.changed = true
}

// bitmapFits refuses bitmaps that would be too large, or have nothing to track.
func (d *disk) bitmapFits(bits int64) error {
	if bits == 0 {
		return block.Invalidf("A disk of 0 bytes can't have bitmaps")
	}
	if n := d.tableEntries(bits); n > maxBitmapTable || n<<d.geo.clusterBits > max(maxBitmapBytes, d.geo.clusterSize) {
		return block.Errorf(block.ErrNoSpace, "Too much space will be occupied by the bitmap. Use larger granularity")
	}
	return nil
}
