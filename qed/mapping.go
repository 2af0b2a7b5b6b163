package qed

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
		e, missing, err := d.resolveRun(guestOff(off), n)
		d.mu.RUnlock()
		if missing == 0 || err != nil {
			return e, err
		}
		if err := d.loadSlice(missing); err != nil {
			return e, err
		}
	}
}

// maxWalk bounds how many L2 slices one lookup passes over under the lock.
const maxWalk = 64

// resolveRun is Resolve under mu. It returns the slice that it would need if
// the very first one is not cached.
func (d *disk) resolveRun(off guestOff, n int64) (run block.Extent, missing hostOff, err error) {
	pos, end := off, off+guestOff(n)
	for range maxWalk {
		more := false
		table, err := d.l2Table(pos)
		switch {
		case err != nil:
			return run, 0, onlyFirst(run, err)
		case table == 0:
			more = addTo(&run, block.Extent{Start: int64(pos), Length: d.tableSpan(pos), Kind: block.Below})
		default:
			slice, at := d.slicePlace(table, pos)
			b := d.l2.Get(int64(slice))
			if b == nil {
				if run.Length > 0 {
					slice = 0
				}
				return clip(run, n), slice, nil
			}
			if more, err = d.walkSlice(&run, b, at, pos, end); err != nil {
				return clip(run, n), 0, onlyFirst(run, err)
			}
		}
		if pos = guestOff(run.Start + run.Length); !more || pos >= end {
			break
		}
	}
	return clip(run, n), 0, nil
}

// A run that has something in it is an answer; what kept it from growing shows
// at the next call.
func onlyFirst(run block.Extent, err error) error {
	if run.Length > 0 {
		return nil
	}
	return err
}

func clip(run block.Extent, n int64) block.Extent {
	run.Length = min(run.Length, n)
	return run
}

// tableSpan returns how many guest bytes lie from off to the end of what its
// L2 table maps.
func (d *disk) tableSpan(off guestOff) int64 {
	span := int64(1) << (d.geo.clusterBits + d.geo.entryBits)
	return span - int64(off)&(span-1)
}

// walkSlice adds the clusters from off on that stand in b. It returns whether
// the run may go on behind them.
func (d *disk) walkSlice(run *block.Extent, b *cache.Block, at int, off, end guestOff) (more bool, err error) {
	for ; at < len(b.Data) && off < end; at += 8 {
		next := guestOff(d.geo.alignDown(int64(off)) + d.geo.clusterSize)
		e, err := d.extentOf(entryAt(b, at), off, next)
		if err != nil || !addTo(run, e) {
			return false, err
		}
		off = next
	}
	return true, nil
}

// extentOf describes [off, next), which lies in one cluster, by its L2 entry.
func (d *disk) extentOf(entry uint64, off, next guestOff) (block.Extent, error) {
	e := block.Extent{Start: int64(off), Length: int64(next - off), Kind: block.Below}
	switch {
	case entry == 0:
		return e, nil
	case entry == zeroCluster:
		e.Kind, e.Allocated = block.Zero, true
		return e, nil
	case !d.geo.inFile(entry, d.geo.clusterSize, d.fileEnd):
		return e, block.Corruptf("QED data cluster offset %#x for guest offset %#x is invalid", entry, d.geo.alignDown(int64(off)))
	}
	e.Kind, e.Allocated, e.HasOffset = block.Data, true, true
	e.File, e.Offset = d.file, int64(entry)+int64(off)&(d.geo.clusterSize-1)
	return e, nil
}

// addTo returns false when e does not continue the run.
func addTo(run *block.Extent, e block.Extent) bool {
	if run.Length == 0 {
		*run = e
		return true
	}
	if e.Kind != run.Kind || e.HasOffset && run.Offset+run.Length != e.Offset {
		return false
	}
	run.Length += e.Length
	return true
}
