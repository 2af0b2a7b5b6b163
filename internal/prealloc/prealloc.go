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

// most is how many bytes are written at a time.
const most = 1 << 20

// Zeros writes zeros as data, where a file may know a cheaper way that does not
// touch the medium. The steps of t are bytes.
func Zeros(t *task.Task, f io.WriterAt, off, n int64) error {
	zeros := make([]byte, min(n, most))
	for end := off + n; off < end; {
		k, err := f.WriteAt(zeros[:min(end-off, most)], off)
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
