package qcow2

import (
	"errors"
	"slices"
	"syscall"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Trees: an L1 table with all that it leads to. The steps of what goes through one
// are L2 tables. A cluster's refcount is the
// number of ways by which it can be reached from all L1 tables. Facts: qcow2
// specification, "Reference counting", "Snapshots".

// readTree reads an L2 table that need not be the active one.
func (d *disk) readTree(data []byte, table hostOff) error {
	if int64(table)&(d.geo.clusterSize-1) != 0 {
		return block.Corruptf("L2 table offset %#x unaligned", int64(table))
	}
	return d.readTable("L2 table", data, table)
}

// eachPlaced calls f for the entries of an L2 table that have clusters: the
// range of a compressed one, the cluster of any other.
func (d *disk) eachPlaced(data []byte, f func(at int, e l2Entry, run hostRun) error) error {
	for at := 0; at < len(data); at += 1 << d.geo.entryBits {
		e := decodeEntry(data[at:], d.geo.extended)
		if _, err := d.geo.stateOf(e, 0, false); err != nil {
			return err
		}
		run := hostRun{start: int64(e.host()) >> d.geo.clusterBits, n: 1}
		if e.compressed() {
			off, n := d.geo.compressedRange(e.desc)
			run.start = int64(off) >> d.geo.clusterBits
			run.n = (int64(off)+n-1)>>d.geo.clusterBits - run.start + 1
		} else if e.host() == 0 {
			continue
		}
		if err := f(at, e, run); err != nil {
			return err
		}
	}
	return nil
}

// countTables returns how many L2 tables an L1 table names.
func countTables(l1 []uint64) (n int64) {
	for _, e := range l1 {
		if e&offsetMask != 0 {
			n++
		}
	}
	return n
}

// mayShare refuses, before anything is changed, what share would refuse. Needs mu
// exclusively.
func (d *disk) mayShare(t *task.Task, l1 []uint64) error {
	data := make([]byte, d.geo.clusterSize)
	for _, e := range l1 {
		table := hostOff(e & offsetMask)
		if table == 0 {
			continue
		}
		if err := t.Step(1); err != nil {
			return err
		}
		if err := d.readTree(data, table); err != nil {
			return err
		}
		if err := d.mayShareTable(data, table); err != nil {
			return err
		}
	}
	return nil
}

// mayShareTable is mayShare for one L2 table.
func (d *disk) mayShareTable(data []byte, table hostOff) error {
	if err := d.mayCount(int64(table) >> d.geo.clusterBits); err != nil {
		return err
	}
	return d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		for i := range run.n {
			if err := d.mayCount(run.start + i); err != nil {
				return err
			}
		}
		return nil
	})
}

// mayCount refuses to count a cluster that is in use once more, if that can't be.
func (d *disk) mayCount(cluster int64) error {
	if cluster>>d.geo.refBits >= maxReftableBytes/8 {
		return block.Corruptf("cluster at %#x lies where no refcount can be (%w)", cluster<<d.geo.clusterBits, syscall.EFBIG)
	}
	switch v, err := d.refcount(cluster); {
	case err != nil:
		return err
	case v == 0:
		return block.Corruptf("cluster at %#x is in use, and its refcount is 0", cluster<<d.geo.clusterBits)
	case v == d.geo.maxRefcount():
		return block.Errorf(block.ErrNoSpace, "refcount of cluster %#x is at its limit of %d", cluster<<d.geo.clusterBits, v)
	}
	return nil
}

