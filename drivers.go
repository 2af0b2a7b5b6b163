package diskimg

// This file opens what stands between a format and the file at a path: the
// disk of another image, a disk that is nowhere, a file that is compared with a
// copy, one that fails by rules.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/internal/throttle"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/storage/blkdebug"
)

// Faults are rules by which the file of an image fails; see package
// storage/blkdebug.
type Faults = blkdebug.Rules

// ThrottleGroup is limits of how much is read and written in a second, which
// several images can share.
type ThrottleGroup = throttle.Group

// ThrottleLimits are those of a group.
type ThrottleLimits = throttle.Limits

// NewThrottleGroup returns a group with these limits.
func NewThrottleGroup(l ThrottleLimits) (*ThrottleGroup, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	return throttle.New(l), nil
}

// Null is a disk without a file: what is written to it is gone.
type Null struct {
	Size int64 // bytes
}

// defaultNullSize is how large QEMU makes a null disk.
const defaultNullSize = 1 << 30

// source is where the bytes of an image are.
type source struct {
	file  block.File
	local *storage.File // the file of this machine below it, nil if there is none
}

// source opens where the bytes of a target are. The caller closes the file.
func (c *chain) source(t Target, open opener, o *OpenOptions) (source, error) {
	s, err := c.base(t, open, o)
	if err != nil {
		return s, err
	}
	if t.Copy != nil {
		raw, err := c.dataSource(*t.Copy, o)
		if err != nil {
			s.file.Close()
			return s, err
		}
		s.file = &twins{File: s.file, copy: raw}
	}
	if t.Faults != nil {
		s.file = t.Faults.Wrap(s.file)
	}
	for _, name := range t.Throttle {
		group, err := c.throttleGroup(name)
		if err != nil {
			s.file.Close()
			return s, err
		}
		s.file = group.Wrap(s.file)
	}
	return s, nil
}

func (c *chain) throttleGroup(name string) (*ThrottleGroup, error) {
	if c.throttle == nil {
		return nil, block.Invalidf("Throttle group '%s' does not exist", name)
	}
	return c.throttle(name)
}

// dataSource opens a file that holds data of an image besides its own, and locks
// it.
func (c *chain) dataSource(t Target, o *OpenOptions) (block.File, error) {
	s, err := c.source(t, openLocal, o)
	if err != nil {
		return nil, err
	}
	if err := c.mayUse(s.local, t.Path, lockDataFile(o.Writable, c.share)); err != nil {
		s.file.Close()
		return nil, err
	}
	return s.file, nil
}

func (c *chain) base(t Target, open opener, o *OpenOptions) (source, error) {
	switch {
	case t.Null != nil:
		return source{file: &nullFile{t.Null.Size}}, nil
	case t.Quorum != nil:
		return c.quorum(t.Quorum, o)
	case t.File != nil:
		return c.imageAsFile(t, o)
	}
	f, err := openFile(t.Path, o.Writable, open)
	if err == nil && t.device && !f.Device() {
		f.Close()
		err = block.Invalidf("'host_device' driver requires '%s' to be either a character or block device", t.Path)
	}
	if err == nil && t.keepSpace {
		f.KeepSpace()
	}
	return source{f, f}, err
}

// imageAsFile opens the image whose disk is the file of t.
func (c *chain) imageAsFile(t Target, o *OpenOptions) (source, error) {
	inner := &OpenOptions{Format: t.File.Format, HeadOnly: true, Writable: o.Writable, NoBacking: c.headsOnly, Policy: o.Policy, NoSync: o.NoSync}
	img, file, err := c.openWithFile(*t.File, openLocal, inner)
	if err != nil {
		return source{}, err
	}
	if !t.Compress {
		return source{file: &imageFile{img, file, t.File.Name()}}, nil
	}
	f, err := compressing(imageFile{img, file, ""})
	if err != nil {
		img.Close()
		return source{}, err
	}
	return source{file: f}, nil
}

// readConfig reads the rules of blkdebug, at most a little more than what Parse
// takes. Without a path there are none.
func readConfig(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := storage.OpenFile(path, nil)
	if info, serr := os.Stat(path); serr == nil && info.IsDir() {
		return nil, block.Invalidf("Cannot read config file: Is a directory")
	}
	if err != nil {
		return nil, block.Invalidf("Could not read blkdebug config file: %s", sentence.Of(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 2<<20))
	if err != nil {
		return nil, block.Invalidf("Cannot read config file: %s", sentence.Of(err))
	}
	return text, nil
}

// nullFile reads as zero and forgets what is written.
type nullFile struct{ size int64 }

func (f *nullFile) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), f.size-off))
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (f *nullFile) WriteAt(p []byte, off int64) (int, error)       { return len(p), nil }
func (f *nullFile) WriteZeroes(off, n int64) error                 { return nil }
func (f *nullFile) PunchHole(off, n int64) error                   { return nil }
func (f *nullFile) NextData(off int64) (start, end int64, _ error) { return f.size, f.size, nil }
func (f *nullFile) Size() (int64, error)                           { return f.size, nil }
func (f *nullFile) Truncate(size int64) error                      { return block.ErrUnsupported }
func (f *nullFile) Sync() error                                    { return nil }
func (f *nullFile) AllocatedSize() (int64, error)                  { return 0, nil }
func (f *nullFile) Close() error                                   { return nil }

// imageFile is the disk of an image as a file.
type imageFile struct {
	*Image
	file block.File // of the image
	name string
}

// Name returns the name of the image in QEMU's syntax.
func (f *imageFile) Name() string { return f.name }

// AllocatedSize implements block.AllocatedSizer.
func (f *imageFile) AllocatedSize() (int64, error) { return block.AllocatedSize(f.file) }

