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
