package vhd

import (
	"bytes"

	"github.com/diskimg/diskimg/block"
)

// Blocks: always at the end of the file, where nothing has been before but a
// footer, so that they read as zero.

// newBlock is a block on its way into the table.
type newBlock struct {
	index int64
	place int64 // of its bitmap
}

// span is what a block takes up in the file.
func (d *disk) span() int64 { return d.bitmapSize + d.blockSize }

// alloc finds the block i a place. Takes mu.
func (d *disk) alloc(i int64) (newBlock, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return newBlock{}, d.broken
	}
	if d.end/sectorSize >= int64(unused) {
		return newBlock{}, block.Errorf(block.ErrNoSpace, "no room for a block: the file is %d bytes long, and a BAT entry can't say more than %d",
			d.end, int64(unused-1)*sectorSize)
	}
	n := newBlock{index: i, place: d.end}
	// Before a block is written to, the file ends behind it, in zeros: what the
	// guest writes last may look like a footer.
	if !d.noSync {
		if err := d.file.Truncate(d.end + d.span() + footerSize); err != nil {
			return newBlock{}, err
		}
	}
	d.end += d.span()
	d.tailDirty = true
	return n, nil
}

// firstBitmap is the bitmap of a new block as it is first written.
func (d *disk) firstBitmap() []byte {
	if d.differencing {
		return make([]byte, d.bitmapSize)
	}
	return bytes.Repeat([]byte{0xff}, int(d.bitmapSize))
}

// undo takes the place of a block back that was to be linked and was not. It is
// cut off, as it may have been written to and new blocks must be zero. Takes mu.
func (d *disk) undo(n newBlock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil || d.end != n.place+d.span() {
		return // a leak, for a check
	}
	if d.file.Truncate(n.place) == nil {
		// A flush may have written the footer behind the block meanwhile.
		d.end, d.tailDirty = n.place, true
	}
}

// link puts a new block in the table, after its data is in the file. Takes mu.
func (d *disk) link(n newBlock) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	d.bat[n.index] = uint32(n.place / sectorSize)
	d.batDirty[n.index*4/sectorSize] = true
	return nil
}
