package qcow2

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cow"
)

// Copy on write: the old bytes around a write that fills new space. No lock is
// held here but the guest range.

// fill writes p at off, and the old bytes of [a.from, a.to) around it, into the
// host clusters of a.
func (d *disk) fill(a *allocation, p []byte, off guestOff) error {
	end := off + guestOff(len(p))
	from, to := a.from, a.to
	if a.run.fresh && d.crypt == nil {
		// Space that was never written reads as zero, so old zeros are there.
		if d.oldIsZero(from, off) {
			from = off
		}
		if d.oldIsZero(end, to) {
			to = end
		}
	}
	return cow.Fill(space{d, a}, p, int64(off), int64(from), int64(to))
}

// space is a cow.Space, the host clusters of an allocation.
type space struct {
	d *disk
	a *allocation
}

func (s space) WriteNew(p []byte, off int64) error {
	return s.d.writeData(p, s.a.host+hostOff(guestOff(off)-s.a.off), guestOff(off))
}

// ReadOld reads guest data as it is now, through the backing chain; past the
// end of the disk there are zeros.
func (s space) ReadOld(p []byte, off int64) error {
	if guestOff(off) >= s.d.vmStateOffset() {
		return s.d.readBehind(p, guestOff(off))
	}
	return s.d.self.ReadZeroFilled(p, off)
}

func (s space) Event(e block.Event) { s.d.event(e) }

// oldIsZero reports whether [from, to) is known to read as zero without looking
// at data.
func (d *disk) oldIsZero(from, to guestOff) bool {
	if from < to && from >= d.vmStateOffset() {
		e, err := d.resolveBehind(from, int64(to-from))
		return err == nil && (e.Kind == block.Zero || e.Kind == block.Below) && e.Length == int64(to-from)
	}
	to = min(to, guestOff(d.Size()))
	if from >= to {
		return true
	}
	e, err := d.self.Locate(int64(from), int64(to-from))
	return err == nil && e.Kind == block.Zero && e.Length == int64(to-from)
}
