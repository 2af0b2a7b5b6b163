// Package prealloc takes space in files before there is anything to put there.
package prealloc

import (
	"errors"
	"io"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Take has [off, off+n) of f take up the space that a mode of preallocation asks
// for, at most its end the end of f. What was there reads as it did, or as zero with
// PreallocFull, and where f can't reserve space with PreallocFalloc. The steps of t
// are bytes.
func Take(t *task.Task, f block.File, off, n int64, mode block.Preallocation) error {
	switch mode {
	case block.PreallocFalloc:
		if r, ok := f.(block.Reserver); ok {
			if err := r.Reserve(off, n); !errors.Is(err, block.ErrUnsupported) {
				return errors.Join(err, t.Step(n))
			}
		}
		return Zeros(t, f, off, n)
	case block.PreallocFull:
		return Zeros(t, f, off, n)
	}
	return nil
}

// zeros is what is written at a time. Nobody writes to it.
var zeros [1 << 20]byte

// Zeros writes zeros as data, where a file may know a cheaper way that does not
// touch the medium. The steps of t are bytes.
func Zeros(t *task.Task, f io.WriterAt, off, n int64) error {
	for end := off + n; off < end; {
		k, err := f.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err == nil {
			err = t.Step(int64(k))
		}
		if err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}
