package qcow2

import (
	"maps"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Another width of refcounts: all refcount structures are made anew behind the
// end of the file, and one write of the header's first sector puts them, with
// the width, in force. Until then nothing refers to them; from then on nothing to
// the old ones, and the new ones do not count those.

// widening is one such change on its way.
type widening struct {
	d   *disk
	geo geometry // as it will be
	t   *task.Task

	used     map[int64]bool // the new refcount blocks that are needed
	first    int64          // the cluster of the new refcount table
	table    []uint64       // the new refcount table
	clusters int64          // that it takes up
	end      int64          // the cluster behind the new structures
	last     int64          // the last cluster that has a refcount
}

func (d *disk) setRefcountBits(t *task.Task, width int) error {
	return d.alone(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		w := &widening{d: d, geo: d.geo, t: t, used: make(map[int64]bool)}
		w.geo.refOrder = orderOf(width)
		w.geo.refBits = w.geo.clusterBits + 3 - w.geo.refOrder
		t.Expect(2 * d.countBlocks())
		if err := w.measure(); err != nil {
			return err
		}
		if err := w.write(); err != nil {
			return err
		}
		return w.adopt()
	})
}

// eachCount calls f for each cluster that has a refcount and is not part of the
// old structures.
func (w *widening) eachCount(f func(c int64, n uint64) error) error {
	d, g := w.d, &w.d.geo
	data := make([]byte, g.clusterSize)
	for i, e := range d.reftable {
		if e == 0 {
			continue
		}
		if err := d.validRefblock(hostOff(e&^reftableReserved), int64(i)); err != nil {
			return err
		}
		if err := d.readTable("refcount block", data, hostOff(e&^reftableReserved)); err != nil {
			return err
		}
		for j := range int64(1) << g.refBits {
			c, n := int64(i)<<g.refBits+j, getRef(data, j, g.refOrder)
			if n == 0 || d.meta.is(metaReftable, c, 1) || d.meta.is(metaRefblock, c, 1) {
				continue
			}
			if err := f(c, n); err != nil {
				return err
			}
		}
		if err := w.t.Step(1); err != nil {
			return err
		}
	}
	return nil
}

// measure finds out how much is needed, and whether all counts fit.
func (w *widening) measure() error {
	g, limit := &w.geo, w.geo.maxRefcount()
	err := w.eachCount(func(c int64, n uint64) error {
		if n > limit {
			return block.Errorf(block.ErrNoSpace, "Cannot decrease refcount entry width to %d bits: Cluster at offset %#x has a refcount of %d", 1<<g.refOrder, c<<g.clusterBits, n)
		}
		w.used[c>>g.refBits] = true
		w.last = c
		return nil
	})
	if err != nil {
		return err
	}
	size, err := w.d.file.Size()
	if err != nil {
		return err
	}
	w.first = max(w.d.fileEnd, g.clusters(size), w.last+1)
	w.clusters, err = g.sizeRefcounts(w.used, w.first)
	return err
}

// sizeRefcounts returns how many clusters a refcount table needs that lies at
// cluster first with the refcount blocks in used behind it, and adds to used
// those that count table and blocks.
func (g *geometry) sizeRefcounts(used map[int64]bool, first int64) (tableClusters int64, err error) {
	for tableClusters = 1; ; {
		end := first + tableClusters + int64(len(used))
		need := ((end-1)>>g.refBits + 1) * 8
		if need > maxReftableBytes {
			return 0, block.Errorf(block.ErrNoSpace, "refcount table needs %d bytes, the limit is %d", need, maxReftableBytes)
		}
		for i := first >> g.refBits; i <= (end-1)>>g.refBits; i++ {
			used[i] = true
		}
		if first+tableClusters+int64(len(used)) == end && need <= tableClusters<<g.clusterBits {
			return tableClusters, nil
		}
		tableClusters = max(tableClusters, g.clusters(need))
	}
}

// write writes the new structures: the table, and behind it the blocks.
func (w *widening) write() error {
	g, blocks := &w.geo, slices.Sorted(maps.Keys(w.used))
	w.table = make([]uint64, w.clusters<<g.clusterBits/8)
	next := w.first + w.clusters
	for i, b := range blocks {
		w.table[b] = uint64((next + int64(i)) << g.clusterBits)
	}
	w.end = next + int64(len(blocks))
	if w.end<<g.clusterBits >= maxHostOffset {
		return block.Errorf(block.ErrNoSpace, "refcount structures would lie beyond offset %#x", int64(maxHostOffset))
	}
	// Before anything is there that would not read as zero, the space counts as
	// written: it stays free if this fails.
	w.d.extend(w.end)
	if err := w.writeBlocks(blocks); err != nil {
		return err
	}
	_, err := w.d.file.WriteAt(encodeTable(w.table), w.first<<g.clusterBits)
	return err
}

// writeBlocks writes the new refcount blocks, whose indexes are sorted.
func (w *widening) writeBlocks(blocks []int64) error {
	g, data := &w.geo, make([]byte, w.geo.clusterSize)
	// Counts come in the order of their clusters.
	err := w.eachCount(func(c int64, n uint64) error {
		for ; blocks[0] != c>>g.refBits; blocks = blocks[1:] {
			if err := w.writeBlock(blocks[0], data); err != nil {
				return err
			}
		}
		setRef(data, c&(1<<g.refBits-1), g.refOrder, n)
		return nil
	})
	for ; err == nil && len(blocks) > 0; blocks = blocks[1:] {
		err = w.writeBlock(blocks[0], data)
	}
	return err
}

// writeBlock writes the new refcount block i with the counts in data, to which it
// adds those of the new structures, and clears data.
func (w *widening) writeBlock(i int64, data []byte) error {
	g, lo := &w.geo, i<<w.geo.refBits
	for c := max(lo, w.first); c < min(lo+1<<g.refBits, w.end); c++ {
		setRef(data, c-lo, g.refOrder, 1)
	}
	_, err := w.d.file.WriteAt(data, int64(w.table[i]))
	clear(data)
	return err
}

// adopt puts the new structures in force, on disk and in memory.
func (w *widening) adopt() error {
	d := w.d
	// Before the header names the new table, it and its blocks must be on disk.
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	h := *d.hdr
	h.reftableOffset, h.reftableClusters = uint64(w.first<<d.geo.clusterBits), uint32(w.clusters)
	h.refcountOrder = uint32(w.geo.refOrder)
	if err := d.patchFixed(&h); err != nil {
		return err
	}
	// After the header names the new ones, nothing refers to the old structures:
	// they are free.
	for _, e := range d.reftable {
		d.refs.Forget(int64(e&^reftableReserved), d.geo.clusterSize)
	}
	d.setHeader(&h)
	d.geo.refOrder, d.geo.refBits = w.geo.refOrder, w.geo.refBits
	d.reftable = w.table
	clear(d.reftableDirty)
	d.searchFrom, d.pack = 0, 0
	if err := d.mapMetadata(); err != nil {
		return d.poison(err)
	}
	return nil
}
