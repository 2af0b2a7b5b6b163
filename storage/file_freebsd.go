package storage

// This file is what FreeBSD does differently: its disks are character devices.

import (
	"io"

	"golang.org/x/sys/unix"
)

const (
	syncFlag = unix.O_SYNC
	rawDisks = true
)

func (f *File) size() (int64, error) {
	if f.kind == regular {
		return f.f.Seek(0, io.SeekEnd)
	}
	var size int
	err := f.call(func(fd int) (err error) {
		size, err = unix.IoctlGetInt(fd, unix.DIOCGMEDIASIZE)
		return err
	})
	return int64(size), err
}

func (f *File) sync() error { return f.f.Sync() }
