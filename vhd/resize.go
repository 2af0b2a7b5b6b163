package vhd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Changing the size of a disk that has blocks: the table gets room for all
// entries, and then one write of the footer's copy at the beginning makes the
// disk larger or smaller.

var _ block.Resizer = (*disk)(nil)

// Resize implements block.Resizer. What is new reads as zero, also where a
// parent is longer than the disk was. A power cut leaves the old size or the
// new one.
func (d *disk) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	d.writers.Lock()
	defer d.writers.Unlock()
	old := d.Size()
	err := mayResize(old, size, o)
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case err != nil:
		return err
	case o.Preallocation != block.PreallocOff:
		return block.Unsupportedf("Unsupported preallocation mode: %s", o.Preallocation)
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case size < old:
		return d.shrink(size)
	case size > old:
		return d.grow(task.New(ctx, o.Progress), old, size)
	}
	return nil
}

// mayResize checks what is asked for, whatever the kind of disk.
func mayResize(old, size int64, o block.ResizeOptions) error {
	switch {
	case size < 0 || size%sectorSize != 0:
		return block.Invalidf("The new size must be a multiple of %d, not %d", sectorSize, size)
	case size > maxSize:
		return block.Invalidf("The image size is too large for file format 'vpc'")
	case size < old && !o.Shrink:
		return block.Invalidf("shrinking from %d to %d bytes would lose what lies beyond, and was not allowed", old, size)
	case size < old && o.Preallocation != block.PreallocOff:
		return block.Invalidf("Preallocation can't be used for shrinking files")
	}
	return nil
}

// resized returns the footer with another size. Where the geometry can't say
// it, the disk becomes one of those that have the size that the footer names.
// The original size follows, as some programs (libvhdi) go by that.
func (f *footer) resized(size int64) *footer {
	next := *f
	next.sizeFrom = ByCreator
	next.original, next.current, next.chs = uint64(size), uint64(size), GeometryFor(size/sectorSize)
	if got, err := next.size(); err != nil || got != size {
		next.creator = "qem2"
	}
	if next.creator == "qem2" {
		next.chs = largestGeometry // so does QEMU
	}
	return &next
}

// mayChange returns why the image as a whole can't be changed. Takes mu.
func (d *disk) mayChange() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.damage != nil:
		return d.damage
	case d.broken != nil:
		return d.broken
	}
	return d.sealed
}

// grow makes the disk larger. Needs writers exclusively.
func (d *disk) grow(t *task.Task, old, size int64) error {
	if err := d.mayChange(); err != nil {
		return err
	}
	h := *d.hdr
	h.entries = max(h.entries, uint32(blocks(size, d.blockSize)))
	if err := h.validate(size); err != nil {
		return err
	}
	if err := d.alone(func() error { return d.growTable(blocks(size, d.blockSize)) }); err != nil {
		return err
	}
	if err := d.zeroBeyond(t, old, size); err != nil {
		// Blocks behind the end of the disk are of no use.
		return errors.Join(err, d.dropBehind(old))
	}
	// Before the disk is longer, what hides the parent there must be on disk:
	// alone flushes.
	return d.alone(func() error { return d.putFooter(d.foot.resized(size)) })
}

// dropBehind gives up the blocks behind the first size bytes of the disk. Needs
// writers exclusively.
func (d *disk) dropBehind(size int64) error {
	d.readers.Lock()
	defer d.readers.Unlock()
	return d.alone(func() error { return d.dropBlocks(blocks(size, d.blockSize)) })
}

// growTable makes the table hold n blocks. Needs mu, and that nothing in the
// tables waits to be written.
func (d *disk) growTable(n int64) error {
	have := int64(len(d.bat))
	if n <= have {
		return nil
	}
	bat := append(d.bat[:have:have], entriesOf(unused, n-have)...)
	h := *d.hdr
	h.entries = max(h.entries, uint32(n))
	var err error
	if h.entries == d.hdr.entries || d.roomy(tableBytes(&h)) {
		err = d.extendTable(bat)
	} else {
		err = d.moveTable(bat, &h)
	}
	if err != nil {
		return err
	}
	// Before the header names the table, it must be on disk.
	if err := d.syncTables(); err != nil {
		return err
	}
	d.bat = bat
	if h == *d.hdr {
		return nil
	}
	d.hdr = &h
	// What differs lies in one sector, so the old header is there or the new.
	return d.putTables(h.encode()[:sectorSize], int64(d.foot.dataOffset))
}

