package vhd

import "github.com/diskimg/diskimg/block"

// Repair: footers from each other, and the end of the file where the last block
// ends. Where a block should have been nobody can tell.

// repair mends what it may and can. Needs mu.
func (k *checker) repair() error {
	s := k.footers
	if k.o.FixCorruptions && s.first == nil {
		if _, err := k.d.file.WriteAt(s.last.encode(), 0); err != nil {
			return k.d.poison(err)
		}
		k.res.CorruptionsFixed++
	}
	if k.o.FixCorruptions && s.first != nil && s.hasTail && (s.last == nil || s.last.raw != s.first.raw) {
		if err := k.d.putTail(k.d.end); err != nil {
			return err
		}
		k.res.CorruptionsFixed++
	}
	if !k.o.FixLeaks || k.res.Corruptions > k.res.CorruptionsFixed {
		return k.d.syncMended(k.res)
	}
	if err := k.repairEnd(); err != nil {
		return err
	}
	return k.d.syncMended(k.res)
}

// repairEnd gives back what nothing names at the end, and writes the footer if
// it is missing there.
func (k *checker) repairEnd() error {
	d := k.d
	if k.footers.last == nil && !k.footers.hasTail {
		if err := d.putTail(d.end); err != nil {
			return err
		}
		k.res.LeaksFixed++
	}
	if k.unnamed < d.span() {
		return nil
	}
	if err := d.trim(d.contentEnd()); err != nil {
		return err
	}
	k.res.LeaksFixed++
	return nil
}

// putTail writes the footer at a place. Needs mu.
func (d *disk) putTail(at int64) error {
	if _, err := d.file.WriteAt(d.foot.encode(), at); err != nil {
		return d.poison(err)
	}
	d.tailDirty = false
	return nil
}

func (d *disk) syncMended(r block.CheckResult) error {
	if r.LeaksFixed+r.CorruptionsFixed == 0 {
		return nil
	}
	if err := d.sync(); err != nil {
		return d.poison(err)
	}
	return nil
}

// poison notes a failure after which it is not known what is on disk. Needs mu.
func (d *disk) poison(err error) error {
	if d.broken == nil {
		d.broken = block.Errorf(block.ErrBroken, "the image can't be written any more: %w", err)
	}
	return d.broken
}
