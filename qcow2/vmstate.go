package qcow2

import (
	"math"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// The state of a virtual machine lies behind the end of the disk, from the first
// guest offset on that the disk's part of the L1 table does not describe. A
// snapshot that is made with its size takes it along. Facts: qcow2 specification,
// "Snapshots".

// vmStateOffset returns the guest offset at which the state begins.
func (d *disk) vmStateOffset() guestOff {
	return guestOff(int64(d.geo.l1Entries(d.Size())) * d.tableSpan())
}

// WriteVMState implements block.VMStateKeeper.
func (d *disk) WriteVMState(p []byte, off int64) error {
	token := d.enter()
	defer d.leave(token)
	d.event(block.EventVMStateSave)
	at := d.vmStateOffset()
	if err := d.makeStateRoom(at, off, int64(len(p))); err != nil {
		return d.settle(err)
	}
	return d.writeAll(p, at+guestOff(off))
}

// makeStateRoom checks that n bytes can be written at off of the state, which
// begins at base, and makes the L1 table long enough for them. Takes mu.
func (d *disk) makeStateRoom(base guestOff, off, n int64) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case d.external:
		return block.Unsupportedf("an image with an external data file can't hold the state of a machine")
	case off < 0 || off > math.MaxInt64-int64(base)-n:
		return block.Invalidf("state of %d bytes at offset %d does not fit", n, off)
	}
	need := d.geo.l1Entries(int64(base) + off + n)
	if need > maxL1Bytes/8 {
		return block.Errorf(syscall.EFBIG, "state of %d bytes at offset %d needs an L1 table of %d entries, the limit is %d", n, off, need, maxL1Bytes/8)
	}
	if int64(need) <= d.l1Entries() {
		return nil
	}
	return d.flushes.Exclude(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.refusal(); err != nil {
			return err
		}
		return d.growL1(int64(need))
	})
}

// ReadVMState implements block.VMStateKeeper.
func (d *disk) ReadVMState(p []byte, off int64) error {
	base := d.vmStateOffset()
	if off < 0 || off > math.MaxInt64-int64(base)-int64(len(p)) {
		return block.Invalidf("there is no state at offset %d", off)
	}
	token := d.pins.pin()
	defer d.pins.unpin(token)
	d.event(block.EventVMStateLoad)
	return d.readBehind(p, base+guestOff(off))
}

// readBehind reads what lies behind the end of the disk, where nothing is below.
func (d *disk) readBehind(p []byte, off guestOff) error {
	for len(p) > 0 {
		e, err := d.resolveBehind(off, int64(len(p)))
		if err != nil {
			return err
		}
		part := p[:min(e.Length, int64(len(p)))]
		switch e.Kind {
		case block.Data:
			d.event(block.EventReadAIO)
			err = block.ReadFull(e.File, part, e.Offset)
		case block.Special:
			err = d.ReadSpecial(e, part, int64(off))
		default:
			clear(part)
		}
		if err != nil {
			return err
		}
		p, off = p[len(part):], off+guestOff(len(part))
	}
	return nil
}

// resolveBehind is Resolve behind the end of the disk. The L1 table may end
// there, and what it does not describe is zero.
func (d *disk) resolveBehind(off guestOff, n int64) (block.Extent, error) {
	end := d.l1Entries() * d.tableSpan()
	if int64(off) >= end {
		return block.Extent{Start: int64(off), Length: n, Kind: block.Zero}, nil
	}
	return d.Resolve(int64(off), min(n, end-int64(off)))
}
