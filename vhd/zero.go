package vhd

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Zeros and discards. Blocks are never taken out of the table: what they no
// longer hold can be holes in the file.

// WriteZeroes implements block.Layer.
func (d *disk) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	return d.zeroRange(nil, off, n, flags)
}

func (d *disk) zeroRange(t *task.Task, off, n int64, flags block.ZeroFlags) error {
	for end := off + n; off < end; {
		k, err := d.zeroRun(off, min(end-off, d.restOfBlock(off)), flags)
		if err != nil {
			return err
		}
		if err := t.Step(k); err != nil {
			return err
		}
		off += k
	}
	return nil
}

// zeroRun zeroes the start of a range that lies in one block.
func (d *disk) zeroRun(off, n int64, flags block.ZeroFlags) (int64, error) {
	host, run, err := d.inPlace(off, n)
	if err != nil {
		return 0, err
	}
	if run > 0 {
		return run, zeroFile(d.file, host, run, flags)
	}
	run, err = d.emptyRun(off, n)
	if err != nil || !d.differencing {
		return run, err
	}
	if err := d.relieve(); err != nil {
		return 0, err
	}
	return d.hide(off, run, flags)
}

// emptyRun returns how many of the n bytes from off on, within one block, have
// no bits, at least one sector's.
func (d *disk) emptyRun(off, n int64) (int64, error) {
	e, err := d.Resolve(off, n)
	if err == nil && e.Kind == block.Data {
		e.Length = min(e.Length, sectorSize-off%sectorSize) // somebody has written it meanwhile
	}
	return e.Length, err
}

// hide makes the start of a range, without bits, zero where the parent would
// show. Whole sectors need no writing in new blocks.
func (d *disk) hide(off, n int64, flags block.ZeroFlags) (int64, error) {
	if off%sectorSize != 0 || n < sectorSize {
		n = min(n, sectorSize-off%sectorSize)
		return n, d.writeNew(make([]byte, n), off)
	}
	n -= n % sectorSize
	return n, d.change(off, n, func(host func(int64) int64, _ bool) error {
		return zeroFile(d.file, host(off), n, flags)
	})
}

// zeroFile makes a range of a file read as zero.
func zeroFile(f block.File, off, n int64, flags block.ZeroFlags) error {
	if flags&block.MayUnmap != 0 {
		if err := block.PunchHole(f, off, n); !errors.Is(err, block.ErrUnsupported) {
			return err
		}
	}
	return block.WriteZeroes(f, off, n)
}

// Discard implements block.Layer: what has data becomes zero and a hole in the
// file, all else stays as it is.
func (d *disk) Discard(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	for end := off + n; off < end; {
		k := min(end-off, d.restOfBlock(off))
		host, run, err := d.inPlace(off, k)
		if err == nil && run == 0 {
			run, err = d.emptyRun(off, k)
		} else if err == nil {
			err = punch(d.file, host, run)
		}
		if err != nil {
			return err
		}
		off += run
	}
	return nil
}

// punch is block.PunchHole where there is such a thing.
func punch(f block.File, off, n int64) error {
	if err := block.PunchHole(f, off, n); !errors.Is(err, block.ErrUnsupported) {
		return err
	}
	return nil
}
