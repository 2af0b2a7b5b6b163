package storage

// This file places the locks where QEMU looks for them: open file description
// locks on single bytes, all of them read locks, which do not exclude each
// other. Exclusion comes from asking who else holds which byte.

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	usedAt     = 100 // + permission: "I use it"
	unsharedAt = 200 // + permission: "nobody else may use it"
)

// lockBytes is a set of bytes of the file: bit i stands for usedAt+i, bit
// permCount+i for unsharedAt+i.
type lockBytes uint

func (m LockMode) bytes() lockBytes {
	return lockBytes(m.Use) | lockBytes(AllPerms&^m.Share)<<permCount
}

func (b lockBytes) offset(bit int) int64 {
	if bit >= permCount {
		return unsharedAt + int64(bit-permCount)
	}
	return usedAt + int64(bit)
}

// each calls for every byte of the set until one call fails.
func (b lockBytes) each(call func(bit int, off int64) error) error {
	for bit := range 2 * permCount {
		if b&(1<<bit) == 0 {
			continue
		}
		if err := call(bit, b.offset(bit)); err != nil {
			return err
		}
	}
	return nil
}

// changeLock places what to needs on top of what from has, looks for others in
// the way, and then takes away what to does not need, or undoes all.
func (f *File) changeLock(from, to LockMode) error {
	have, want := from.bytes(), to.bytes()
	err := f.placeLocks(want &^ have)
	if err == nil {
		err = f.testLocks(to)
	}
	if err == nil {
		return f.dropLocks(have &^ want)
	}
	if undo := f.dropLocks(want &^ have); undo != nil {
		err = errors.Join(err, undo)
	}
	return err
}

func (f *File) placeLocks(b lockBytes) error {
	return b.each(func(bit int, off int64) error {
		err := f.fcntlLock(unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: off, Len: 1})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			// A write lock, which is not QEMU's way: somebody wants it all.
			return &LockError{Perm: 1 << (bit % permCount), Shared: bit >= permCount, Path: f.name}
		}
		return f.lockFailed(err, off)
	})
}

func (f *File) dropLocks(b lockBytes) error {
	return b.each(func(_ int, off int64) error {
		return f.lockFailed(f.fcntlLock(unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: off, Len: 1}), off)
	})
}

// testLocks looks first whether all that is to be used is shared by others,
// then whether others use what is not shared: the two halves of the bytes,
// crosswise.
func (f *File) testLocks(m LockMode) error {
	others := lockBytes(m.Use)<<permCount | lockBytes(AllPerms&^m.Share)
	unshared := others &^ lockBytes(AllPerms)
	if err := f.testBytes(unshared); err != nil {
		return err
	}
	return f.testBytes(others &^ unshared)
}

func (f *File) testBytes(b lockBytes) error {
	return b.each(func(bit int, off int64) error {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: 1}
		if err := f.fcntlLock(unix.F_OFD_GETLK, &l); err != nil {
			return f.lockFailed(err, off)
		}
		if l.Type != unix.F_UNLCK {
			return &LockError{Perm: 1 << (bit % permCount), Shared: bit < permCount, Path: f.name}
		}
		return nil
	})
}

func (f *File) fcntlLock(cmd int, l *unix.Flock_t) error {
	return f.call(func(fd int) error { return unix.FcntlFlock(uintptr(fd), cmd, l) })
}

func (f *File) lockFailed(err error, off int64) error {
	if err == nil {
		return nil
	}
	return f.fail("lock", fmt.Errorf("byte %d: %w", off, err))
}