func entriesOf(entry uint32, n int64) []uint32 {
	list := make([]uint32, n)
	for i := range list {
		list[i] = entry
	}
	return list
}

// roomy reports whether the table can be n bytes long where it is. Needs mu.
func (d *disk) roomy(n int64) bool {
	if n > tableBytes(d.hdr) {
		return false
	}
	from := int64(d.hdr.tableOffset)
	for _, m := range d.metadata() {
		if m.from != from && m.from < from+n && m.to > from {
			return false
		}
	}
	return true
}

// extendTable writes the entries that are new, where the table is. Needs mu.
func (d *disk) extendTable(bat []uint32) error {
	from := len(d.bat)
	return d.putTables(encodeTable(bat[from:]), int64(d.hdr.tableOffset)+int64(from)*4)
}

// moveTable writes the table behind the last block, for the header h to name it.
// Needs mu.
func (d *disk) moveTable(bat []uint32, h *header) error {
	b := bytes.Repeat([]byte{0xff}, int(tableBytes(h)))
	copy(b, encodeTable(bat))
	d.tailDirty = true
	if _, err := d.file.WriteAt(b, d.end); err != nil {
		// A new block there has to be zero.
		if cut := d.file.Truncate(d.end); cut != nil {
			return d.poison(errors.Join(err, cut))
		}
		return err
	}
	h.tableOffset = uint64(d.end)
	d.end += int64(len(b))
	return nil
}

func encodeTable(bat []uint32) []byte {
	b := make([]byte, 0, len(bat)*4)
	for _, e := range bat {
		b = binary.BigEndian.AppendUint32(b, e)
	}
	return b
}

// zeroBeyond zeroes what lies between the end of the disk and size: what is left
// in the last block, and what the parent has there. Needs writers exclusively.
func (d *disk) zeroBeyond(t *task.Task, old, size int64) error {
	if d.parent != nil && d.parent.Size() > old {
		n := min(size, d.parent.Size()) - old
		t.Expect(n)
		if err := d.zeroRange(t, old, n, 0); err != nil {
			return err
		}
	}
	for end := min(size, roundUp(old, d.blockSize)); old < end; {
		e, err := d.Resolve(old, end-old)
		if err == nil && e.Kind == block.Data {
			err = zeroFile(d.file, e.Offset, e.Length, block.MayUnmap)
		}
		if err != nil {
			return err
		}
		old += e.Length
	}
	return nil
}

// putFooter replaces the footer in the file. Needs mu, and that nothing in the
// tables waits to be written.
func (d *disk) putFooter(f *footer) error {
	if err := d.cutTail(); err != nil {
		return err
	}
	if err := d.putTables(f.encode(), 0); err != nil {
		return err
	}
	d.foot = f
	size, err := f.size()
	if err != nil {
		return d.poison(err)
	}
	d.size.Store(size)
	if err := d.writeTail(); err != nil {
		return d.poison(err)
	}
	return d.syncTables()
}

// cutTail cuts the footer off the end of the file. Needs mu.
func (d *disk) cutTail() error {
	d.tailDirty = true
	if err := d.file.Truncate(d.end); err != nil {
		return err
	}
	// Before the copy at the beginning changes, the footer at the end must be
	// gone: where they differ nobody may write.
	return d.syncTables()
}

// putTables writes metadata and makes it durable. Needs mu.
func (d *disk) putTables(b []byte, at int64) error {
	if _, err := d.file.WriteAt(b, at); err != nil {
		return d.poison(err)
	}
	return d.syncTables()
}

func (d *disk) syncTables() error {
	if err := d.sync(); err != nil {
		return d.poison(err)
	}
	return nil
}

// shrink makes the disk smaller. Needs writers exclusively.
func (d *disk) shrink(size int64) error {
	if err := d.mayChange(); err != nil {
		return err
	}
	d.readers.Lock()
	defer d.readers.Unlock()
	return d.alone(func() error {
		if err := d.putFooter(d.foot.resized(size)); err != nil {
			return err
		}
		return d.dropBlocks(blocks(size, d.blockSize))
	})
}
