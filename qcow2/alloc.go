package qcow2

import "github.com/diskimg/diskimg/block"

// The allocator: the lowest free clusters first. A cluster is free when its
// refcount in memory is 0, and that comes to be only when nothing on disk and
// no running request refers to it. All functions need mu exclusively.

// hostRun is a run of clusters in the image file.
type hostRun struct {
	start, n int64
	// fresh says that the space has never been written: it reads as zero.
	fresh bool
	// hole says that the space goes back to the file system when it is free.
	hole bool
}

func (r hostRun) off(g *geometry) hostOff { return hostOff(r.start << g.clusterBits) }

// alloc finds between least and want contiguous free clusters and counts them.
func (d *disk) alloc(least, want int64) (hostRun, error) {
	d.event(block.EventClusterAlloc)
	run, err := d.findFree(least, want)
	if err != nil {
		return run, err
	}
	if err := d.mayAllocate(run.start, run.n); err != nil {
		return hostRun{}, err
	}
	for i := range run.n {
		if err := d.addRef(run.start+i, 1); err != nil {
			d.unalloc(hostRun{start: run.start, n: i})
			return hostRun{}, err
		}
	}
	if d.freeHint == run.start {
		d.freeHint += run.n
	}
	run.fresh = run.start >= d.fileEnd
	d.extend(run.start + run.n)
	return run, nil
}

// mayAllocate refuses clusters that hold metadata although they count as free:
// the refcounts are wrong.
func (d *disk) mayAllocate(c, n int64) error {
	if r, ok := d.hitMeta(c, n); ok {
		return d.corrupt(block.Corruptf("Preventing invalid allocation at offset %#x, which holds metadata (%s)", r.start<<d.geo.clusterBits, r.kind))
	}
	return nil
}

// findFree walks the refcounts from the first cluster that may be free. It
// makes the refcount blocks that it comes past.
func (d *disk) findFree(least, want int64) (run hostRun, err error) {
	limit := int64(maxHostOffset) >> d.geo.clusterBits
	first := true
	for c := d.freeHint; run.n < want; c++ {
		if c >= limit {
			return run, block.Errorf(block.ErrNoSpace, "no %d contiguous clusters below offset %#x", least, int64(maxHostOffset))
		}
		b, i, err := d.refSlice(c)
		if err != nil {
			return run, err
		}
		if b == nil {
			if run.n >= least {
				break
			}
			start := c
			if run.n > 0 {
				start = run.start
			}
			if err := d.newRefblocks(start, c, least); err != nil {
				return run, err
			}
			run.n = 0
			c = start - 1 // look again: what was free may hold a block now
			continue
		}
		if getRef(b.Data, i, d.geo.refOrder) != 0 {
			if run.n >= least {
				break
			}
			run.n = 0
			continue
		}
		if first {
			d.freeHint, first = c, false
		}
		if run.n == 0 {
			run.start = c
		}
		run.n++
	}
	return run, nil
}

// unalloc takes back an allocation that nothing refers to yet.
func (d *disk) unalloc(run hostRun) {
	for i := range run.n {
		// A count that was just raised is in memory; if this fails all the
		// same the image is poisoned, and the cluster is a leak.
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
	run, err := d.alloc(1, 1)
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
