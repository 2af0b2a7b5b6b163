package block

import (
	"errors"
	"io"
	"time"
)

// File is where the bytes of an image live: a local file, memory, something on
// the network. All methods may be called concurrently.
//
// ReadAt and WriteAt follow io.ReaderAt and io.WriterAt: a read that ends at
// the end of the file returns io.EOF with what it got; a write past the end
// makes the file longer. Neither keeps the slice. Files are compared with ==,
// so their type must be one that can be, such as a pointer.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length; new bytes read as zero.
	Truncate(size int64) error
	// Sync returns when all that was written before it was called would
	// survive a power cut. After an error it is not known what survived.
	Sync() error
	Close() error
}

// What only some files can do is an interface each. A missing one is never an
// error: the functions below fall back or answer ErrUnsupported.
type (
	// HoleFinder finds data in a sparse file.
	HoleFinder interface {
		// NextData returns the first run of data at or after off, as
		// [start, end). At the end of the file start == end == size.
		NextData(off int64) (start, end int64, err error)
	}
	// HolePuncher gives space back to the file system.
	HolePuncher interface {
		// PunchHole makes [off, off+n) read as zero and deallocates it. It
		// does not change the length.
		PunchHole(off, n int64) error
	}
	// ZeroWriter writes zeros without moving them.
	ZeroWriter interface {
		// WriteZeroes makes [off, off+n) read as zero and keeps or makes it
		// allocated. It makes the file longer where needed.
		WriteZeroes(off, n int64) error
	}
	// Reserver allocates space ahead.
	Reserver interface {
		// Reserve allocates [off, off+n) without changing what is in it and
		// makes the file longer where needed.
		Reserve(off, n int64) error
	}
	// RangeCopier copies within the kernel. A Layer may be one too: off is
	// then an offset of the guest disk.
	RangeCopier interface {
		// CopyFrom copies n bytes of src at srcOff to off. It returns how
		// many were copied; ErrUnsupported if none could be this way.
		CopyFrom(src File, srcOff, off, n int64) (int64, error)
	}
	// Writeback starts writing without waiting for it.
	Writeback interface {
		// StartWriteback asks for [off, off+n) to go to the disk soon.
		StartWriteback(off, n int64)
	}
	// ModTimer knows when a file was written to.
	ModTimer interface {
		// ModTime returns the time of the last change of the content.
		ModTime() (time.Time, error)
	}
	// AllocatedSizer knows what a file takes up.
	AllocatedSizer interface {
		// AllocatedSize returns the bytes that the file occupies on disk.
		AllocatedSize() (int64, error)
	}
)

// NextData is f.NextData where f has it; other files are all data.
func NextData(f File, off int64) (start, end int64, err error) {
	if h, ok := f.(HoleFinder); ok {
		return h.NextData(off)
	}
	size, err := f.Size()
	if err != nil {
		return 0, 0, err
	}
	return min(off, size), size, nil
}

// AllocatedSize is f.AllocatedSize where f has it, otherwise ErrUnsupported.
func AllocatedSize(f File) (int64, error) {
	if a, ok := f.(AllocatedSizer); ok {
		return a.AllocatedSize()
	}
	return 0, ErrUnsupported
}

// PunchHole is f.PunchHole where f has it, otherwise ErrUnsupported.
func PunchHole(f File, off, n int64) error {
	if p, ok := f.(HolePuncher); ok {
		return p.PunchHole(off, n)
	}
	return ErrUnsupported
}

// Invalidate is f.Invalidate where f has it; other files hold nothing.
func Invalidate(f File) error {
	if v, ok := f.(Invalidator); ok {
		return v.Invalidate()
	}
	return nil
}

var zeros [64 << 10]byte

// WriteZeroes makes [off, off+n) of f read as zero and be allocated, by
// writing zeros where f knows no better way.
func WriteZeroes(f File, off, n int64) error {
	if z, ok := f.(ZeroWriter); ok {
		if err := z.WriteZeroes(off, n); !errors.Is(err, ErrUnsupported) {
			return err
		}
	}
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// ReadFull reads len(p) bytes at off; bytes past the end of the file are zero.
// Tables are never read this way: for them a short read is an error.
func ReadFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
