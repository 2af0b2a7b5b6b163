package qcow2

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Resolve: from a guest range to where it lives. Reads take mu shared and
// allocate nothing when the tables are cached.

// Resolve implements block.Layer.
func (d *disk) Resolve(off, n int64) (block.Extent, error) {
	for {
		d.mu.RLock()
		e, missing, err := d.resolveRun(extentRun{}, guestOff(off), n)
		d.mu.RUnlock()
		if missing == 0 || err != nil {
			return e, d.settle(err)
		}
		if err := d.loadSlice(missing); err != nil {
			return e, d.settle(err)
		}
	}
}

// maxWalk bounds how many L2 slices one lookup passes over under the lock.
const maxWalk = 64

// resolveRun is Resolve under mu, into an empty run. It returns the slice it
// would need if the very first one is not cached.
func (d *disk) resolveRun(run extentRun, off guestOff, n int64) (e block.Extent, missing hostOff, err error) {
	pos := off
	for range maxWalk {
		if int64(pos-off) >= n {
			break
		}
		table, err := d.l2Table(pos)
		if err != nil {
			return run.extent, 0, run.orError(err)
		}
		var more bool
		if table == 0 {
			more = run.add(d.hole(pos))
		} else {
			more, missing, err = d.walkSlice(&run, table, pos, n-int64(pos-off))
			if missing != 0 || err != nil {
				return run.clip(off, n), run.orMissing(missing), run.orError(err)
			}
		}
		if !more {
			break
		}
		pos = guestOff(run.extent.End())
	}
	return run.clip(off, n), 0, nil
}

// hole is the rest of an L2 table's range that has no table.
func (d *disk) hole(off guestOff) block.Extent {
	span := int64(1) << (d.geo.clusterBits + d.geo.l2Bits)
	return block.Extent{Start: int64(off), Length: span - int64(off)&(span-1), Kind: block.Below}
}

// walkSlice adds the units from off on that stand in the same cached slice. It
// returns whether the run may go on behind them.
func (d *disk) walkSlice(run *extentRun, table hostOff, off guestOff, n int64) (more bool, missing hostOff, err error) {
	slice, at := d.slicePlace(table, off)
	b := d.l2.Get(int64(slice))
	if b == nil {
		return false, slice, nil
	}
	for end := off + guestOff(n); at < len(b.Data) && off < end; at += 1 << d.geo.entryBits {
		next := guestOff(d.geo.alignDown(int64(off)) + d.geo.clusterSize)
		more, err := d.addCluster(run, d.entryAt(b, at), off, next)
		if err != nil || !more {
			return false, 0, err
		}
		off = next
	}
	return true, 0, nil
}

// addCluster adds [off, next), which lies within one cluster, unit by unit.
func (d *disk) addCluster(run *extentRun, e l2Entry, off, next guestOff) (more bool, err error) {
	for off < next {
		unit, stop := d.unitAt(e, off)
		x, err := d.extentOf(e, unit, off)
		if err != nil && run.inPlace && d.misplaced(e) {
			return false, d.misplacedData(e, off, err)
		}
		if err != nil {
			invalid := "Invalid cluster entry found"
			if !run.inPlace {
				invalid += " " // so does QEMU
			}
			return false, d.describeDamage(e, off, invalid, err)
		}
		switch {
		case !run.inPlace:
			x = d.undecoded(x)
		case x.Kind == block.Data && !d.exclusive(e):
			x.Kind, x.HasOffset = block.Below, false
		}
		x.Length = int64(stop - off)
		if !run.add(x) {
			return false, nil
		}
		off = stop
	}
	return true, nil
}

// unitAt returns the unit of off within its cluster and the end of the run of
// units that share its bits.
func (d *disk) unitAt(e l2Entry, off guestOff) (unit uint, stop guestOff) {
	start := guestOff(d.geo.alignDown(int64(off)))
	if !d.geo.extended || e.compressed() {
		return 0, start + guestOff(d.geo.clusterSize)
	}
	unit = uint((off - start) >> d.geo.unitBits)
	return unit, start + guestOff(unit+e.unitRun(unit))<<d.geo.unitBits
}

// state classifies the unit of off by its L2 entry. In an external data file a
// cluster lies where it lies on the guest disk.
func (d *disk) state(e l2Entry, unit uint, off guestOff) (state, error) {
	if !d.external {
		return d.geo.stateOf(e, unit, false)
	}
	s, err := d.geo.stateOf(e, unit, true)
	placed := s == normal || s == zeroAlloc || s == reserved
	if start := d.geo.alignDown(int64(off)); err == nil && placed && int64(e.host()) != start {
		return 0, block.Corruptf("cluster offset %#x in the external data file is not the guest offset %#x", int64(e.host()), start)
	}
	return s, err
}

// extentOf describes the unit at off by its L2 entry; Length is left out.
func (d *disk) extentOf(e l2Entry, unit uint, off guestOff) (block.Extent, error) {
	s, err := d.state(e, unit, off)
	if err != nil {
		return block.Extent{}, err
	}
	x := block.Extent{Start: int64(off), Allocated: true}
	inCluster := int64(off) & (d.geo.clusterSize - 1)
	switch s {
	case unallocated:
		x.Kind, x.Allocated = block.Below, false
	case reserved:
		x.Kind, x.Allocated = block.Below, false
		x.HasOffset, x.Offset = true, int64(e.host())+inCluster
	case zeroPlain:
		x.Kind = block.Zero
	case zeroAlloc:
		x.Kind, x.HasOffset, x.Offset = block.Zero, true, int64(e.host())+inCluster
	case normal:
		x.Kind, x.HasOffset, x.Offset = block.Data, true, int64(e.host())+inCluster
		x.File, x.MayBeZero = d.data, d.sparse
	case compressed:
		host, n := d.geo.compressedRange(e.desc)
		x.Kind, x.Compressed, x.Offset, x.Stored = block.Special, true, int64(host), n
	}
	return x, nil
}

// extentRun grows an extent while what is added continues it.
type extentRun struct {
	extent block.Extent
	// inPlace asks for what can be written in place: data that is shared does
	// not count as Data.
	inPlace bool
}

// add returns false when x does not continue the run.
func (r *extentRun) add(x block.Extent) bool {
	if r.extent.Length == 0 {
		r.extent = x
		return !x.Compressed
	}
	e := &r.extent
	placed := x.HasOffset || x.Kind == block.Special
	if x.Kind != e.Kind || x.Compressed || x.HasOffset != e.HasOffset || placed && e.Offset+e.Length != x.Offset {
		return false
	}
	e.Length += x.Length
	return true
}

// clip cuts the run to the range asked for.
func (r *extentRun) clip(off guestOff, n int64) block.Extent {
	r.extent.Length = min(r.extent.Length, n)
	return r.extent
}

// A run that has something in it is an answer; what kept it from growing shows
// at the next call.
func (r *extentRun) orMissing(missing hostOff) hostOff {
	if r.extent.Length > 0 {
		return 0
	}
	return missing
}

func (r *extentRun) orError(err error) error {
	if r.extent.Length > 0 {
		return nil
	}
	return err
}

// lookup returns the cached slice and place of the entry for off. The table must
// exist. Needs mu; b is nil if the slice has to be loaded first.
func (d *disk) lookup(off guestOff) (b *cache.Block, at int, slice hostOff, err error) {
	table, err := d.l2Table(off)
	if err != nil || table == 0 {
		return nil, 0, 0, err
	}
	slice, at = d.slicePlace(table, off)
	return d.l2.Get(int64(slice)), at, slice, nil
}