// share counts each cluster that an L1 table leads to once more, and returns the
// table that leads there too. No entry in it says COPIED of what is shared: L2
// tables that do are copied, and links is how many L1 tables will name the copy.
func (c *swap) share(l1 []uint64, links int) ([]uint64, error) {
	out := make([]uint64, len(l1))
	data := make([]byte, c.d.geo.clusterSize)
	for i, e := range l1 {
		table := hostOff(e & offsetMask)
		if table == 0 {
			continue
		}
		if err := c.t.Step(1); err != nil {
			return nil, err
		}
		copied, err := c.shareTable(data, table)
		if err != nil {
			return nil, err
		}
		if !copied {
			out[i], err = uint64(table), c.addRef(int64(table)>>c.d.geo.clusterBits)
		} else {
			out[i], err = c.writeCopy(i, data, links)
		}
		if err == nil {
			err = c.relieve()
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// anyCopied reports whether share would have to clear flags in an L2 table.
func (d *disk) anyCopied(data []byte) (bool, error) {
	found := false
	err := d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		found = found || e.copied()
		return nil
	})
	return found, err
}

// shareTable reads an L2 table, counts what it leads to once more and clears the
// COPIED flags in data. It reports whether there were any.
func (c *swap) shareTable(data []byte, table hostOff) (copied bool, err error) {
	if err := c.d.readTree(data, table); err != nil {
		return false, err
	}
	err = c.d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		for i := range run.n {
			if err := c.addRef(run.start + i); err != nil {
				return err
			}
		}
		if e.copied() {
			copied = true
			data[at] &^= 1 << 7
		}
		return nil
	})
	return copied, err
}

// addRef counts a cluster that is in use once more.
func (c *swap) addRef(cluster int64) error {
	if err := c.d.mayCount(cluster); err != nil {
		return err
	}
	return c.d.addRef(cluster, 1)
}

// writeCopy writes the L2 table of L1 entry i to its place, and returns the entry for
// it when links L1 tables name it.
func (c *swap) writeCopy(i int, data []byte, links int) (uint64, error) {
	off, err := c.placeL2(i)
	if err != nil {
		return 0, err
	}
	if _, err := c.d.file.WriteAt(data, int64(off)); err != nil {
		return 0, err
	}
	c.d.l2.Forget(int64(off), c.d.geo.clusterSize) // of a table that was here before
	if links == 1 {
		return uint64(off) | flagCopied, nil
	}
	for range links - 1 {
		if err := c.d.addRef(int64(off)>>c.d.geo.clusterBits, 1); err != nil {
			return 0, err
		}
	}
	return uint64(off), nil
}

// dropTree counts all that an L1 table leads to down by one. After the last link
// to that table is gone from the disk, that is. What has become free is counted down
// with the next flush. Needs an image that is alone.
func (d *disk) dropTree(t *task.Task, l1 []uint64) error {
	shared, err := d.dropOwn(t, l1)
	if err != nil {
		return err
	}
	// What only this tree had is free now, and what has a count above 1 is shared.
	if err := d.quiesce(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if shared {
		return d.dropShared(t, l1)
	}
	for _, e := range l1 {
		d.releaseBytes(hostOff(e&offsetMask), d.geo.clusterSize)
	}
	return nil
}

// dropOwn releases the clusters that only this tree leads to, and compressed
// ones, but not its L2 tables. It reports whether there are any others.
func (d *disk) dropOwn(t *task.Task, l1 []uint64) (shared bool, err error) {
	data := make([]byte, d.geo.clusterSize)
	for _, e := range l1 {
		if e&offsetMask == 0 {
			continue
		}
		if err := t.Step(1); err != nil {
			return false, err
		}
		also, err := d.dropOwnOf(data, hostOff(e&offsetMask))
		if err != nil {
			return false, err
		}
		shared = shared || also
		if err := d.relieveAlone(); err != nil {
			return false, err
		}
	}
	return shared, nil
}

// relieveAlone is relieve for who excludes flushes.
func (d *disk) relieveAlone() error {
	if pressed, _ := d.pressed(); pressed {
		return d.flush()
	}
	return nil
}

func (d *disk) dropOwnOf(data []byte, table hostOff) (shared bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.readTree(data, table); err != nil {
		return false, err
	}
	v, err := d.refcount(int64(table) >> d.geo.clusterBits)
	if err != nil {
		return false, err
	}
	shared = v > 1
	return shared, d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		if !e.compressed() {
			v, err := d.refcount(run.start)
			if err != nil {
				return err
			}
			if v > 1 {
				shared = true
				return nil
			}
		}
		d.release(run.start, run.n)
		return nil
	})
}

