package qcow2

import "github.com/diskimg/diskimg/internal/cache"

// What an L2 entry becomes when data has been placed in its cluster, with and
// without subclusters.

// link sets the entry of the i-th cluster of a.
func (d *disk) link(a *allocation, i int64, b *cache.Block, at int) {
	old := d.entryAt(b, at)
	host := a.host + hostOff(i<<d.geo.clusterBits)
	e := l2Entry{desc: uint64(host) | flagCopied}
	if d.geo.extended {
		e.bitmap = d.linkedBitmap(a, i, old)
	} else if a.from == a.to && (d.zeroPlaces() || a.keepsZero && old.desc&flagZero != 0) {
		e.desc |= flagZero
	}
	d.setLink(b, at, e)
	if a.run.n > 0 {
		d.releaseEntry(old)
	}
}

// linkedBitmap returns the subcluster bitmap of the i-th cluster of a after the
// units of [a.from, a.to) have been filled.
func (d *disk) linkedBitmap(a *allocation, i int64, old l2Entry) uint64 {
	start := a.off + guestOff(i<<d.geo.clusterBits)
	end := start + guestOff(d.geo.clusterSize)
	from, to := max(a.from, start), min(a.to, end)
	if from >= to && (a.keepsZero || d.crypt != nil) {
		return old.bitmap
	}
	if from >= to {
		return old.bitmap&allAllocated | old.bitmap>>32 // the space reads as zero, too
	}
	// An edge within a subcluster is one whose data was there before.
	filled := unitMask(uint((from-start)>>d.geo.unitBits), uint((to-start+1<<d.geo.unitBits-1)>>d.geo.unitBits))
	if old.compressed() {
		return filled
	}
	return (old.bitmap | filled) &^ (filled << 32)
}
