package qcow2

import (
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Taking zero flags out of entries, for version 2: where nothing lies below a
// cluster it becomes unallocated, elsewhere it gets zeros as data.

// expandActive does so for the disk.
func (d *disk) expandActive(t *task.Task) error {
	d.whole.Lock()
	defer d.whole.Unlock()
	d.writers.Lock()
	defer d.writers.Unlock()
	below := int64(0)
	if d.backing != nil {
		below = d.geo.alignUp(d.backing.Size())
	}
	t.Expect(d.Size())
	for off := int64(0); off < d.Size(); {
		n, err := d.expandAt(off, below)
		if err == nil {
			err = t.Step(n)
		}
		if err != nil {
			return d.settle(err)
		}
		off += n
	}
	return d.settle(d.expandBehind())
}

// expandBehind does so behind the end of the disk, where nothing lies below. The
// state of a machine may be there.
func (d *disk) expandBehind() error {
	end := d.l1Entries() * d.tableSpan()
	return d.eachWhole(nil, d.geo.alignUp(d.Size()), end, func(e l2Entry, _ uint64) (l2Entry, change) {
		if e.compressed() || e.desc&flagZero == 0 {
			return e, keep
		}
		return l2Entry{}, free
	})
}

// expandAt looks at the first extent from off on, a multiple of the cluster size,
// and returns how long it is. below is where an unallocated cluster reads as
// zero.
func (d *disk) expandAt(off, below int64) (int64, error) {
	e, err := d.Resolve(off, d.Size()-off)
	if err != nil || e.Kind != block.Zero {
		return e.Length, err
	}
	if off < below {
		n := min(e.Length, int64(len(zeros)), below-off)
		k, err := d.writeRun(zeros[:n], guestOff(off), new(int64))
		return k, err
	}
	err = d.eachWhole(nil, off, d.geo.alignUp(e.End()), func(e l2Entry, _ uint64) (l2Entry, change) {
		return l2Entry{}, free
	})
	return e.Length, err
}

// expandSnapshots does so for what only snapshots refer to. Entries change where
// they are: what they read as stays the same. Needs mu exclusively, and an image
// that is alone.
func (d *disk) expandSnapshots(t *task.Task) error {
	records, _, err := d.readSnapshots(maxSnapshotTable)
	if err != nil {
		return err
	}
	tables, err := d.allTables(records)
	if err != nil {
		return err
	}
	data := make([]byte, d.geo.clusterSize)
	for _, table := range tables {
		err := t.Step(0)
		if err == nil {
			err = d.expandTable(data, table)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) expandTable(data []byte, table hostOff) error {
	if err := d.readTree(data, table); err != nil {
		return err
	}
	times, err := d.refcount(int64(table) >> d.geo.clusterBits)
	if err != nil {
		return err
	}
	var gone []hostRun
	changed := false
	for at := 0; at < len(data); at += 8 {
		e := d.decodeEntry(data[at:])
		if e.compressed() || e.desc&flagZero == 0 {
			continue
		}
		if host := int64(e.host()); host != 0 {
			gone = append(gone, hostRun{start: host >> d.geo.clusterBits, n: 1})
		}
		place, err := d.zeroCluster(times)
		if err != nil {
			return err
		}
		copy(data[at:], be64(uint64(place)))
		changed = true
	}
	if !changed {
		return nil
	}
	if err := d.writeExpanded(data, table); err != nil {
		return err
	}
	// After the entries are on disk, what they named before is given up.
	for range times {
		for _, r := range gone {
			d.release(r.start, r.n)
		}
	}
	return nil
}

// zeroCluster returns a cluster of zeros that is counted so many times, 0 where
// there is no need of one.
func (d *disk) zeroCluster(times uint64) (hostOff, error) {
	if d.backing == nil {
		return 0, nil
	}
	if d.crypt != nil {
		return 0, block.Unsupportedf("Zero clusters in internal snapshots of an encrypted image prevent its downgrade")
	}
	run, err := d.alloc(1)
	if err != nil {
		return 0, err
	}
	for range times - 1 {
		if err := d.addRef(run.start, 1); err != nil {
			return 0, err
		}
	}
	return run.off(&d.geo), block.WriteZeroes(d.file, int64(run.off(&d.geo)), d.geo.clusterSize)
}

// writeExpanded writes an L2 table that is not the active one back to its place.
func (d *disk) writeExpanded(data []byte, table hostOff) error {
	first := int64(table) >> d.geo.clusterBits
	if r, ok := d.meta.hit(first, 1); ok && r.kind != metaReplaced && r.kind != metaInactiveL2 {
		return d.corrupt(block.Corruptf("L2 table of a snapshot at %#x is used as %s too", int64(table), r.kind))
	}
	// Before an entry names a cluster of zeros, that and its count must be on
	// disk.
	if err := d.writeCounts(); err != nil {
		return err
	}
	if err := d.writePieces([]piece{{metaL2, table, slices.Clone(data)}}); err != nil {
		return d.poison(err)
	}
	d.l2.Forget(int64(table), d.geo.clusterSize) // it may have been the active one
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	return nil
}