// dropShared counts the clusters that others lead to as well down by one, and
// sets COPIED where the active tables are the only ones left.
func (d *disk) dropShared(t *task.Task, l1 []uint64) error {
	both := int64(0)
	for i, e := range l1 {
		if e&offsetMask != 0 && i < len(d.l1) && d.l1[i]&offsetMask != 0 {
			both++
		}
	}
	moves := func(at int, data []byte) (bool, error) { return d.mayClaim(l1, at, data) }
	return d.rewrite(t, both, nil, moves, func(c *swap) error {
		active := slices.Clone(d.l1)
		data := make([]byte, d.geo.clusterSize)
		for i, e := range l1 {
			if e&offsetMask == 0 {
				continue
			}
			err := c.t.Step(1)
			if err == nil {
				err = c.dropTable(data, hostOff(e&offsetMask))
			}
			if err == nil && i < len(active) && active[i]&offsetMask != 0 {
				active[i], err = c.claimTable(i, data, active[i])
			}
			if err == nil {
				err = c.relieve()
			}
			if err != nil {
				return err
			}
		}
		return c.setL1(c.home.l1Run, active)
	})
}

// mayClaim reports whether claimTable may have to set flags in the active L2 table of
// L1 entry i, when l1 is dropped, and nothing else leads there.
func (d *disk) mayClaim(l1 []uint64, i int, data []byte) (bool, error) {
	if i >= len(l1) || l1[i]&offsetMask == 0 {
		return false, nil
	}
	table := d.l1[i] & offsetMask
	v, err := d.refcount(int64(table) >> d.geo.clusterBits)
	if l1[i]&offsetMask == table {
		v--
	}
	if err != nil || v != 1 {
		return false, err
	}
	unclaimed := false
	err = d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		unclaimed = unclaimed || !e.compressed() && !e.copied()
		return nil
	})
	return unclaimed, err
}

// dropTable counts what an L2 table leads to, if it is shared, and the table
// itself down.
func (c *swap) dropTable(data []byte, table hostOff) error {
	d := c.d
	if err := d.readTree(data, table); err != nil {
		return err
	}
	err := d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		if e.compressed() {
			return nil
		}
		return c.dropRef(run.start)
	})
	if err != nil {
		return err
	}
	cluster := int64(table) >> d.geo.clusterBits
	v, err := d.refcount(cluster)
	if err != nil || v > 1 {
		return errors.Join(err, c.dropRef(cluster))
	}
	c.lose(table, d.geo.clusterSize)
	return nil
}

// dropRef counts a cluster down that is shared.
func (c *swap) dropRef(cluster int64) error {
	v, err := c.d.refcount(cluster)
	if err != nil || v < 2 {
		return err
	}
	return c.d.addRef(cluster, -1)
}

// claimTable sets the COPIED flags of the i-th active L2 table, which has been moved
// out if there are any to be set, and returns the L1 entry for it.
func (c *swap) claimTable(i int, data []byte, entry uint64) (uint64, error) {
	d, table := c.d, hostOff(entry&offsetMask)
	if err := d.readTree(data, table); err != nil {
		return 0, err
	}
	changed := false
	err := d.eachPlaced(data, func(at int, e l2Entry, run hostRun) error {
		if e.compressed() || e.copied() {
			return nil
		}
		v, err := d.refcount(run.start)
		if v == 1 {
			changed = true
			data[at] |= 1 << 7
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if changed || c.movedOut(i) {
		c.lose(table, d.geo.clusterSize)
		return c.writeCopy(i, data, 1)
	}
	v, err := d.refcount(int64(table) >> d.geo.clusterBits)
	return withFlag(uint64(table), v == 1), err
}
