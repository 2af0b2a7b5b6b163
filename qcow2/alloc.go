package qcow2

import "github.com/diskimg/diskimg/block"

// The allocator. A search for space begins where the last one ended, or at what
// has been freed below, and takes the first run that is long enough; QEMU does
// so too, and as the same places come out, images can be compared. A cluster is
// free when its refcount in memory is 0, and that comes to be only when nothing
// on disk and no running request refers to it. All functions need mu exclusively.

// hostRun is a run of clusters in the image file.
type hostRun struct {
	start, n int64
	// fresh says that the space has never been written: it reads as zero.
	fresh bool
	// hole says that the space goes back to the file system when it is free.
	hole bool
}

func (r hostRun) off(g *geometry) hostOff { return hostOff(r.start << g.clusterBits) }

// alloc finds n contiguous free clusters and counts them.
func (d *disk) alloc(n int64) (hostRun, error) {
	d.event(block.EventClusterAlloc)
	start, err := d.findCounted(n)
	if err != nil {
		return hostRun{}, err
	}
	return d.take(start, n)
}

// allocNext finds up to n contiguous free clusters and counts them: from next on
// if that is one and is free, else n of them anywhere.
func (d *disk) allocNext(next, n int64) (hostRun, error) {
	if d.flushing {
		n = min(n, d.longestRun())
	}
	if next == 0 {
		return d.alloc(n)
	}
	for i := next >> d.geo.refBits; !d.hasRefblock(i); {
		// The block may well come to lie at next.
		if err := d.newRefblock(i); err != nil {
			return hostRun{}, err
		}
	}
	k, err := d.freeFrom(next, n)
	if err != nil {
		return hostRun{}, err
	}
	if k == 0 {
		return d.alloc(n)
	}
	d.event(block.EventClusterAlloc)
	return d.take(next, k)
}

// take counts n free clusters from start on.
func (d *disk) take(start, n int64) (hostRun, error) {
	if err := d.mayAllocate(start, n); err != nil {
		return hostRun{}, err
	}
	for i := range n {
		if err := d.addRef(start+i, 1); err != nil {
			d.unalloc(hostRun{start: start, n: i})
			return hostRun{}, err
		}
	}
	run := hostRun{start: start, n: n, fresh: start >= d.fileEnd}
	d.extend(start + n)
	return run, nil
}

// freeFrom returns how many clusters from start on are free, up to n, as far as
// there are refcount blocks and offsets.
func (d *disk) freeFrom(start, n int64) (k int64, err error) {
	n = min(n, int64(maxHostOffset)>>d.geo.clusterBits-start)
	for k < n && d.hasRefblock((start+k)>>d.geo.refBits) {
		v, err := d.refcount(start + k)
		if err != nil || v != 0 {
			return k, err
		}
		k++
	}
	return k, nil
}

// mayAllocate refuses clusters that hold metadata although they count as free:
// the refcounts are wrong.
func (d *disk) mayAllocate(c, n int64) error {
	if r, ok := d.hitMeta(c, n); ok {
		return d.corrupt(block.Corruptf("Preventing invalid allocation at offset %#x, which holds metadata (%s)", r.start<<d.geo.clusterBits, r.kind))
	}
	return nil
}

// findCounted finds n contiguous free clusters that have refcount blocks. It makes
// those that are missing, behind the run.
func (d *disk) findCounted(n int64) (int64, error) {
	for {
		start, err := d.findFree(n)
		if err != nil {
			return 0, err
		}
		missing := d.missingRefblock(start, n)
		if missing < 0 {
			return start, nil
		}
		if d.flushing && n > d.longestRun() {
			return 0, block.Errorf(block.ErrNoSpace, "no %d contiguous clusters while a flush runs: each refcount block stands for %d", n, int64(1)<<d.geo.refBits)
		}
		if err := d.newRefblock(missing); err != nil {
			return 0, err
		}
		d.searchFrom = min(d.searchFrom, start) // look again: the run may still be free
	}
}

