package storage

// This file is the local file on Windows: NTFS knows sparse files, but a file
// has to be marked as one, and holes come in units of 64 KiB.

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/diskimg/diskimg/block"
	"golang.org/x/sys/windows"
)

const rawDisks = false

var _ block.HolePuncher = (*File)(nil)

// sysOpen opens path so that others may read, write, rename and delete it
// meanwhile, as they may elsewhere.
func sysOpen(path, name string, o FileOptions) (*os.File, error) {
	wide, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	access, how, attrs := uint32(windows.GENERIC_READ), uint32(windows.OPEN_EXISTING), uint32(windows.FILE_ATTRIBUTE_NORMAL)
	if o.Writable {
		access |= windows.GENERIC_WRITE
	}
	switch {
	case o.Create && o.Exclusive:
		how = windows.CREATE_NEW
	case o.Create:
		how = windows.OPEN_ALWAYS
	}
	if o.Sync {
		attrs |= windows.FILE_FLAG_WRITE_THROUGH
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(wide, access, share, nil, how, attrs, 0)
	if err != nil {
		return nil, err
	}
	if o.Create {
		// After this punching gives space back; without it, it writes zeros.
		var n uint32
		_ = windows.DeviceIoControl(h, windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	}
	return os.NewFile(uintptr(h), name), nil
}

// fileID returns the volume's serial number and the file's number on it.
func fileID(osf *os.File, _ fs.FileInfo) (dev, ino uint64, err error) {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(osf.Fd()), &info); err != nil {
		return 0, 0, err
	}
	return uint64(info.VolumeSerialNumber), uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow), nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

func isUnsupported(err error) bool {
	return errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) ||
		errors.Is(err, windows.ERROR_INVALID_PARAMETER)
}

func (f *File) size() (int64, error) { return f.f.Seek(0, io.SeekEnd) }

func (f *File) sync() error { return f.f.Sync() }

// AllocatedSize returns the bytes that the file occupies on disk.
func (f *File) AllocatedSize() (int64, error) {
	var info [24]byte // FILE_STANDARD_INFO, AllocationSize first
	err := f.control(func(fd uintptr) error {
		return windows.GetFileInformationByHandleEx(windows.Handle(fd), windows.FileStandardInfo, &info[0], uint32(len(info)))
	})
	return int64(binary.LittleEndian.Uint64(info[:])), f.fail("stat", err)
}

// ioctl sends a request whose input is a row of 64-bit numbers.
func (f *File) ioctl(code uint32, out []byte, in ...int64) (n uint32, err error) {
	var arg []byte
	for _, v := range in {
		arg = binary.LittleEndian.AppendUint64(arg, uint64(v))
	}
	var to *byte
	if len(out) > 0 {
		to = &out[0]
	}
	err = f.control(func(fd uintptr) error {
		return windows.DeviceIoControl(windows.Handle(fd), code, &arg[0], uint32(len(arg)), to, uint32(len(out)), &n, nil)
	})
	return n, err
}

// PunchHole makes [off, off+n) read as zero and gives its space back where
// the file is sparse. It does not change the length.
func (f *File) PunchHole(off, n int64) error {
	if err := f.mayChange("punch hole", off, n); err != nil || n == 0 {
		return err
	}
	if f.kind != regular || f.can.noPunch.Load() {
		return block.ErrUnsupported
	}
	_, err := f.ioctl(windows.FSCTL_SET_ZERO_DATA, nil, off, off+n)
	if isUnsupported(err) {
		f.can.noPunch.Store(true)
		return block.ErrUnsupported
	}
	return f.fail("punch hole", err)
}

// NextData returns the first run of data at or after off.
func (f *File) NextData(off int64) (start, end int64, err error) {
	size, err := f.Size()
	if err != nil || off >= size || f.can.noSeek.Load() {
		return min(off, size), size, err
	}
	var run [16]byte // FILE_ALLOCATED_RANGE_BUFFER, offset and length
	n, err := f.ioctl(windows.FSCTL_QUERY_ALLOCATED_RANGES, run[:], off, size-off)
	switch {
	case errors.Is(err, windows.ERROR_MORE_DATA):
	case isUnsupported(err):
		f.can.noSeek.Store(true)
		return off, size, nil
	case err != nil:
		return 0, 0, f.fail("seek data", err)
	case n < 16:
		return size, size, nil
	}
	first := int64(binary.LittleEndian.Uint64(run[:8]))
	last := first + int64(binary.LittleEndian.Uint64(run[8:]))
	return max(first, off), min(last, size), nil
}
