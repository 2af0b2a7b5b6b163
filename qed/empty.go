package qed

import (
	"math"

	"github.com/diskimg/diskimg/block"
)

// Making an overlay empty: the L1 entries go, and then the file is cut off
// behind the L1 table.

// Pin implements block.Pinner: what Resolve says stays good until Unpin. Only
// MakeEmpty waits for that.
func (d *disk) Pin() uint32 { d.pins.RLock(); return 0 }

// Unpin implements block.Pinner.
func (d *disk) Unpin(uint32) { d.pins.RUnlock() }

// pinnedResolve is Resolve for those who do not go on with where data lies.
func (d *disk) pinnedResolve(off, n int64) (block.Extent, error) {
	defer d.Unpin(d.Pin())
	return d.Resolve(off, n)
}

// MakeEmpty implements block.Emptier. A power cut leaves some of the guest data
// and not the rest, so the image below has to have all of it on disk before.
func (d *disk) MakeEmpty() error {
	if !d.writable {
		return block.ErrReadOnly
	}
	if err := d.examine(); err != nil {
		return err
	}
	r := d.ranges.Acquire(0, math.MaxInt64)
	defer d.ranges.Release(r)
	if err := d.Flush(); err != nil {
		return err
	}
	d.pins.Lock()
	defer d.pins.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.dropTables(); err != nil {
		return err
	}
	return d.cutTables()
}

// dropTables takes all entries out of the L1 table. Needs mu exclusively, and
// that nothing waits to be written.
func (d *disk) dropTables() error {
	// Before entries go, the need check bit must be on disk: what they led to
	// is leaked until the file is cut off.
	if err := d.needCheck(); err != nil {
		return err
	}
	for i, table := range d.l1 {
		if table != 0 {
			d.l2.Forget(int64(table), d.geo.tableBytes)
			d.setL1(int64(i), 0)
		}
	}
	if err := d.writePieces(d.l1Pieces()); err != nil {
		return d.poison(err)
	}
	// Before the space is given back, no entry on disk may lead there.
	if err := d.sync(); err != nil {
		return d.poison(err)
	}
	return nil
}

// cutTables gives back what lies behind the L1 table, when there are no other
// tables. Needs mu exclusively.
func (d *disk) cutTables() error {
	end := max(d.geo.firstHost, hostOff(d.hdr.l1Offset)+hostOff(d.geo.tableBytes))
	if err := d.file.Truncate(int64(end)); err != nil {
		return err
	}
	d.fileEnd, d.length, d.tail = end, end, false
	// Before the need check bit is cleared, the file must be short on disk.
	if err := d.sync(); err != nil {
		return d.poison(err)
	}
	d.clearNeedCheck()
	return d.broken
}