// longestRun is how many contiguous clusters there can be where new refcount blocks
// lie among what they count, see placeRefblock.
func (d *disk) longestRun() int64 { return 1<<d.geo.refBits - 1 }

// findFree finds n contiguous clusters whose refcount is 0, and has the next
// search begin behind them.
func (d *disk) findFree(n int64) (int64, error) {
	limit := int64(maxHostOffset) >> d.geo.clusterBits
	start := d.searchFrom
	for c := start; c < start+n; c++ {
		if c >= limit {
			return 0, block.Errorf(block.ErrNoSpace, "no %d contiguous clusters below offset %#x", n, int64(maxHostOffset))
		}
		b, i, err := d.refSlice(c)
		if err != nil {
			return 0, err
		}
		if b != nil && getRef(b.Data, i, d.geo.refOrder) != 0 {
			start = c - i + nextFree(b.Data, i, d.geo.refOrder)
			c = start - 1
		}
	}
	d.searchFrom = start + n
	return start, nil
}

// unalloc takes back an allocation that nothing refers to yet.
func (d *disk) unalloc(run hostRun) {
	for i := range run.n {
		// A count that was just raised is in memory, as a rule; where it has to be
		// read and can't be, the cluster is a leak, and whoever takes it back
		// has an error to return.
		if d.addRef(run.start+i, -1) != nil {
			return
		}
	}
}

// allocAt counts cluster c if it is free.
func (d *disk) allocAt(c int64) (bool, error) {
	b, i, err := d.refSlice(c)
	if err != nil || b == nil || getRef(b.Data, i, d.geo.refOrder) != 0 {
		return false, err
	}
	if err := d.mayAllocate(c, 1); err != nil {
		return false, err
	}
	d.extend(c + 1)
	return true, d.addRef(c, 1)
}

// extend notes that clusters up to end have been handed out.
func (d *disk) extend(end int64) {
	if end > d.fileEnd {
		d.fileEnd, d.extended = end, true
	}
}

// allocBytes finds room for n bytes of compressed data, at most a cluster:
// behind the last such data if it goes on there, else in a new cluster. Each
// cluster it touches is counted once more.
func (d *disk) allocBytes(n int64) (hostOff, error) {
	d.event(block.EventClusterAllocBytes)
	if d.pack != 0 {
		off, err := d.allocTail(n)
		if off != 0 || err != nil {
			return off, err
		}
	}
	run, err := d.alloc(1)
	if err != nil {
		return 0, err
	}
	d.pack = run.off(&d.geo)
	return d.packed(n), nil
}

// allocTail tries to put n bytes at d.pack, and on into the next cluster if
// that is free.
func (d *disk) allocTail(n int64) (hostOff, error) {
	c := int64(d.pack) >> d.geo.clusterBits
	v, err := d.refcount(c)
	if err != nil || v == 0 || v == d.geo.maxRefcount() {
		return 0, err
	}
	if int64(d.pack)+n > (c+1)<<d.geo.clusterBits {
		if ok, err := d.allocAt(c + 1); !ok || err != nil {
			return 0, err
		}
	}
	if err := d.addRef(c, 1); err != nil {
		return 0, err
	}
	return d.packed(n), nil
}

// packed moves d.pack behind n bytes. A cluster that is filled to its end has
// no tail to go on in.
func (d *disk) packed(n int64) hostOff {
	off := d.pack
	d.pack += hostOff(n)
	if int64(d.pack)&(d.geo.clusterSize-1) == 0 {
		d.pack = 0
	}
	return off
}

// unallocBytes takes back what allocBytes gave.
func (d *disk) unallocBytes(off hostOff, n int64) {
	first, last := int64(off)>>d.geo.clusterBits, (int64(off)+n-1)>>d.geo.clusterBits
	d.unalloc(hostRun{start: first, n: last - first + 1})
}
