package storage

// This file is what Linux can do beyond reading and writing, on regular files
// and on block devices: the calls are the same for both.

import (
	"errors"
	"io"

	"github.com/diskimg/diskimg/block"
	"golang.org/x/sys/unix"
)

const (
	syncFlag = unix.O_DSYNC
	rawDisks = false // disks are block devices
)

var (
	_ block.HolePuncher = (*File)(nil)
	_ block.ZeroWriter  = (*File)(nil)
	_ block.Reserver    = (*File)(nil)
	_ block.RangeCopier = (*File)(nil)
	_ block.Writeback   = (*File)(nil)
)

func (f *File) size() (int64, error) { return f.f.Seek(0, io.SeekEnd) }

// sync writes the data and as much of the metadata as is needed to read it
// back: the length is part of that.
func (f *File) sync() error { return f.call(unix.Fdatasync) }

func (f *File) fallocate(mode uint32, off, n int64) error {
	return f.call(func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

// PunchHole makes [off, off+n) read as zero and gives its space back, on a
// device only if the device promises the zeros.
func (f *File) PunchHole(off, n int64) error {
	if err := f.mayChange("punch hole", off, n); err != nil || n == 0 {
		return err
	}
	if f.kind == sink || f.can.noPunch.Load() {
		return block.ErrUnsupported
	}
	err := f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	return f.answer("punch hole", err, &f.can.noPunch)
}

// WriteZeroes makes [off, off+n) read as zero and be allocated.
func (f *File) WriteZeroes(off, n int64) error {
	if err := f.mayChange("write zeroes", off, n); err != nil || n == 0 {
		return err
	}
	if f.kind == sink || f.can.noZero.Load() {
		return block.ErrUnsupported
	}
	if f.kind == device {
		if err := f.mustFit("write zeroes", off+n); err != nil {
			return err
		}
	}
	err := f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
	return f.answer("write zeroes", err, &f.can.noZero)
}

// Reserve allocates [off, off+n) and keeps what is in it. A device has all its
// space already.
func (f *File) Reserve(off, n int64) error {
	if err := f.mayChange("reserve", off, n); err != nil || n == 0 {
		return err
	}
	switch {
	case f.kind == device:
		return f.mustFit("reserve", off+n)
	case f.kind == sink || f.can.noReserve.Load():
		return block.ErrUnsupported
	}
	return f.answer("reserve", f.fallocate(0, off, n), &f.can.noReserve)
}

// answer turns "can't" into ErrUnsupported. It is remembered only if the file
// system says so: EINVAL may be about one range, such as one that does not lie
// on the sectors of a device.
func (f *File) answer(op string, err error, never interface{ Store(bool) }) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL):
		return block.ErrUnsupported
	case isUnsupported(err):
		never.Store(true)
		return block.ErrUnsupported
	}
	return f.fail(op, err)
}

// CopyFrom copies n bytes of src at srcOff to off within the kernel, sharing
// the space of the two files where the file system can. It may stop early
// without an error: then the rest is to be copied some other way.
func (f *File) CopyFrom(src block.File, srcOff, off, n int64) (int64, error) {
	if err := f.mayChange("copy", off, n); err != nil {
		return 0, err
	}
	from, ok := src.(*File)
	if !ok || f.kind == sink || from.kind == sink {
		return 0, block.ErrUnsupported
	}
	var done int64
	for done < n {
		k, err := f.copyRange(from, srcOff+done, off+done, n-done)
		done += int64(k)
		switch {
		case err == nil && k > 0:
		case err != nil && !cantCopy(err):
			return done, f.fail("copy", err)
		case done == 0:
			return 0, block.ErrUnsupported
		default:
			return done, nil
		}
	}
	return done, nil
}

func (f *File) copyRange(from *File, srcOff, off, n int64) (k int, err error) {
	length := int(min(n, 1<<30))
	err = from.control(func(src uintptr) error {
		return f.call(func(dst int) error {
			k, err = unix.CopyFileRange(int(src), &srcOff, dst, &off, length, 0)
			return err
		})
	})
	return max(k, 0), err
}

// cantCopy knows the answers of a kernel or a pair of files that can't do
// copy_file_range. Reading and writing gives the true error, if there is one.
func cantCopy(err error) bool {
	return isUnsupported(err) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ETXTBSY)
}

// StartWriteback asks the kernel to begin writing [off, off+n) and does not
// wait for it. It makes nothing durable.
func (f *File) StartWriteback(off, n int64) {
	if f.writable && f.kind != sink && off >= 0 && n > 0 {
		// Before this can fail to write, a later Sync fails and says so.
		_ = f.call(func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
	}
}
