package qcow2

import (
	"errors"

	"github.com/diskimg/diskimg/block"
)

// Making an overlay empty: the L1 entries are taken away one by one, and with
// each its L2 table and all that this refers to, in the order of every other
// change: nothing is counted down before the entry is gone from the disk.

// MakeEmpty implements block.Emptier. What internal snapshots refer to keeps
// its place. A power cut leaves some of the guest data and not the rest, so the
// image below has to have all of it on disk before.
func (d *disk) MakeEmpty() error {
	if !d.writable {
		return block.ErrReadOnly
	}
	if d.hdr.autoclear&autoclearRawData != 0 {
		return block.Unsupportedf("an image with a raw data file can't be made empty: the file is the disk")
	}
	d.whole.Lock()
	defer d.whole.Unlock()
	d.event(block.EventEmptyImagePrepare)
	for i := range d.l1Entries() {
		if err := d.dropTable(i); err != nil {
			return d.settle(err)
		}
	}
	if err := d.finish(); err != nil {
		return err
	}
	if d.external && d.hdr.snapshotCount == 0 {
		if err := d.punchUnlinked(); err != nil {
			return err
		}
	}
	return d.flushes.Exclude(func() error { return d.trim(1) })
}

// punchUnlinked gives the space back that an external data file has for guest
// clusters without an L2 table. After the tables are gone from the disk, and
// with the range locked, so that no new one can come to be.
func (d *disk) punchUnlinked() error {
	span := d.tableSpan()
	for i := range d.l1Entries() {
		r := d.ranges.Acquire(i*span, span)
		d.mu.RLock()
		unlinked := d.l1[i] == 0
		d.mu.RUnlock()
		var err error
		if n := min(span, d.Size()-i*span); unlinked && n > 0 {
			err = block.PunchHole(d.data, i*span, n)
		}
		d.ranges.Release(r)
		if err != nil && !errors.Is(err, block.ErrUnsupported) {
			return err
		}
	}
	return nil
}

// tableSpan returns how many guest bytes an L2 table describes.
func (d *disk) tableSpan() int64 { return d.geo.clusterSize >> d.geo.entryBits << d.geo.clusterBits }

func (d *disk) l1Entries() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int64(len(d.l1))
}

// dropTable takes the i-th L2 table away.
func (d *disk) dropTable(i int64) error {
	if err := d.relieve(); err != nil {
		return err
	}
	span := d.tableSpan()
	r := d.ranges.Acquire(i*span, span)
	defer d.ranges.Release(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	table, err := d.l2Table(guestOff(i * span))
	if err != nil || table == 0 {
		return err
	}
	entries, err := d.entriesOf(table)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.mayGiveUp(e); err != nil {
			return err
		}
	}
	d.setL1(i, 0)
	// What waits to be written of the table has nowhere to go any more.
	d.l2.Forget(int64(table), d.geo.clusterSize)
	d.replaced(table, d.geo.clusterSize)
	for _, e := range entries {
		d.releaseEntry(e)
	}
	return nil
}

// entriesOf returns the entries of an L2 table, as they are in memory where
// they are cached. Needs mu exclusively.
func (d *disk) entriesOf(table hostOff) ([]l2Entry, error) {
	if err := d.mayWriteMeta(metaL2, table, d.geo.clusterSize); err != nil {
		return nil, err
	}
	data := make([]byte, d.geo.clusterSize)
	if err := d.readWholeL2(data, table); err != nil {
		return nil, err
	}
	list := make([]l2Entry, 0, len(data)>>d.geo.entryBits)
	for at := 0; at < len(data); at += 1 << d.geo.entryBits {
		list = append(list, d.decodeEntry(data[at:]))
	}
	return list, nil
}

// trim gives up refcount blocks that count nothing, and cuts the file off behind
// the last cluster in use, but keeps so many clusters. After what was freed has
// been counted down on disk, that is: else a power cut would leave counts for what
// is not there. Takes mu; see writeCounts.
func (d *disk) trim(least int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	if err := d.dropRefblocks((least-1)>>d.geo.refBits + 1); err != nil {
		return err
	}
	return d.cutEnd(least)
}

// cutEnd is trim for the file. Needs mu exclusively.
func (d *disk) cutEnd(least int64) error {
	end := d.fileEnd
	for ; end > least; end-- {
		n, err := d.refcount(end - 1)
		if err != nil {
			return err
		}
		if n > 0 {
			break
		}
	}
	if end == d.fileEnd {
		return nil
	}
	if err := d.file.Truncate(end << d.geo.clusterBits); err != nil {
		return err
	}
	// A block device stays as long as it is, with all that was written there.
	size, err := d.file.Size()
	if err == nil && size <= end<<d.geo.clusterBits {
		d.fileEnd = end
	}
	return err
}

// dropRefblocks takes refcount blocks from index first on away that count at most
// themselves and each other. Needs mu exclusively.
func (d *disk) dropRefblocks(first int64) error {
	idle, err := d.idleRefblocks(first)
	if err != nil || len(idle) == 0 {
		return err
	}
	return d.dropBlocks(idle)
}

// idleRefblocks returns the indexes, from first on, of the refcount blocks that
// count nothing that is in use but such blocks.
func (d *disk) idleRefblocks(first int64) (list []int64, err error) {
	used := make(map[int64]int64) // how much else each counts
	for i := first; i < int64(len(d.reftable)); i++ {
		if !d.hasRefblock(i) {
			continue
		}
		if used[i], err = d.countsOther(i); err != nil {
			return nil, err
		}
		if used[i] == 0 {
			list = append(list, i)
		}
	}
	// One that goes may have been all that another one counted.
	for at := 0; at < len(list); at++ {
		by := d.refblock(list[at]) >> d.geo.refBits
		if by == list[at] || used[by] == 0 {
			continue
		}
		if used[by]--; used[by] == 0 {
			list = append(list, by)
		}
	}
	return list, nil
}

// countsOther returns how often the clusters that the refcount block i counts are
// in use, without the one where it lies itself.
func (d *disk) countsOther(i int64) (used int64, err error) {
	first, own := i<<d.geo.refBits, d.refblock(i)
	for c := first; c < first+1<<d.geo.refBits; c++ {
		n, err := d.refcount(c)
		if err != nil {
			return 0, err
		}
		if c == own {
			n -= min(n, 1)
		}
		used += int64(min(n, 2)) // what is referred to twice is never given up
	}
	return used, nil
}

// refblock returns the cluster of refcount block i.
func (d *disk) refblock(i int64) int64 {
	return int64(d.reftable[i]&^reftableReserved) >> d.geo.clusterBits
}

// dropBlocks takes refcount blocks away.
func (d *disk) dropBlocks(list []int64) error {
	own := make(map[int64]int64)
	for _, i := range list {
		own[i] = d.refblock(i)
		d.setReftable(i, 0)
		d.refs.Forget(own[i]<<d.geo.clusterBits, d.geo.clusterSize)
	}
	// Before the place of a block can be used again, the table that names it
	// no more must be on disk.
	if err := d.writeCounts(); err != nil {
		return err
	}
	for i, c := range own {
		if by := c >> d.geo.refBits; by == i || !d.hasRefblock(by) {
			d.meta.remove(c, 1)
			d.searchFrom = min(d.searchFrom, c)
			continue
		}
		if err := d.freeTable(hostRun{start: c, n: 1}); err != nil {
			return err
		}
	}
	// Before the file is cut off where a block was, what counted it must be on
	// disk.
	return d.writeCounts()
}
