//go:build unix && !linux

package storage

import (
	"errors"

	"golang.org/x/sys/unix"
)

// changeLock changes the flock of the file. A change that fails can lose the
// lock that was held to another process; it is then reported as such.
func (f *File) changeLock(from, to LockMode) error {
	had, want := from.coarse(), to.coarse()
	if had == want {
		return nil
	}
	err := f.flock(want)
	if err == nil {
		return nil
	}
	if back := f.flock(had); back != nil {
		err = errors.Join(err, back)
	}
	return err
}

func (f *File) flock(want coarse) error {
	how := map[coarse]int{coarseNone: unix.LOCK_UN, coarseShared: unix.LOCK_SH, coarseExclusive: unix.LOCK_EX}[want]
	err := f.call(func(fd int) error { return unix.Flock(fd, how|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return f.lockedOut(want)
	}
	return f.fail("lock", err)
}
