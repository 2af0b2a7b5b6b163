package qcow2

import (
	"math/bits"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/sectors"
)

// Guest writes. Clusters that are ours alone are written in place. Everything
// else is planned (space found and counted), filled (data and the old bytes
// around it), and published (linked), in that order.

// WriteAt implements block.Layer.
func (d *disk) WriteAt(p []byte, off int64) error {
	if err := d.reclaim(); err != nil {
		return err
	}
	token := d.enter()
	defer d.leave(token)
	if err := d.announceWrite(); err != nil {
		return err
	}
	defer d.markDirty(off, int64(len(p)))
	return d.writeAll(p, guestOff(off))
}

// writeAll writes p at off, within a request.
func (d *disk) writeAll(p []byte, off guestOff) error {
	var next int64
	for len(p) > 0 {
		n, err := d.writeRun(p, off, &next)
		if err != nil {
			return d.settle(err)
		}
		p, off = p[n:], off+guestOff(n)
	}
	return nil
}

// writeRun writes the start of p and returns how much; 0 says that the tables
// have changed and it is to be tried again. New space goes on at the host cluster
// next, if that is free; afterwards next is behind what has been written.
func (d *disk) writeRun(p []byte, off guestOff, next *int64) (int64, error) {
	if d.crypt != nil {
		start := d.sectorEdge(off, 0)
		r := d.sectors.Acquire(int64(start), int64(off-start)+int64(len(p))+sectors.Size)
		defer d.sectors.Release(r)
	}
	host, n, err := d.inPlace(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	if n > 0 && (n >= d.sliceSpan(off) || !d.goesOn(off+guestOff(n), host+hostOff(n), int64(len(p))-n)) {
		*next = int64(host+hostOff(n)) >> d.geo.clusterBits
		d.event(block.EventWriteAIO)
		return n, d.writeData(p[:n], host, off)
	}
	if err := d.relieve(); err != nil {
		return 0, err
	}
	return d.writeNew(p, off, next)
}

// inPlace returns where the run from off on can be written without touching a
// table; n is 0 if its first byte can't.
func (d *disk) inPlace(off guestOff, n int64) (hostOff, int64, error) {
	for {
		d.mu.RLock()
		e, missing, err := d.resolveRun(extentRun{inPlace: true}, off, n)
		if err == nil && missing == 0 && e.Kind == block.Data {
			err = d.mayWriteData(hostOff(e.Offset), e.Length)
		}
		if refusal := d.refusal(); refusal != nil {
			err = refusal
		}
		d.mu.RUnlock()
		if err != nil {
			return 0, 0, err
		}
		if missing == 0 {
			if e.Kind != block.Data {
				return 0, 0, nil
			}
			return hostOff(e.Offset), e.Length, nil
		}
		if err := d.loadSlice(missing); err != nil {
			return 0, 0, err
		}
	}
}

// goesOn reports whether the n bytes from off on begin in space of their own at
// host that only has to be filled: what is before them, in the same L2 slice, is
// better written with them, at once. Takes mu.
func (d *disk) goesOn(off guestOff, host hostOff, n int64) bool {
	if n == 0 || int64(off)&(d.geo.clusterSize-1) != 0 {
		return false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	b, at, _, err := d.lookup(off)
	if err != nil || b == nil {
		return false
	}
	e := d.entryAt(b, at)
	in, err := d.isInPlace(e, off, n)
	return err == nil && !in && d.reusable(e) && e.host() == host
}

// writeNew writes the start of p, up to the end of an L2 slice, where it needs
// space or an entry changed.
func (d *disk) writeNew(p []byte, off guestOff, next *int64) (int64, error) {
	n := min(int64(len(p)), d.sliceSpan(off))
	start, end := d.geo.alignDown(int64(off)), d.geo.alignUp(int64(off)+n)
	r := d.ranges.Acquire(start, end-start)
	defer d.ranges.Release(r)

	a, err := d.plan(off, n, *next)
	if err != nil || a.clusters == 0 {
		return 0, err
	}
	*next = int64(a.host)>>d.geo.clusterBits + a.clusters
	n = min(n, a.end(&d.geo)-int64(off))
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

// sliceSpan returns how many guest bytes lie from off to the end of what the
// L2 slice with its entry describes.
func (d *disk) sliceSpan(off guestOff) int64 {
	span := int64(d.l2.BlockSize()) >> d.geo.entryBits << d.geo.clusterBits
	return span - int64(off)&(span-1)
}

// allocation is a run of guest clusters on their way to a run of host clusters.
type allocation struct {
	off      guestOff // of the first cluster
	clusters int64
	host     hostOff
	run      hostRun // what was newly counted; n is 0 if the space was there

	// The bytes that will be valid in the host clusters, in guest offsets:
	// what is written and what is copied around it.
	from, to guestOff

	// What says zero is to go on saying it, though it gets space.
	keepsZero bool
}

func (a *allocation) end(g *geometry) int64 { return int64(a.off) + a.clusters<<g.clusterBits }

// plan decides where the clusters from off on go, as many as can be treated
// alike, and counts new ones. No clusters: the first can be written in place
// after all. The guest range is locked. Takes mu.
func (d *disk) plan(off guestOff, n, next int64) (allocation, error) {
	for {
		d.mu.Lock()
		a, missing, err := d.planLocked(off, n, next)
		d.mu.Unlock()
		if missing == 0 || err != nil {
			return a, err
		}
		if err := d.loadSlice(missing); err != nil {
			return a, err
		}
	}
}

func (d *disk) planLocked(off guestOff, n, next int64) (a allocation, missing hostOff, err error) {
	if err := d.refusal(); err != nil {
		return a, 0, err
	}
	if err := d.ownTable(off); err != nil {
		return a, 0, err
	}
	b, at, slice, err := d.lookup(off)
	if err != nil || b == nil {
		return a, slice, err
	}
	r, err := d.alike(b, at, off, n)
	if err != nil || r.clusters == 0 {
		return a, 0, err
	}
	a.off, a.clusters = guestOff(d.geo.alignDown(int64(off))), r.clusters
	first := d.entryAt(b, at)
	if err := d.place(&a, first, r.reuse, next); err != nil {
		return allocation{}, 0, err
	}
	last := d.entryAt(b, at+int(a.clusters-1)<<d.geo.entryBits)
	end := min(off+guestOff(n), guestOff(a.end(&d.geo)))
	d.bound(&a, first, last, off, end)
	if r.firstIn {
		a.from = d.sectorEdge(off, a.off)
	}
	if r.lastIn {
		a.to = d.sectorEdge(end, guestOff(a.end(&d.geo)))
	}
	return a, 0, nil
}

// alikeRun is a run of clusters that can be written in one way: to new space, or
// to space that they have in one piece, of which some may be in place already.
type alikeRun struct {
	clusters        int64
	reuse           bool
	firstIn, lastIn bool // the first and the last cluster are in place
}

// alike returns the run of clusters from off on, whose entry stands at byte at of
// slice b; none if all can be written in place.
func (d *disk) alike(b *cache.Block, at int, off guestOff, n int64) (r alikeRun, err error) {
	first := d.entryAt(b, at)
	r.reuse = d.reusable(first)
	changes := false
	for from, end := off, off+guestOff(n); from < end; r.clusters++ {
		e := d.entryAt(b, at+int(r.clusters)<<d.geo.entryBits)
		in, err := d.isInPlace(e, from, int64(end-from))
		if err != nil {
			return alikeRun{}, err
		}
		if in && !r.reuse || d.reusable(e) != r.reuse || r.reuse && e.host() != first.host()+hostOff(r.clusters<<d.geo.clusterBits) {
			break
		}
		r.firstIn, r.lastIn = r.firstIn || in && from == off, in
		changes = changes || !in
		from = guestOff(d.geo.alignDown(int64(from)) + d.geo.clusterSize)
	}
	if !changes {
		return alikeRun{}, nil
	}
	return r, nil
}

// isInPlace reports whether the bytes of [off, off+n) that lie in off's cluster
// can be written without a change of its entry.
func (d *disk) isInPlace(e l2Entry, off guestOff, n int64) (bool, error) {
	end := min(off+guestOff(n), guestOff(d.geo.alignDown(int64(off))+d.geo.clusterSize))
	for off < end {
		unit, stop := d.unitAt(e, off)
		s, err := d.state(e, unit, off)
		if err != nil && d.misplaced(e) {
			return false, d.misplacedData(e, off, err)
		}
		if err != nil {
			return false, d.damagedEntry(e, off, err)
		}
		if s != normal || !d.exclusive(e) {
			return false, nil
		}
		off = stop
	}
	return true, nil
}

// exclusive reports whether the entry's cluster may be written in place.
func (d *disk) exclusive(e l2Entry) bool { return e.copied() || d.external }

// reusable reports whether the entry has space of its own that only has to be
// filled.
func (d *disk) reusable(e l2Entry) bool {
	if d.external {
		return false // space is where the guest's offset is; see place
	}
	return !e.compressed() && e.host() != 0 && e.copied()
}

// place finds the host clusters of a. In an external data file they are where
// the guest's are; nothing is counted there.
func (d *disk) place(a *allocation, first l2Entry, reuse bool, next int64) (err error) {
	switch {
	case d.external:
		a.host = hostOff(a.off)
	case reuse:
		a.host = first.host()
		return d.mayWriteData(a.host, a.clusters<<d.geo.clusterBits)
	default:
		if a.run, err = d.allocNext(next, a.clusters); err != nil {
			return err
		}
		a.host, a.clusters = a.run.off(&d.geo), a.run.n
	}
	return nil
}

// bound sets what has to be filled for a write of [off, end): whole clusters, or
// with extended L2 entries whole subclusters where that is enough. In new space
// that is from the first to the last that has data or gets some.
func (d *disk) bound(a *allocation, first, last l2Entry, off, end guestOff) {
	stop := guestOff(a.end(&d.geo))
	a.from, a.to = a.off, stop
	if !d.geo.extended {
		return
	}
	down, up := off&^(1<<d.geo.unitBits-1), (end+1<<d.geo.unitBits-1)&^(1<<d.geo.unitBits-1)
	if data := uint32(first.bitmap); !first.compressed() && a.run.n > 0 {
		a.from = min(down, a.off+guestOff(bits.TrailingZeros32(data))<<d.geo.unitBits)
	} else if !first.compressed() {
		a.from = d.edge(first, off, down)
	}
	if data := uint32(last.bitmap); !last.compressed() && a.run.n > 0 {
		a.to = max(up, stop-guestOff(bits.LeadingZeros32(data))<<d.geo.unitBits)
	} else if !last.compressed() {
		a.to = d.edge(last, end, up)
	}
}

// edge returns where filling has to begin or end, given where the write does
// and the end of its subcluster on that side. A subcluster that has its data in
// this place already needs nothing around the write.
func (d *disk) edge(e l2Entry, at, outer guestOff) guestOff {
	inside := min(at, outer)
	unit := uint(int64(inside)&(d.geo.clusterSize-1)) >> d.geo.unitBits
	if at != outer && e.bitmap>>unit&1 != 0 {
		return d.sectorEdge(at, outer)
	}
	return outer
}

// publish links the clusters of a and gives up what was linked before. After
// their data is in the file, that is; and it gets to the disk before the links
// do, see writeBatch. Takes mu.
func (d *disk) publish(a *allocation) error {
	for {
		d.mu.Lock()
		b, at, slice, err := d.lookup(a.off)
		if err == nil && d.broken != nil {
			err = d.broken
		}
		if err == nil && b != nil {
			err = d.linkAll(a, b, at)
		}
		d.mu.Unlock()
		if b != nil || err != nil {
			return err
		}
		if err := d.loadSlice(slice); err != nil {
			return err
		}
	}
}

// linkAll links the clusters of a in the slice b, from at on, if what they
// replace may be given up. Needs mu exclusively.
func (d *disk) linkAll(a *allocation, b *cache.Block, at int) error {
	if a.run.n > 0 {
		if err := d.mayReplace(b, at, a.clusters); err != nil {
			return err
		}
	}
	for i := range a.clusters {
		d.link(a, i, b, at+int(i)<<d.geo.entryBits)
	}
	return nil
}

// undo takes the space of a back that was to be linked and was not. Takes mu.
func (d *disk) undo(a *allocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		d.unalloc(a.run)
	}
}
