package qcow2

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
	if from == off && to == end {
		d.event(block.EventWriteAIO)
		return d.writeHost(a, p, off)
	}
	if int64(to-from) > oneWrite {
		return d.fillInParts(a, p, off, from, to)
	}
	buf := cowBuffer(int64(to - from))
	defer cowBuffers.Put(buf)
	b := *buf
	d.event(block.EventCOWRead)
	if err := d.readOld(b[:off-from], from); err != nil {
		return err
	}
	copy(b[off-from:], p)
	if err := d.readOld(b[end-from:], end); err != nil {
		return err
	}
	d.event(block.EventWriteAIO)
	return d.writeHost(a, b, from)
}

// fillInParts is fill for what is too large to be copied.
func (d *disk) fillInParts(a *allocation, p []byte, off, from, to guestOff) error {
	end := off + guestOff(len(p))
	if err := d.copyOld(a, from, off); err != nil {
		return err
	}
	if err := d.copyOld(a, end, to); err != nil {
		return err
	}
	d.event(block.EventWriteAIO)
	return d.writeHost(a, p, off)
}

// copyOld copies [from, to) as it reads now into the host clusters of a.
func (d *disk) copyOld(a *allocation, from, to guestOff) error {
	for from < to {
		n := min(int64(to-from), oneWrite)
		buf := cowBuffer(n)
		d.event(block.EventCOWRead)
		err := d.readOld(*buf, from)
		if err == nil {
			d.event(block.EventCOWWrite)
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
	return d.writeData(p, a.host+hostOff(off-a.off), off)
}

// readOld reads guest data as it is now, through the backing chain; past the
// end of the disk there are zeros.
func (d *disk) readOld(p []byte, off guestOff) error {
	if len(p) == 0 {
		return nil
	}
	if off >= d.vmStateOffset() {
		return d.readBehind(p, off)
	}
	return d.self.ReadZeroFilled(p, int64(off))
}

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
