package qed

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cow"
)

// Copy on write: the old bytes around a write that fills new space. No lock is
// held here but the guest range.

// fill writes p at off, and the old bytes around it, into the host clusters of
// a. They read as zero, so old zeros are there.
func (d *disk) fill(a *allocation, p []byte, off guestOff) error {
	from, to, end := a.off, a.end(), off+guestOff(len(p))
	if d.oldIsZero(from, off) {
		from = off
	}
	if d.oldIsZero(end, to) {
		to = end
	}
	return cow.Fill(space{d, a}, p, int64(off), int64(from), int64(to))
}

// space is a cow.Space, the host clusters of an allocation.
type space struct {
	d *disk
	a *allocation
}

func (s space) WriteNew(p []byte, off int64) error {
	_, err := s.d.file.WriteAt(p, int64(s.a.host)+off-int64(s.a.off))
	s.a.full = s.a.full || err == nil && off+int64(len(p)) == int64(s.a.end())
	return err
}

// ReadOld reads guest data as it is now, through the backing chain; past the
// end of the disk there are zeros.
func (s space) ReadOld(p []byte, off int64) error { return s.d.self.ReadZeroFilled(p, off) }

func (s space) Event(block.Event) {}

// oldIsZero reports whether [from, to) is known to read as zero without looking
// at data.
func (d *disk) oldIsZero(from, to guestOff) bool {
	to = min(to, guestOff(d.Size()))
	if from >= to {
		return true
	}
	e, err := d.self.Locate(int64(from), int64(to-from))
	return err == nil && e.Kind == block.Zero && e.Length == int64(to-from)
}
