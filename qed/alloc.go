package qed

import "github.com/diskimg/diskimg/block"

// The allocator: clusters are taken at the end of the file and not given back.

// alloc takes n bytes, whole clusters, at the end of the file, which grows when
// they are written. What is not written of them reads as zero. Needs mu
// exclusively.
func (d *disk) alloc(n int64) (hostOff, error) {
	// Before the file grows, the need check bit must be on disk.
	if err := d.needCheck(); err != nil {
		return 0, err
	}
	if err := d.cutTail(); err != nil {
		return 0, err
	}
	off := d.fileEnd
	if int64(off) > maxSize-n {
		return 0, block.Errorf(block.ErrNoSpace, "the image file can't be longer than %d bytes", int64(maxSize))
	}
	d.fileEnd = off + hostOff(n)
	return off, nil
}

// reach makes sure that the file goes on to end, of what alloc returned. Needs mu
// exclusively.
func (d *disk) reach(end hostOff) error {
	if d.length >= end {
		return nil
	}
	// All that is written lies below fileEnd, so this never cuts anything off.
	if err := d.file.Truncate(int64(d.fileEnd)); err != nil {
		return err
	}
	d.length = d.fileEnd
	return nil
}

// unalloc gives back what alloc returned, if it is still the last in the file;
// otherwise it is leaked. Needs mu exclusively.
func (d *disk) unalloc(off hostOff, n int64) {
	if d.fileEnd != off+hostOff(n) || d.broken != nil {
		return
	}
	// If the bytes stay they are leaked, and not used as if they were zero.
	if d.file.Truncate(int64(off)) == nil {
		d.fileEnd, d.length = off, off
	}
}

// cutTail takes away what lies behind the last whole cluster. Nothing refers to
// it, and "extra information after the last cluster may not be preserved if
// data is written". Needs mu exclusively.
func (d *disk) cutTail() error {
	if !d.tail {
		return nil
	}
	err := d.file.Truncate(int64(d.fileEnd))
	d.tail = err != nil
	return err
}
