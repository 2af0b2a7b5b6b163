package qcow2

import (
	"cmp"
	"errors"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// What becomes of space that is given up: it can be used again, and it may go
// back to the file system.

// DiscardOptions say what becomes of space that is given up. The zero value does
// as QEMU's programs do.
type DiscardOptions struct {
	// Ignore leaves everything as it is that the guest discards.
	Ignore bool
	// KeepRequested, KeepSnapshots and PassOther say what is not to go back to
	// the file system of what the guest has discarded and of what deleted
	// snapshots had, which does else, and that all the rest is to, which does
	// not else.
	KeepRequested, KeepSnapshots, PassOther bool
}

// cause is why space is given up.
type cause uint8

const (
	byOther    cause = iota // it was written over, or held tables
	byRequest               // the guest has discarded it
	bySnapshot              // it belonged to a snapshot
	byResize                // it lay behind the end of the disk
)

// passes reports whether space that is given up for a cause goes back to the file
// system.
func (o *DiscardOptions) passes(c cause) bool {
	switch c {
	case byRequest:
		return !o.KeepRequested
	case bySnapshot:
		return !o.KeepSnapshots
	case byOther:
		return o.PassOther
	}
	return true
}

// giveUpFor has f give up space for a cause. Needs mu exclusively.
func (d *disk) giveUpFor(c cause, f func()) {
	was := d.cause
	d.cause = c
	f()
	d.cause = was
}

// because has what is given up from now on be given up for a cause, until it is
// called again. Takes mu; the image has to be alone.
func (d *disk) because(c cause) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cause = c
}

// punchable reports whether what is discarded has only to be punched out of the
// data file: a raw one is the disk, and entries lead there as before.
func (d *disk) punchable() bool {
	return d.hdr.autoclear&autoclearRawData != 0 && d.crypt == nil && !d.discards.KeepRequested
}

// punchRaw makes holes in a raw data file of the whole clusters of a range, and
// calls rest for its edges; for all of it if that can't be.
func (d *disk) punchRaw(off, n int64, rest func(from, to guestOff) error) error {
	start, end := d.wholeInside(off, off+n)
	if start == end {
		return rest(guestOff(off), guestOff(off+n))
	}
	r := d.ranges.Acquire(start, end-start)
	err := block.PunchHole(d.data, start, end-start)
	d.ranges.Release(r)
	if errors.Is(err, block.ErrUnsupported) {
		return rest(guestOff(off), guestOff(off+n))
	}
	if err == nil {
		err = rest(guestOff(off), guestOff(start))
	}
	if err == nil {
		err = rest(guestOff(end), guestOff(off+n))
	}
	return err
}

// punchUnplaced gives the space back that an external data file has for the
// clusters of a range that say zero and no place. The range is locked: nobody
// else can be about to write there what will be seen. It need not wait for the
// entries to be on disk, since what they lead to now is to be zero. A hole is not
// zero where data is encrypted: there the space stays.
func (d *disk) punchUnplaced(off, end int64) error {
	d.mu.RLock()
	passes := d.crypt == nil && d.discards.passes(max(d.cause, byRequest))
	d.mu.RUnlock()
	for passes && off < end {
		e, err := d.Resolve(off, end-off)
		if err == nil && e.Kind == block.Zero && !e.HasOffset {
			if start, stop := d.wholeInside(e.Start, e.End()); start < stop {
				err = block.PunchHole(d.data, start, stop-start)
			}
		}
		if errors.Is(err, block.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		off = e.End()
	}
	return nil
}

// wholeInside returns the part of [off, end) that consists of whole clusters, the
// last of which may be cut off by the end of the disk.
func (d *disk) wholeInside(off, end int64) (start, stop int64) {
	start, stop = d.geo.alignUp(off), d.geo.alignDown(end)
	if end == d.Size() {
		stop = end
	}
	return start, max(start, stop)
}

// punch gives space that has become free back to the file system, neighbours at
// once. After the links to it are gone from the disk, and before it can be used
// again: mu is held exclusively. What can't be given back is free all the same.
func (d *disk) punch() {
	holes := d.holes
	d.holes = nil
	slices.SortFunc(holes, func(a, b hostRun) int { return cmp.Compare(a.start, b.start) })
	for len(holes) > 0 {
		r := holes[0]
		for holes = holes[1:]; len(holes) > 0 && holes[0].start <= r.start+r.n; holes = holes[1:] {
			r.n = max(r.n, holes[0].start+holes[0].n-r.start)
		}
		err := block.PunchHole(d.file, int64(r.off(&d.geo)), r.n<<d.geo.clusterBits)
		if errors.Is(err, block.ErrUnsupported) {
			return
		}
	}
}
