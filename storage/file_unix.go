//go:build unix

package storage

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysOpen opens path without waiting for anybody: a FIFO opens at once and is
// refused by its kind.
func sysOpen(path, name string, o FileOptions) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	if o.Writable {
		flags |= unix.O_RDWR
	}
	if o.Create {
		flags |= unix.O_CREAT
	}
	if o.Exclusive {
		flags |= unix.O_EXCL
	}
	if o.Sync {
		flags |= syncFlag
	}
	fd, err := -1, error(nil)
	err = retry(func() error {
		fd, err = unix.Open(path, flags, uint32(o.Mode.Perm()))
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// retry calls until no signal interrupts.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// call makes a system call on the file, until no signal interrupts it.
func (f *File) call(call func(fd int) error) error {
	return f.control(func(fd uintptr) error {
		return retry(func() error { return call(int(fd)) })
	})
}

// fileID returns device and inode; for a device its own number and no inode,
// which no file has.
func fileID(_ *os.File, st fs.FileInfo) (dev, ino uint64, err error) {
	s := st.Sys().(*syscall.Stat_t)
	if st.Mode()&fs.ModeDevice != 0 {
		return uint64(s.Rdev), 0, nil
	}
	return uint64(s.Dev), s.Ino, nil
}

// isNoSpace knows the ways to say that there is no room. EFBIG is a limit of
// the file system or of the process.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// isUnsupported knows the answers of a file system that can't do something.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) ||
		errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

// AllocatedSize returns the bytes that the file occupies on disk, 0 for a
// device.
func (f *File) AllocatedSize() (int64, error) {
	var st unix.Stat_t
	err := f.call(func(fd int) error { return unix.Fstat(fd, &st) })
	return st.Blocks * 512, f.fail("stat", err)
}

// NextData returns the first run of data at or after off. A file system that
// knows no holes has data everywhere.
func (f *File) NextData(off int64) (start, end int64, err error) {
	if f.kind != regular || f.can.noSeek.Load() {
		return f.allData(off)
	}
	start, err = f.seek(off, unix.SEEK_DATA)
	if err == nil {
		end, err = f.seek(start, unix.SEEK_HOLE)
	}
	switch {
	case err == nil:
		return start, end, nil
	case errors.Is(err, unix.ENXIO): // no data from here on
		size, err := f.Size()
		return size, size, err
	case isUnsupported(err) && off >= 0:
		f.can.noSeek.Store(true)
		return f.allData(off)
	}
	return 0, 0, f.fail("seek data", err)
}

// seek moves the file position, which nothing here uses.
func (f *File) seek(off int64, whence int) (pos int64, err error) {
	err = f.call(func(fd int) error {
		pos, err = unix.Seek(fd, off, whence)
		return err
	})
	return pos, err
}

func (f *File) allData(off int64) (start, end int64, err error) {
	size, err := f.Size()
	return min(off, size), size, err
}
