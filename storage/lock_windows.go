package storage

import (
	"errors"

	"golang.org/x/sys/windows"
)

// lockAt is where the one byte that is locked lies: locks on Windows forbid
// reading and writing, so it must be where no file has data.
const lockAt = 1 << 30 // the upper 32 bits of the offset

// changeLock changes the lock of the file. A lock can't be changed in place: a
// change that fails can lose the old one to another process, and says so.
func (f *File) changeLock(from, to LockMode) error {
	had, want := from.coarse(), to.coarse()
	if had == want {
		return nil
	}
	if err := f.unlockByte(had); err != nil {
		return err
	}
	err := f.lockByte(want)
	if err == nil {
		return nil
	}
	if back := f.lockByte(had); back != nil {
		err = errors.Join(err, back)
	}
	return err
}

func (f *File) lockByte(want coarse) error {
	if want == coarseNone {
		return nil
	}
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if want == coarseExclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := f.control(func(fd uintptr) error {
		return windows.LockFileEx(windows.Handle(fd), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: lockAt})
	})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return f.lockedOut(want)
	}
	return f.fail("lock", err)
}

func (f *File) unlockByte(had coarse) error {
	if had == coarseNone {
		return nil
	}
	err := f.control(func(fd uintptr) error {
		return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, &windows.Overlapped{OffsetHigh: lockAt})
	})
	return f.fail("unlock", err)
}
