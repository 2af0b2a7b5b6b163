package qcow2

import (
	"slices"

	"github.com/diskimg/diskimg/internal/task"
)

// A swap leaves tables at new places. So that they stay where they were, as they
// do with QEMU, there are two: the first moves what the second is to change out
// of its way, the second writes all of it to where it lay.

// home is where the tables lay that a change has moved out. They are still
// counted, and nothing refers to them.
type home struct {
	reftable []uint64
	table    hostRun
	l1       []uint64
	l1Run    hostRun
}

// rewrite makes a change as swap does, with the tables that are there already
// left where they are. tables is how many clusters in one piece for each new
// table, n how many new single ones at most. moves tells which of the active L2
// tables f is going to write; nil is none. Needs mu exclusively, and an image that
// is quiet.
func (d *disk) rewrite(t *task.Task, n int64, tables []int64, moves func(at int, data []byte) (bool, error), f func(c *swap) error) error {
	c := &swap{d: d, t: t, fresh: d.fileEnd}
	err := c.addTables(tables)
	from := d.searchFrom
	if err == nil {
		err = c.addSingles(n)
	}
	if err == nil {
		c.home, err = d.moveOut(t, moves)
	}
	if err != nil {
		c.undo()
		return err
	}
	d.searchFrom = min(from, d.searchFrom)
	c.table = c.home.table
	return c.run(f)
}

// moveOut moves the refcount table and its blocks, the active L1 table, and the
// active L2 tables that moves names to new places.
func (d *disk) moveOut(t *task.Task, moves func(at int, data []byte) (bool, error)) (*home, error) {
	var h *home
	err := d.swap(t, countTables(d.l1), []int64{d.l1Place().n}, func(c *swap) error {
		if err := d.mayMoveTables(); err != nil {
			return err
		}
		l1, err := c.moveTables(moves)
		if err != nil {
			return err
		}
		c.leaves = true
		// Space for the copies may have needed a larger refcount table.
		h = &home{c.reftable, d.reftablePlace(), d.l1, d.l1Place()}
		return c.setL1(c.tables[0], l1)
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// mayMoveTables refuses if anything else lies where the two large tables do.
func (d *disk) mayMoveTables() error {
	err := d.mayWriteMeta(metaReftable, hostOff(d.hdr.reftableOffset), int64(d.hdr.reftableClusters)<<d.geo.clusterBits)
	if err == nil && len(d.l1) > 0 {
		err = d.mayWriteMeta(metaL1, hostOff(d.hdr.l1Offset), int64(len(d.l1))*8)
	}
	return err
}

// reftablePlace returns where the refcount table lies that the header names.
func (d *disk) reftablePlace() hostRun {
	return hostRun{start: int64(d.hdr.reftableOffset) >> d.geo.clusterBits, n: int64(d.hdr.reftableClusters)}
}

// l1Place returns where the active L1 table lies.
func (d *disk) l1Place() hostRun {
	return hostRun{start: int64(d.hdr.l1Offset) >> d.geo.clusterBits, n: d.geo.clusters(int64(len(d.l1)) * 8)}
}

// moveTables copies the active L2 tables that moves names, and returns the L1
// table that leads to the copies.
func (c *swap) moveTables(moves func(at int, data []byte) (bool, error)) ([]uint64, error) {
	d := c.d
	l1 := slices.Clone(d.l1)
	data := make([]byte, d.geo.clusterSize)
	if moves == nil {
		return l1, nil
	}
	for i, e := range l1 {
		table := hostOff(e & offsetMask)
		if table == 0 {
			continue
		}
		if err := c.t.Step(1); err != nil {
			return nil, err
		}
		if err := d.readTree(data, table); err != nil {
			return nil, err
		}
		if move, err := moves(i, data); err != nil {
			return nil, err
		} else if !move {
			continue
		}
		if err := d.mayWriteMeta(metaL2, table, d.geo.clusterSize); err != nil {
			return nil, err
		}
		off, err := c.writeCopy(i, data, 1)
		if err != nil {
			return nil, err
		}
		d.l2.Forget(int64(table), d.geo.clusterSize)
		l1[i] = off
	}
	return l1, nil
}

// placeRefblock returns where refcount block i is to lie.
func (c *swap) placeRefblock(i int) (hostOff, error) {
	if c.home == nil {
		return c.single()
	}
	return hostOff(c.home.reftable[i] &^ reftableReserved), nil
}

// placeL2 returns where the L2 table of L1 entry i is to lie.
func (c *swap) placeL2(i int) (hostOff, error) {
	if !c.movedOut(i) {
		return c.single()
	}
	return hostOff(c.home.l1[i] & offsetMask), nil
}

// movedOut reports whether the i-th active L2 table is one that was moved out of
// its place.
func (c *swap) movedOut(i int) bool {
	return c.home != nil && i < len(c.home.l1) && (c.home.l1[i]^c.d.l1[i])&offsetMask != 0
}

// giveUpHome frees the places that nothing came back to.
func (c *swap) giveUpHome() {
	if c.home == nil {
		return
	}
	d := c.d
	d.unalloc(c.home.l1Run)
	for i := range c.home.l1 {
		if c.movedOut(i) {
			d.unalloc(hostRun{start: int64(c.home.l1[i]&offsetMask) >> d.geo.clusterBits, n: 1})
		}
	}
	for i, e := range c.home.reftable {
		if e != d.reftable[i] {
			d.unalloc(hostRun{start: int64(e&^reftableReserved) >> d.geo.clusterBits, n: 1})
		}
	}
}
