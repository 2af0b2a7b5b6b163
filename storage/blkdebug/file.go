package blkdebug

import "github.com/diskimg/diskimg/block"

// File is a file under rules.
type File struct {
	f     block.File
	rules *Rules
}

var (
	_ block.File           = (*File)(nil)
	_ block.EventSink      = (*File)(nil)
	_ block.HoleFinder     = (*File)(nil)
	_ block.HolePuncher    = (*File)(nil)
	_ block.ZeroWriter     = (*File)(nil)
	_ block.AllocatedSizer = (*File)(nil)
)

// Wrap puts f, which belongs to the result, under the rules.
func (r *Rules) Wrap(f block.File) *File { return &File{f, r} }

// Event implements block.EventSink.
func (f *File) Event(e block.Event) { f.rules.event(e) }

// ReadAt reads, or fails as the rules say.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.rules.fail(Read, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

// WriteAt writes, or writes nothing and fails as the rules say.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.rules.event(block.EventPwritev)
	if err := f.rules.fail(Write, off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.f.WriteAt(p, off)
	f.rules.event(block.EventPwritevDone)
	return n, err
}

// WriteZeroes implements block.ZeroWriter.
func (f *File) WriteZeroes(off, n int64) error {
	f.rules.event(block.EventPwritevZero)
	if err := f.rules.fail(WriteZeroes, off, n); err != nil {
		return err
	}
	return block.WriteZeroes(f.f, off, n)
}

// PunchHole implements block.HolePuncher.
func (f *File) PunchHole(off, n int64) error {
	if err := f.rules.fail(Discard, off, n); err != nil {
		return err
	}
	return block.PunchHole(f.f, off, n)
}

// NextData implements block.HoleFinder.
func (f *File) NextData(off int64) (start, end int64, err error) {
	if err := f.rules.fail(BlockStatus, off, 1); err != nil {
		return 0, 0, err
	}
	return block.NextData(f.f, off)
}

// AllocatedSize implements block.AllocatedSizer.
func (f *File) AllocatedSize() (int64, error) {
	if a, ok := f.f.(block.AllocatedSizer); ok {
		return a.AllocatedSize()
	}
	return 0, block.ErrUnsupported
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
