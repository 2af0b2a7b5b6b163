package qed

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Guest writes. Clusters that are there are written in place. All else is
// planned (space taken at the end of the file), filled (data and the old bytes
// around it), and published (linked), in that order. Space is taken by one
// write at a time; filling it runs for many at once, but for those that meet on
// a cluster, which take their turn.

// WriteAt implements block.Layer.
func (d *disk) WriteAt(p []byte, off int64) error {
	if err := d.examine(); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := d.writeRun(p, guestOff(off))
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeRun writes the start of p and returns how much; 0 says that the tables
// have changed and it is to be tried again.
func (d *disk) writeRun(p []byte, off guestOff) (int64, error) {
	if n, err := d.writeInPlace(p, off); n > 0 || err != nil {
		return n, err
	}
	if err := d.relieve(); err != nil {
		return 0, err
	}
	return d.writeNew(p, off)
}

// writeInPlace writes the start of p, 0 bytes if that has no space yet.
func (d *disk) writeInPlace(p []byte, off guestOff) (int64, error) {
	defer d.Unpin(d.Pin())
	host, n, err := d.inPlace(off, int64(len(p)))
	if n == 0 || err != nil {
		return 0, err
	}
	_, err = d.file.WriteAt(p[:n], int64(host))
	return n, err
}

// inPlace returns where the run from off on can be written without touching a
// table; n is 0 if its first byte can't.
func (d *disk) inPlace(off guestOff, n int64) (hostOff, int64, error) {
	e, err := d.Resolve(int64(off), n)
	if err == nil {
		err = d.brokenError()
	}
	if err != nil || e.Kind != block.Data {
		return 0, 0, err
	}
	return hostOff(e.Offset), e.Length, nil
}

// brokenError returns why nothing may be written any more. Takes mu.
func (d *disk) brokenError() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.broken
}

// writeNew writes the start of p, up to the end of an L2 slice, where it needs
// space.
func (d *disk) writeNew(p []byte, off guestOff) (int64, error) {
	n := min(int64(len(p)), d.sliceSpan(off))
	start, end := d.geo.alignDown(int64(off)), d.geo.alignUp(int64(off)+n)
	r := d.ranges.Acquire(start, end-start)
	defer d.ranges.Release(r)

	a, err := d.plan(off, n)
	if err != nil || a.n == 0 {
		return 0, err
	}
	n = min(n, int64(a.end()-off))
	err = d.fill(&a, p[:n], off)
	if err == nil {
		err = d.publish(&a)
	}
	if err != nil {
		d.undo(&a)
		return 0, err
	}
	return n, nil
}

// allocation is a run of guest clusters on their way to a run of host clusters.
type allocation struct {
	off  guestOff
	n    int64 // bytes, whole clusters
	host hostOff
	full bool // the last byte has been written
}

func (a *allocation) end() guestOff    { return a.off + guestOff(a.n) }
func (a *allocation) hostEnd() hostOff { return a.host + hostOff(a.n) }

// withEntry calls f with the cached slice and place of the entry for off, when
// it is loaded, under mu. A table that is missing is made, or else f is called
// with no slice.
func (d *disk) withEntry(off guestOff, make bool, f func(b *cache.Block, at int) error) error {
	for {
		missing, err := d.tryEntry(off, make, f)
		if missing == 0 || err != nil {
			return err
		}
		if err := d.loadSlice(missing); err != nil {
			return err
		}
	}
}

func (d *disk) tryEntry(off guestOff, make bool, f func(b *cache.Block, at int) error) (missing hostOff, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, d.broken
	}
	if make {
		if err := d.ownTable(off); err != nil {
			return 0, err
		}
	}
	b, at, slice, err := d.lookup(off)
	if err != nil || b == nil && slice != 0 {
		return slice, err
	}
	return 0, f(b, at)
}

// plan takes space for the clusters of [off, off+n) up to the first that has
// some. A table that is missing is made when they are linked, so that it lies
// behind them, as in QEMU's images. The guest range is locked. Takes mu.
func (d *disk) plan(off guestOff, n int64) (a allocation, err error) {
	a.off = guestOff(d.geo.alignDown(int64(off)))
	want := d.geo.alignUp(int64(off) + n - int64(a.off))
	err = d.withEntry(off, false, func(b *cache.Block, at int) error {
		for a.n = 0; a.n < want && (b == nil || entryAt(b, at) <= zeroCluster); at += 8 {
			a.n += d.geo.clusterSize
		}
		if a.n == 0 {
			return nil
		}
		var err error
		if a.host, err = d.alloc(a.n); err != nil {
			a.n = 0
			return err
		}
		d.filling++
		return nil
	})
	return a, err
}

// publish links the clusters of a. After their data is in the file, that is;
// and it gets to the disk before the entries do, see writeBatch. Takes mu.
func (d *disk) publish(a *allocation) error {
	return d.withEntry(a.off, true, func(b *cache.Block, at int) error {
		if a.full {
			d.length = max(d.length, a.hostEnd())
		}
		// Before a cluster is linked, the file must have all of it.
		if err := d.reach(a.hostEnd()); err != nil {
			return err
		}
		for done := int64(0); done < a.n; done, at = done+d.geo.clusterSize, at+8 {
			d.setEntry(b, at, uint64(a.host)+uint64(done))
		}
		d.newData = true
		d.filling--
		return nil
	})
}

// undo gives back the space of a, which is not linked. Takes mu.
func (d *disk) undo(a *allocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.filling--
	d.unalloc(a.host, a.n)
}
