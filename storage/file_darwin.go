package storage

// This file is what macOS can do beyond reading and writing.

import (
	"io"

	"github.com/diskimg/diskimg/block"
	"golang.org/x/sys/unix"
)

const (
	syncFlag = unix.O_DSYNC
	rawDisks = false // the block device of a disk is used, not its raw twin
)

var _ block.HolePuncher = (*File)(nil)

// The requests DKIOCGETBLOCKSIZE and DKIOCGETBLOCKCOUNT of <sys/disk.h>.
const (
	getBlockSize  = 0x40046418
	getBlockCount = 0x40086419
)

func (f *File) size() (int64, error) {
	if f.kind == regular {
		return f.f.Seek(0, io.SeekEnd)
	}
	var size, count int
	err := f.call(func(fd int) (err error) {
		if size, err = unix.IoctlGetInt(fd, getBlockSize); err == nil {
			count, err = unix.IoctlGetInt(fd, getBlockCount)
		}
		return err
	})
	return int64(size) * int64(count), err
}

// sync has the drive empty its cache too (F_FULLFSYNC).
func (f *File) sync() error { return f.f.Sync() }

// PunchHole makes [off, off+n) read as zero and gives its space back. APFS can
// do it for whole blocks of the file system, usually 4 KiB.
func (f *File) PunchHole(off, n int64) error {
	if err := f.mayChange("punch hole", off, n); err != nil || n == 0 {
		return err
	}
	if f.kind != regular || f.can.noPunch.Load() {
		return block.ErrUnsupported
	}
	// struct fpunchhole is the beginning of struct fstore: two words that are
	// zero, then offset and length.
	hole := &unix.Fstore_t{Offset: off, Length: n}
	err := f.call(func(fd int) error { return unix.FcntlFstore(uintptr(fd), unix.F_PUNCHHOLE, hole) })
	switch {
	case err == nil:
		return nil
	case err == unix.EINVAL:
		return block.ErrUnsupported
	case isUnsupported(err):
		f.can.noPunch.Store(true)
		return block.ErrUnsupported
	}
	return f.fail("punch hole", err)
}
