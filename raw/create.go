package raw

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/prealloc"
)

// Making a raw image: nothing of what the file held stays, and the options are
// checked before anything is changed.

// CreateOptions say how a raw image is made.
type CreateOptions struct {
	Path          string              // for messages
	Preallocation block.Preallocation // off, falloc or full
	NoSync        bool                // as in OpenOptions
}

// Create makes f a disk of size bytes, rounded up to a sector, that reads as
// zero, and opens it for writing. The image owns f from then on; after an
// error the caller still does, and the file holds no more than zeros.
func Create(f block.File, size int64, o *CreateOptions) (*block.Image, error) {
	if o == nil {
		o = &CreateOptions{}
	}
	if err := create(f, size, o.Preallocation); err != nil {
		return nil, &block.Error{Op: "create", Path: o.Path, Format: "raw", Offset: -1, Err: err}
	}
	d := &disk{f: f, noSync: o.NoSync}
	d.size.Store(roundUp(size))
	d.unsynced.Store(true)
	return d.image(o.Path, true), nil
}

func create(f block.File, size int64, mode block.Preallocation) error {
	if size < 0 || size > math.MaxInt64-sectorSize {
		return block.Invalidf("a disk can't have a size of %d bytes", size)
	}
	size = roundUp(size)
	var fill func(f block.File, size int64) error
	switch mode {
	case block.PreallocOff:
		fill = grow
	case block.PreallocFalloc:
		fill = reserve
	case block.PreallocFull:
		fill = writeOut
	default:
		return block.Unsupportedf("Unsupported preallocation mode: %s", mode)
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	return fill(f, size)
}

// grow makes a file of one hole, but for the first block: programs that find
// out the alignment for direct I/O by reading it need one that is there.
func grow(f block.File, size int64) error {
	if err := lengthen(f, size); err != nil {
		return err
	}
	return writeFirst(f, size)
}

func lengthen(f block.File, size int64) error {
	err := f.Truncate(size)
	if errors.Is(err, syscall.EFBIG) {
		return block.Detailf(block.ErrInvalid, "The image size is too large for file format 'raw'", "%w", err)
	}
	return err
}

func writeFirst(f block.File, size int64) error {
	n := int64(4096)
	if size < n {
		n = min(size, sectorSize)
	}
	_, err := f.WriteAt(make([]byte, n), 0)
	return err
}

// reserve allocates the blocks without writing them, where that can be done.
func reserve(f block.File, size int64) error {
	r, ok := f.(block.Reserver)
	if !ok {
		return writeOut(f, size)
	}
	if size == 0 {
		return nil
	}
	err := r.Reserve(0, size)
	switch {
	case errors.Is(err, block.ErrUnsupported):
		return writeOut(f, size)
	case err != nil:
		return undo(f, fmt.Errorf("could not preallocate new data: %w", err))
	}
	return writeFirst(f, size)
}

// writeOut writes every byte.
func writeOut(f block.File, size int64) error {
	if err := lengthen(f, size); err != nil {
		return err
	}
	if err := prealloc.Zeros(nil, f, 0, size); err != nil {
		return undo(f, fmt.Errorf("could not write zeros for preallocation: %w", err))
	}
	return nil
}

// undo gives back what a failed preallocation has taken.
func undo(f block.File, err error) error {
	return errors.Join(err, f.Truncate(0))
}
