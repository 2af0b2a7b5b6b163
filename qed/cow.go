package qed

import (
	"sync"

	"github.com/diskimg/diskimg/block"
)

// Copy on write: the old bytes around a write that fills new space. No lock is
// held here but the guest range.

// oneWrite is up to which size old and new bytes are put together in memory, to
// be written at once.
const oneWrite = 256 << 10

var cowBuffers = sync.Pool{New: func() any { return new([]byte) }}

// cowBuffer returns a buffer of n bytes with anything in it.
func cowBuffer(n int64) *[]byte {
	b := cowBuffers.Get().(*[]byte)
	if int64(cap(*b)) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

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
	if from == off && to == end {
		return d.writeHost(a, p, off)
	}
	if int64(to-from) > oneWrite {
		return d.fillInParts(a, p, off, from, to)
	}
	buf := cowBuffer(int64(to - from))
	defer cowBuffers.Put(buf)
	b := *buf
	if err := d.readOld(b[:off-from], from); err != nil {
		return err
	}
	copy(b[off-from:], p)
	if err := d.readOld(b[end-from:], end); err != nil {
		return err
	}
	return d.writeHost(a, b, from)
}

// fillInParts is fill for what is too large to be copied.
func (d *disk) fillInParts(a *allocation, p []byte, off, from, to guestOff) error {
	if err := d.copyOld(a, from, off); err != nil {
		return err
	}
	if err := d.copyOld(a, off+guestOff(len(p)), to); err != nil {
		return err
	}
	return d.writeHost(a, p, off)
}

// copyOld copies [from, to) as it reads now into the host clusters of a.
func (d *disk) copyOld(a *allocation, from, to guestOff) error {
	for from < to {
		n := min(int64(to-from), oneWrite)
		buf := cowBuffer(n)
		err := d.readOld(*buf, from)
		if err == nil {
			err = d.writeHost(a, *buf, from)
		}
		cowBuffers.Put(buf)
		if err != nil {
			return err
		}
		from += guestOff(n)
	}
	return nil
}

func (d *disk) writeHost(a *allocation, p []byte, off guestOff) error {
	_, err := d.file.WriteAt(p, int64(a.host)+int64(off-a.off))
	a.full = a.full || err == nil && off+guestOff(len(p)) == a.end()
	return err
}

// readOld reads guest data as it is now, through the backing chain; past the
// end of the disk there are zeros.
func (d *disk) readOld(p []byte, off guestOff) error {
	if len(p) == 0 {
		return nil
	}
	return d.self.ReadZeroFilled(p, int64(off))
}

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
