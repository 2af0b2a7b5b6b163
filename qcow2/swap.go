package qcow2

import (
	"errors"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cow"
	"github.com/diskimg/diskimg/internal/task"
)

// A change of references that is too large for one write, and must not be seen
// in part: who shares a cluster and whether its COPIED flag is set have to agree
// at every instant. So all refcount blocks are copied, counts change in the
// copies, tables are written to new places, and one write of the header's first
// sector makes all of it the image. Until then nothing on disk refers to any of
// it.

// swap is one such change on its way.
type swap struct {
	d       *disk
	t       *task.Task // its steps are L2 tables
	tables  []hostRun  // set aside for tables, as asked for
	taken   []hostRun  // single clusters that are in use
	singles []hostRun  // single clusters that are not yet
	table   hostRun    // for the refcount table
	fresh   int64      // clusters from here on were never written when it began
	home    *home      // where tables are to lie that were moved out
	leaves  bool       // what it replaces stays counted, to be a home

	hdr  header    // as it will be
	l1   []uint64  // the active L1 table as it will be
	gone []hostRun // what is referred to once less afterwards

	// For undo: what was in memory before.
	reftable []uint64
	meta     metaMap
}

// swap makes such a change: n is how many single clusters f will need at most,
// tables how many clusters in one piece for each table. Needs mu exclusively, and
// an image that is quiet (see alone).
func (d *disk) swap(t *task.Task, n int64, tables []int64, f func(c *swap) error) error {
	c := &swap{d: d, t: t, fresh: d.fileEnd}
	if err := c.setAside(n, tables); err != nil {
		c.undo()
		return err
	}
	return c.run(f)
}

// run has f make a change, with counts in copies, and puts that in force.
func (c *swap) run(f func(c *swap) error) error {
	d := c.d
	c.l1, c.hdr = d.l1, *d.hdr
	// Before counts change in copies, what counts the copies must be known.
	err := d.writeCounts()
	if err == nil {
		err = c.copyBlocks()
	}
	if err == nil {
		err = f(c)
	}
	if err != nil {
		c.undo()
		return err
	}
	return c.commit()
}

// setAside allocates all that the change will need, and so all that can fail
// for want of space fails here.
func (c *swap) setAside(n int64, tables []int64) error {
	if err := c.addTables(tables); err != nil {
		return err
	}
	for {
		// Space for blocks may itself need another block, or a larger table.
		blocks, table := c.d.countBlocks(), int64(c.d.hdr.reftableClusters)
		if err := c.addSingles(n + blocks); err != nil {
			return err
		}
		if c.table.n != table {
			c.d.unalloc(c.table)
			c.table = hostRun{}
			run, err := c.d.alloc(table)
			if err != nil {
				return err
			}
			c.table = run
		}
		if c.d.countBlocks() == blocks && int64(c.d.hdr.reftableClusters) == table {
			return nil
		}
	}
}

// addTables allocates a run for each table.
func (c *swap) addTables(tables []int64) error {
	for _, clusters := range tables {
		run, err := c.d.alloc(clusters)
		if err != nil {
			return err
		}
		c.tables = append(c.tables, run)
	}
	return nil
}

// addSingles allocates single clusters until there are n.
func (c *swap) addSingles(n int64) error {
	for int64(len(c.singles)) < n {
		run, err := c.d.alloc(1)
		if err != nil {
			return err
		}
		c.singles = append(c.singles, run)
	}
	return nil
}

// single takes one of the clusters that were set aside.
func (c *swap) single() (hostOff, error) {
	if len(c.singles) == 0 {
		return 0, block.Corruptf("refcounts are wrong: a table is shared, and what it leads to is not")
	}
	r := c.singles[0]
	c.taken, c.singles = append(c.taken, r), c.singles[1:]
	return r.off(&c.d.geo), nil
}

func (d *disk) countBlocks() (n int64) {
	for _, e := range d.reftable {
		if e != 0 {
			n++
		}
	}
	return n
}

// copyBlocks copies all refcount blocks and has counts change in the copies.
func (c *swap) copyBlocks() error {
	d := c.d
	c.meta = metaMap{slices.Clone(d.meta.runs)}
	table := slices.Clone(d.reftable)
	var copies []piece
	for i, e := range d.reftable {
		if e == 0 {
			continue
		}
		data, err := d.readRefblock(int64(i), hostOff(e&^reftableReserved))
		if err != nil {
			return err
		}
		off, err := c.placeRefblock(i)
		if err != nil {
			return err
		}
		copies = append(copies, piece{metaRefblock, off, data})
		if int64(len(copies))<<d.geo.clusterBits >= cow.OneWrite {
			if err := d.writePieces(copies); err != nil {
				return err
			}
			copies = nil
		}
		table[i] = uint64(off)
	}
	if err := d.writePieces(copies); err != nil {
		return err
	}
	for _, e := range table {
		if e != 0 {
			d.refs.Forget(int64(e), d.geo.clusterSize)
			d.claim(metaRefblock, hostOff(e), d.geo.clusterSize)
		}
	}
	c.reftable, d.reftable = d.reftable, table
	return nil
}

