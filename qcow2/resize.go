package qcow2

import (
	"encoding/binary"

	"github.com/diskimg/diskimg/block"
)

// Growing the disk, and the L1 table with it.

// Resize implements block.Resizer for sizes that are not smaller.
func (d *disk) Resize(size int64, o block.ResizeOptions) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case size%512 != 0:
		return block.Invalidf("The new size must be a multiple of 512, not %d", size)
	case size < d.Size():
		return block.Unsupportedf("shrinking a qcow2 image is not supported yet")
	case d.backing != nil && d.backing.Size() > d.Size():
		// What the backing image has there must not come to light.
		return block.Unsupportedf("growing an image whose backing image is larger (%d bytes, the disk has %d) is not supported yet", d.backing.Size(), d.Size())
	case o.Preallocation != block.PreallocOff:
		return block.Unsupportedf("preallocation while resizing is not supported yet")
	}
	return d.grow(size)
}

// grow makes the disk size bytes long; size is not smaller than now.
func (d *disk) grow(size int64) error {
	need := d.geo.l1Entries(size)
	if size > maxSize || need > maxL1Bytes/8 {
		return block.Invalidf("The image size is too large for file format 'qcow2' (try using a larger cluster size)")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	if err := d.growL1(int64(need)); err != nil {
		return err
	}
	if err := d.patchHeader(atSize, be64(uint64(size))); err != nil {
		return err
	}
	d.hdr.size = uint64(size)
	d.size.Store(size)
	return nil
}

// growL1 moves the L1 table to where it has room for need entries. Needs mu
// exclusively.
func (d *disk) growL1(need int64) error {
	old := int64(len(d.l1))
	if need <= old {
		return nil
	}
	if old > 0 {
		if err := d.mayWriteMeta(metaL1, hostOff(d.hdr.l1Offset), old*8); err != nil {
			return err
		}
	}
	d.event(block.EventL1GrowAlloc)
	clusters := d.geo.clusters(need * 8)
	run, err := d.alloc(clusters, clusters)
	if err != nil {
		return err
	}
	table := make([]uint64, need)
	copy(table, d.l1)
	off := run.off(&d.geo)
	data := make([]byte, d.geo.alignUp(need*8))
	copy(data, encodeTable(table))
	d.event(block.EventL1GrowWrite)
	if _, err := d.file.WriteAt(data, int64(off)); err != nil {
		d.unalloc(run)
		return err
	}
	d.claim(metaL1, off, int64(len(data)))
	return d.switchL1(table, off)
}

// switchL1 makes table, which is in the file at off, the active L1 table.
func (d *disk) switchL1(table []uint64, off hostOff) error {
	d.event(block.EventL1GrowSwitch)
	// Before the header names the new table, it must be on disk, and so must
	// the counts and the data that its entries lead to.
	if err := d.writeCounts(); err != nil {
		return err
	}
	var field [12]byte
	binary.BigEndian.PutUint32(field[:], uint32(len(table)))
	binary.BigEndian.PutUint64(field[4:], uint64(off))
	if err := d.patchHeader(atL1, field[:]); err != nil {
		return err
	}
	if d.hdr.l1Offset != 0 {
		d.replaced(hostOff(d.hdr.l1Offset), int64(len(d.l1))*8)
	}
	d.l1 = table
	d.hdr.l1Offset, d.hdr.l1Size = uint64(off), uint32(len(table))
	clear(d.l1Dirty)
	return nil
}

// writeCounts writes all dirty refcount blocks and what names them, and syncs.
// Needs mu exclusively.
func (d *disk) writeCounts() error {
	b := &batch{refs: d.refs.TakeDirty()}
	b.counts = cachePieces(metaRefblock, b.refs)
	b.reftable = tablePieces(metaReftable, d.hdr.reftableOffset, d.reftable, d.reftableDirty)
	defer d.refs.Written(b.refs)
	if err := d.mayWriteBatch(b); err != nil {
		return err
	}
	if err := d.writeBatch(b); err != nil {
		return d.poison(err)
	}
	return nil
}
