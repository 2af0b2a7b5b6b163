//go:build !linux

package storage

// This file is what locks come down to where a file has one lock only: a
// writer excludes everybody, readers who mind writers exclude writers.

// coarse is how a LockMode is kept where a file has one lock only.
type coarse uint8

const (
	coarseNone coarse = iota
	coarseShared
	coarseExclusive
)

func (m LockMode) coarse() coarse {
	switch {
	case m.Use&(Write|Resize) != 0:
		return coarseExclusive
	case m.Share&Write == 0:
		return coarseShared
	}
	return coarseNone
}

// lockedOut is the error of who could not get the one lock of a file.
func (f *File) lockedOut(want coarse) error {
	return &LockError{Perm: Write, Shared: want == coarseShared, Path: f.name}
}
