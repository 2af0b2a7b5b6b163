package throttle

import "github.com/diskimg/diskimg/block"

// file is a file whose reads and writes wait for a group.
type file struct {
	block.File
	group *Group
}

// Wrap returns f with its reads and writes slowed down.
func (g *Group) Wrap(f block.File) block.File { return &file{f, g} }

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.group.Wait(int64(len(p)), false)
	return f.File.ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.group.Wait(int64(len(p)), true)
	return f.File.WriteAt(p, off)
}

// WriteZeroes implements block.ZeroWriter.
func (f *file) WriteZeroes(off, n int64) error {
	f.group.Wait(n, true)
	return block.WriteZeroes(f.File, off, n)
}

// PunchHole implements block.HolePuncher.
func (f *file) PunchHole(off, n int64) error {
	f.group.Wait(n, true)
	return block.PunchHole(f.File, off, n)
}

// NextData implements block.HoleFinder.
func (f *file) NextData(off int64) (start, end int64, err error) { return block.NextData(f.File, off) }

// AllocatedSize implements block.AllocatedSizer.
func (f *file) AllocatedSize() (int64, error) { return block.AllocatedSize(f.File) }

// Invalidate implements block.Invalidator.
func (f *file) Invalidate() error { return block.Invalidate(f.File) }

// Name returns the name of the file below, if it has one.
func (f *file) Name() string {
	if named, ok := f.File.(interface{ Name() string }); ok {
		return named.Name()
	}
	return ""
}
