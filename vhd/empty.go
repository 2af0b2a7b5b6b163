package vhd

import (
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Taking blocks out of the table, and giving their space back.

var _ block.Emptier = (*disk)(nil)

// MakeEmpty implements block.Emptier. A power cut leaves some of the guest data
// and not the rest, so the parent has to have all of it on disk before.
func (d *disk) MakeEmpty() error {
	d.writers.Lock()
	defer d.writers.Unlock()
	if !d.writable {
		return block.ErrReadOnly
	}
	if err := d.mayChange(); err != nil {
		return err
	}
	d.readers.Lock()
	defer d.readers.Unlock()
	return d.alone(func() error { return d.dropBlocks(0) })
}

// dropBlocks takes all blocks from the first on out of the table. Needs mu,
// writers and readers exclusively, and that nothing in the tables waits to be
// written.
func (d *disk) dropBlocks(first int64) error {
	gone := slices.Clone(d.bat[first:])
	none := entriesOf(unused, int64(len(gone)))
	// Before the space is given back, the table must have let go of it.
	if err := d.putTables(encodeTable(none), int64(d.hdr.tableOffset)+first*4); err != nil {
		return err
	}
	copy(d.bat[first:], none)
	gone = slices.DeleteFunc(gone, func(e uint32) bool { return e == unused })
	for _, e := range gone {
		d.bitmaps.Forget(int64(e)*sectorSize, d.bitmapSize)
	}
	end := d.contentEnd()
	for _, e := range gone {
		if at := int64(e) * sectorSize; at < end {
			if err := punch(d.file, at, d.span()); err != nil {
				return err
			}
		}
	}
	if end == d.end {
		return nil
	}
	return d.trim(end)
}

// trim moves the footer to end, where the last of what is in use ends, and cuts
// off what is behind it. Needs mu.
func (d *disk) trim(end int64) error {
	if err := d.putTail(end); err != nil {
		return err
	}
	// So that the file ends with a footer at any instant, as others expect.
	if err := d.syncTables(); err != nil {
		return err
	}
	if err := d.file.Truncate(end + footerSize); err != nil {
		return d.poison(err)
	}
	d.end = end
	return nil
}
