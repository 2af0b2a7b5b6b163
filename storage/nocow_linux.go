package storage

import "golang.org/x/sys/unix"

// fsNoCOW is FS_NOCOW_FL of <linux/fs.h>: the flag that chattr calls C.
const fsNoCOW = 0x800000

// NoCopyOnWrite has a file system that never overwrites data (btrfs) overwrite
// that of this file, which has to be empty: images of disks that are written a
// lot stay in one piece. A file system that can't is left to do as it does.
func (f *File) NoCopyOnWrite() error {
	if f.kind != regular {
		return nil
	}
	return f.control(func(fd uintptr) error {
		flags, err := unix.IoctlGetInt(int(fd), unix.FS_IOC_GETFLAGS)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.FS_IOC_SETFLAGS, flags|fsNoCOW)
		}
		if err != nil && !isUnsupported(err) {
			return f.fail("set flags", err)
		}
		return nil
	})
}
