package blkdebug

import "github.com/diskimg/diskimg/block"

// File is a file under rules.
type File struct {
	f     block.File
	rules *Rules
}

var (
	_ block.File        = (*File)(nil)
	_ block.EventSink   = (*File)(nil)
	_ block.HoleFinder  = (*File)(nil)
	_ block.HolePuncher = (*File)(nil)
	_ block.ZeroWriter  = (*File)(nil)
)

// Wrap puts f, which belongs to the result, under the rules.
func (r *Rules) Wrap(f block.File) *File { return &File{f, r} }

// Event implements block.EventSink.
func (f *File) Event(e block.Event) { f.rules.event(e) }

// ReadAt reads, or fails as the rules say.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	err = cut(off, int64(len(p)), f.rules.Limits.MaxTransfer, func(off, size int64) error {
		if err := f.failWide(Read, off, size); err != nil {
			return err
		}
		k, err := f.f.ReadAt(p[n:n+int(size)], off)
		n += k
		return err
	})
	return n, err
}

// failWide is fail for a request that is as wide as Align has it.
func (f *File) failWide(k Kind, off, n int64) error {
	start, end := f.rules.Limits.widen(off, n)
	return f.rules.fail(k, start, end-start)
}

// WriteAt writes, or writes nothing and fails as the rules say.
func (f *File) WriteAt(p []byte, off int64) (n int, err error) {
	if err := f.readAround(off, int64(len(p))); err != nil {
		return 0, err
	}
	err = cut(off, int64(len(p)), f.rules.Limits.MaxTransfer, func(off, size int64) error {
		f.rules.event(block.EventPwritev)
		if err := f.failWide(Write, off, size); err != nil {
			return err
		}
		k, err := f.f.WriteAt(p[n:n+int(size)], off)
		n += k
		f.rules.event(block.EventPwritevDone)
		return err
	})
	return n, err
}

// readAround comes past what reading around a write would.
func (f *File) readAround(off, n int64) error {
	start, end := f.rules.Limits.widen(off, n)
	if start != off {
		f.rules.event(block.EventPwritevRMWHead)
		if err := f.failWide(Read, start, 1); err != nil {
			return err
		}
		f.rules.event(block.EventPwritevRMWAfterHead)
	}
	if end != off+n {
		f.rules.event(block.EventPwritevRMWTail)
		if err := f.failWide(Read, end-1, 1); err != nil {
			return err
		}
		f.rules.event(block.EventPwritevRMWAfterTail)
	}
	return nil
}

// WriteZeroes implements block.ZeroWriter.
func (f *File) WriteZeroes(off, n int64) error {
	l := &f.rules.Limits
	start, end := whole(off, n, l.WriteZero)
	if start >= end {
		return block.ErrUnsupported // it is written as data
	}
	if err := f.zero(off, start-off); err != nil {
		return err
	}
	err := cut(start, end-start, l.MaxWriteZero, func(off, n int64) error {
		f.rules.event(block.EventPwritevZero)
		if err := f.rules.fail(WriteZeroes, off, n); err != nil {
			return err
		}
		return block.WriteZeroes(f.f, off, n)
	})
	if err != nil {
		return err
	}
	return f.zero(end, off+n-end)
}

// zero writes zeros as data.
func (f *File) zero(off, n int64) error {
	return cut(off, n, 64<<10, func(off, n int64) error {
		_, err := f.WriteAt(make([]byte, n), off)
		return err
	})
}

// PunchHole implements block.HolePuncher. The edges are written as zeros: a hole
// reads as zero.
func (f *File) PunchHole(off, n int64) error {
	l := &f.rules.Limits
	start, end := whole(off, n, l.Discard)
	if start >= end {
		return block.ErrUnsupported
	}
	if err := f.zero(off, start-off); err != nil {
		return err
	}
	err := cut(start, end-start, l.MaxDiscard, func(off, n int64) error {
		if err := f.rules.fail(Discard, off, n); err != nil {
			return err
		}
		return block.PunchHole(f.f, off, n)
	})
	if err != nil {
		return err
	}
	return f.zero(end, off+n-end)
}

// NextData implements block.HoleFinder.
func (f *File) NextData(off int64) (start, end int64, err error) {
	if err := f.rules.fail(BlockStatus, off, 1); err != nil {
		return 0, 0, err
	}
	return block.NextData(f.f, off)
}

// Size returns the length in bytes.
func (f *File) Size() (int64, error) { return f.f.Size() }

// Truncate sets the length.
func (f *File) Truncate(size int64) error { return f.f.Truncate(size) }

// Sync makes what was written durable, or fails as the rules say.
func (f *File) Sync() error {
	f.rules.event(block.EventFlushToDisk)
	if err := f.rules.fail(Flush, 0, 0); err != nil {
		return err
	}
	return f.f.Sync()
}

// Invalidate implements block.Invalidator.
func (f *File) Invalidate() error { return block.Invalidate(f.f) }

// Close has all that is stopped go on, and closes the file.
func (f *File) Close() error {
	f.rules.ReleaseAll()
	return f.f.Close()
}

// Name returns the name of the file below, if it has one.
func (f *File) Name() string {
	if named, ok := f.f.(interface{ Name() string }); ok {
		return named.Name()
	}
	return ""
}