// Size returns the size of the disk.
func (f *imageFile) Size() (int64, error) { return f.Image.Size(), nil }

// Sync makes what was written durable.
func (f *imageFile) Sync() error { return f.Flush() }

// Truncate changes the size of the disk, where its format can.
func (f *imageFile) Truncate(size int64) error {
	if size == f.Image.Size() {
		return nil
	}
	r, ok := block.As[block.Resizer](f.Image)
	if !ok {
		return block.ErrUnsupported
	}
	return r.Resize(context.Background(), size, block.ResizeOptions{Shrink: true})
}

// WriteAt makes the disk larger where it has to be, as it does a file.
func (f *imageFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.reach(off + int64(len(p))); err != nil {
		return 0, err
	}
	return f.Image.WriteAt(p, off)
}

func (f *imageFile) reach(end int64) error {
	if end <= f.Image.Size() {
		return nil
	}
	return f.Truncate((end + 511) &^ 511)
}

// WriteZeroes implements block.ZeroWriter.
func (f *imageFile) WriteZeroes(off, n int64) error {
	if err := f.reach(off + n); err != nil {
		return err
	}
	return f.Image.WriteZeroes(off, n, 0)
}

// PunchHole implements block.HolePuncher.
func (f *imageFile) PunchHole(off, n int64) error {
	return f.Image.WriteZeroes(off, min(n, f.Image.Size()-off), block.MayUnmap)
}

// NextData implements block.HoleFinder.
func (f *imageFile) NextData(off int64) (start, end int64, err error) {
	size := f.Image.Size()
	for e, err := range f.Extents(off, size-off) {
		if err == nil && e.Kind != block.Zero {
			start, end, err = dataIn(e)
		}
		if err != nil || end > 0 {
			return start, end, err
		}
	}
	return size, size, nil
}

// dataIn returns the first data of an extent that is not all zeros, or an end of
// 0 if its file has a hole there.
func dataIn(e block.Extent) (start, end int64, err error) {
	if e.Kind != block.Data || !e.MayBeZero || !e.HasOffset {
		return e.Start, e.End(), nil
	}
	from, to, err := block.NextData(e.File, e.Offset)
	if from -= e.Offset; err != nil || from >= e.Length {
		return 0, 0, err
	}
	return e.Start + from, e.Start + min(to-e.Offset, e.Length), nil
}

// compressed is an image in which all that is written is stored compressed, in
// whole clusters: what is around a write is read and written again.
type compressed struct {
	imageFile
	cluster int64
	mu      sync.Mutex
}

func compressing(f imageFile) (*compressed, error) {
	img := f.Image
	_, can := block.As[block.CompressedWriter](img)
	d, described := block.As[block.Describer](img)
	if !can || !described {
		return nil, block.Unsupportedf("Compression is not supported for underlying format: %s", img.Format())
	}
	about, err := d.Describe()
	return &compressed{imageFile: f, cluster: about.ClusterSize}, err
}

// WriteAt writes a piece of a cluster, or whole ones, at a time.
func (f *compressed) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		start := at - at%f.cluster
		n := (int64(len(p)-done) / f.cluster) * f.cluster
		if at != start || n == 0 {
			n = min(start+f.cluster-at, int64(len(p)-done))
		}
		if err := f.writeClusters(p[done:done+int(n)], at, start); err != nil {
			return done, err
		}
		done += int(n)
	}
	return done, nil
}

// writeClusters writes p at off, with what is before and behind it in the
// clusters from start on.
func (f *compressed) writeClusters(p []byte, off, start int64) error {
	end := min((off+int64(len(p))+f.cluster-1)/f.cluster*f.cluster, f.Image.Size())
	if start == off && end == off+int64(len(p)) {
		return f.WriteCompressed(p, off)
	}
	whole := make([]byte, end-start)
	if err := f.ReadZeroFilled(whole, start); err != nil {
		return err
	}
	copy(whole[off-start:], p)
	return f.WriteCompressed(whole, start)
}

// MismatchError says that a file and its copy differ, see Target.Copy. It matches
// block.ErrCorrupt.
type MismatchError struct {
	Offset, Length int64 // what was read
	At             int64 // the first byte that differs
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("blkverify: read offset=%d bytes=%d contents mismatch at offset %d", e.Offset, e.Length, e.At)
}

// Is reports whether target is block.ErrCorrupt.
func (e *MismatchError) Is(target error) bool { return target == block.ErrCorrupt }

// twins is a file with a raw copy. What is written goes to both; what is read is
// compared.
type twins struct {
	block.File
	copy block.File
}

// ReadAt reads both.
func (f *twins) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	other := make([]byte, n)
	if rerr := block.ReadFull(f.copy, other, off); rerr != nil {
		return 0, rerr
	}
	if !bytes.Equal(p[:n], other) {
		at := 0
		for p[at] == other[at] {
			at++
		}
		return 0, &MismatchError{Offset: off, Length: int64(n), At: off + int64(at)}
	}
	return n, err
}

// WriteAt writes both.
func (f *twins) WriteAt(p []byte, off int64) (int, error) {
	if n, err := f.copy.WriteAt(p, off); err != nil {
		return n, err
	}
	return f.File.WriteAt(p, off)
}

// Truncate sets the length of both.
func (f *twins) Truncate(size int64) error {
	return errors.Join(f.copy.Truncate(size), f.File.Truncate(size))
}

// Sync makes both durable.
func (f *twins) Sync() error { return errors.Join(f.copy.Sync(), f.File.Sync()) }

// Invalidate implements block.Invalidator.
func (f *twins) Invalidate() error {
	return errors.Join(block.Invalidate(f.copy), block.Invalidate(f.File))
}

// Close closes both.
func (f *twins) Close() error { return errors.Join(f.copy.Close(), f.File.Close()) }