// readRefblock reads refcount block i if it lies at a place where it can be written.
func (d *disk) readRefblock(i int64, off hostOff) ([]byte, error) {
	err := errors.Join(d.validRefblock(off, i), d.mayWriteMeta(metaRefblock, off, d.geo.clusterSize))
	if err != nil {
		return nil, err
	}
	data := make([]byte, d.geo.clusterSize)
	return data, d.readTable("refcount block", data, off)
}

// relieve writes counts to the copies when too many wait in memory.
func (c *swap) relieve() error {
	if !c.d.refs.Pressed() {
		return nil
	}
	return c.writeCounts()
}

func (c *swap) writeCounts() error {
	blocks := c.d.refs.TakeDirty()
	defer c.d.refs.Written(blocks)
	return c.d.writePieces(cachePieces(metaRefblock, blocks))
}

// lose notes n bytes at off that are referred to once less when the change is
// made.
func (c *swap) lose(off hostOff, n int64) {
	if off != 0 && n > 0 {
		c.gone = append(c.gone, hostRun{int64(off) >> c.d.geo.clusterBits, c.d.geo.clusters(n), false, false})
	}
}

// writeTable writes a table of 8-byte entries to a run that was set aside.
func (c *swap) writeTable(run hostRun, table []uint64) error {
	data := make([]byte, run.n<<c.d.geo.clusterBits)
	copy(data, encodeTable(table))
	_, err := c.d.file.WriteAt(data, int64(run.off(&c.d.geo)))
	return err
}

// setL1 makes the table, written to run, the active L1 table.
func (c *swap) setL1(run hostRun, table []uint64) error {
	c.l1 = table
	c.hdr.l1Offset, c.hdr.l1Size = uint64(run.off(&c.d.geo)), uint32(len(table))
	return c.writeTable(run, table)
}

// commit makes the change. On an error it is undone, or the image is poisoned.
func (c *swap) commit() error {
	d := c.d
	c.hdr.reftableOffset = uint64(c.table.off(&d.geo))
	err := c.giveBack()
	if err == nil {
		err = c.writeCounts()
	}
	if err == nil {
		err = c.writeTable(c.table, d.reftable)
	}
	if err == nil {
		// Before the header names the new tables, they and all the counts must
		// be on disk.
		err = d.sync()
	}
	if err != nil {
		c.undo()
		return err
	}
	if err := c.d.patchFixed(&c.hdr); err != nil {
		return err
	}
	return c.adopt()
}

// giveBack counts what was set aside and not used as free again, and as never
// written if it was not.
func (c *swap) giveBack() error {
	for _, r := range slices.Backward(c.singles) {
		if err := c.d.addRef(r.start, -1); err != nil {
			return err
		}
		if r.start >= c.fresh && r.start+r.n == c.d.fileEnd {
			c.d.fileEnd = r.start
		}
	}
	return nil
}

// adopt makes what is on disk now what is in memory, and gives up what the
// header no longer leads to.
func (c *swap) adopt() error {
	d := c.d
	for _, e := range c.reftable {
		d.refs.Forget(int64(e&^reftableReserved), d.geo.clusterSize)
	}
	if !c.leaves {
		c.giveUp()
	}
	d.setHeader(&c.hdr)
	d.l1 = c.l1
	d.size.Store(int64(c.hdr.size))
	clear(d.l1Dirty)
	clear(d.reftableDirty)
	if err := d.mapMetadata(); err != nil {
		return d.poison(err)
	}
	return nil
}

// giveUp releases what has been replaced. After the header names the new tables,
// that is: nothing refers to the old ones.
func (c *swap) giveUp() {
	d, g := c.d, &c.d.geo
	for _, e := range c.reftable {
		d.releaseBytes(hostOff(e&^reftableReserved), g.clusterSize)
	}
	d.releaseBytes(hostOff(d.hdr.reftableOffset), int64(d.hdr.reftableClusters)<<g.clusterBits)
	if c.hdr.l1Offset != d.hdr.l1Offset {
		d.releaseBytes(hostOff(d.hdr.l1Offset), int64(len(d.l1))*8)
	}
	for _, r := range c.gone {
		d.release(r.start, r.n)
	}
}

// releaseBytes is release for n bytes at off; none at offset 0.
func (d *disk) releaseBytes(off hostOff, n int64) {
	if off != 0 && n > 0 {
		d.release(int64(off)>>d.geo.clusterBits, d.geo.clusters(n))
	}
}

// undo forgets the change. What it has written is referred to by nothing.
func (c *swap) undo() {
	d := c.d
	if c.reftable != nil {
		for _, e := range d.reftable {
			d.refs.Forget(int64(e&^reftableReserved), d.geo.clusterSize)
		}
		d.reftable, d.meta = c.reftable, c.meta
	}
	if d.broken != nil {
		return
	}
	d.searchFrom, d.pack = 0, 0
	for _, r := range slices.Concat(c.tables, c.taken, c.singles, []hostRun{c.table}) {
		d.unalloc(r)
	}
	c.giveUpHome()
}
