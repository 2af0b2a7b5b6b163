package crashfile

// This file is the recording: a Group is files with one log, a File one of
// them. What is read is what was last written, as if there were never a crash.

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// Kind is what an operation does.
type Kind uint8

// The operations that are recorded. Reserve changes at most the length.
const (
	Write Kind = iota
	Zero
	Punch
	Truncate
	Reserve
	Sync
)

func (k Kind) String() string {
	return [...]string{"write", "zero", "punch", "truncate", "reserve", "sync"}[k]
}

// Op is an operation in the log of a Group.
type Op struct {
	Index    int // in the log
	File     int // in the order in which the Group made its files
	Kind     Kind
	Off, Len int64 // the range in bytes; for Truncate Off is the new length
	Size     int64 // the length of the file after it

	touches []touch
	shrinks bool
}

func (o Op) String() string {
	switch o.Kind {
	case Sync:
		return fmt.Sprintf("%d: sync file %d", o.Index, o.File)
	case Truncate:
		return fmt.Sprintf("%d: truncate file %d to %#x", o.Index, o.File, o.Off)
	}
	return fmt.Sprintf("%d: %v file %d [%#x, %#x)", o.Index, o.Kind, o.File, o.Off, o.Off+o.Len)
}

// Data returns the bytes that a Write wrote.
func (o Op) Data() []byte {
	if o.Kind != Write {
		return nil
	}
	c := content{}
	for _, t := range o.touches {
		c.set(t.index, t.after)
	}
	p := make([]byte, o.Len)
	c.read(p, o.Off)
	return p
}

// maxSize is how long writing can make a file: each page of it costs memory.
const maxSize = 16 << 30

// disk is what all open Files of one file share.
type disk struct {
	index   int
	now     content // what is read
	durable content // what there was when the log began
}

// mark is a label between two operations.
type mark struct {
	ops   int // recorded before it
	label any
}

// Group is files whose operations are recorded in one log. Its methods and
// those of its files may be called concurrently.
type Group struct {
	mu    sync.Mutex
	disks []*disk
	ops   []Op
	marks []mark
}

// NewGroup returns a group without files.
func NewGroup() *Group { return &Group{} }

// New adds an empty file, which is durable as it is.
func (g *Group) New() *File { return g.add(content{}) }

func (g *Group) add(c content) *File {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.salt = uint64(len(g.disks))
	d := &disk{index: len(g.disks), now: c.copy(), durable: c.copy()}
	d.now.sums = false
	g.disks = append(g.disks, d)
	return &File{g: g, d: d}
}

// Mark puts a label into the log. A State tells which of them were made before
// the crash: whoever flushes and then marks that, knows of each State which
// flushes had been acknowledged.
func (g *Group) Mark(label any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marks = append(g.marks, mark{ops: len(g.ops), label: label})
}

// Log returns the operations so far.
func (g *Group) Log() []Op {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.ops)
}

// Recorded returns how many operations there have been so far.
func (g *Group) Recorded() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.ops)
}

// Checkpoint makes all files durable as they are and begins a new log.
func (g *Group) Checkpoint() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ops, g.marks = nil, nil
	for _, d := range g.disks {
		d.durable = d.now.copy()
	}
}

// File is an open file of a Group. Its methods may be called concurrently.
type File struct {
	g      *Group
	d      *disk
	closed atomic.Bool
}

var (
	_ block.File           = (*File)(nil)
	_ block.HoleFinder     = (*File)(nil)
	_ block.HolePuncher    = (*File)(nil)
	_ block.ZeroWriter     = (*File)(nil)
	_ block.Reserver       = (*File)(nil)
	_ block.AllocatedSizer = (*File)(nil)
)

// New returns the only file of a new Group.
func New() *File { return NewGroup().New() }

// Group returns the group that records the file.
func (f *File) Group() *Group { return f.g }

// Mark is Group.Mark.
func (f *File) Mark(label any) { f.g.Mark(label) }

// Reopen returns another open File of the same file. f may be closed.
func (f *File) Reopen() *File { return &File{g: f.g, d: f.d} }

// Close makes all later calls on this File fail. It makes nothing durable.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return f.fail("close", fs.ErrClosed)
	}
	return nil
}

func (f *File) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: fmt.Sprintf("file %d", f.d.index), Err: err}
}

// check refuses calls on a closed file and what is not a range.
func (f *File) check(op string, off, n int64) error {
	switch {
	case f.closed.Load():
		return f.fail(op, fs.ErrClosed)
	case off < 0 || n < 0 || off > math.MaxInt64-n:
		return f.fail(op, block.Invalidf("%d bytes at offset %d are not a range", n, off))
	}
	return nil
}

// ReadAt reads len(p) bytes at off, as io.ReaderAt says.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	n := int(max(0, min(int64(len(p)), f.d.now.size-off)))
	f.d.now.read(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// do carries out an operation and records it. Where change is not nil it
// returns what it touched. The length becomes at least end.
func (f *File) do(kind Kind, off, n, end int64, change func(c *content) []touch) error {
	if err := f.check(kind.String(), off, n); err != nil || n == 0 && kind != Truncate && kind != Sync {
		return err
	}
	if end > maxSize {
		return f.fail(kind.String(), block.Errorf(block.ErrNoSpace, "%d bytes are more than the %d a file can have here", end, int64(maxSize)))
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	c := &f.d.now
	before := c.size
	op := Op{Index: len(f.g.ops), File: f.d.index, Kind: kind, Off: off, Len: n}
	if change != nil {
		op.touches = change(c)
	}
	c.size = max(c.size, end)
	op.Size, op.shrinks = c.size, c.size < before
	f.g.ops = append(f.g.ops, op)
	return nil
}

// WriteAt writes p at off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n := int64(len(p))
	err := f.do(Write, off, n, off+n, func(c *content) []touch { return c.write(p, off, n) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteZeroes makes [off, off+n) read as zero.
func (f *File) WriteZeroes(off, n int64) error {
	return f.do(Zero, off, n, off+n, func(c *content) []touch { return c.write(nil, off, n) })
}

// PunchHole makes what there is of [off, off+n) read as zero.
func (f *File) PunchHole(off, n int64) error {
	return f.do(Punch, off, n, 0, func(c *content) []touch {
		return c.write(nil, off, max(0, min(n, c.size-off)))
	})
}

// Truncate sets the length.
func (f *File) Truncate(size int64) error {
	return f.do(Truncate, size, 0, 0, func(c *content) []touch {
		c.resize(size)
		return nil
	})
}

// Reserve makes the file longer where needed.
func (f *File) Reserve(off, n int64) error { return f.do(Reserve, off, n, off+n, nil) }

// Sync makes durable all that was done to this file.
func (f *File) Sync() error { return f.do(Sync, 0, 0, 0, nil) }

// Size returns the length in bytes.
func (f *File) Size() (int64, error) {
	if err := f.check("size", 0, 0); err != nil {
		return 0, err
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.d.now.size, nil
}

// NextData returns the first run of pages at or after off that are not zero.
func (f *File) NextData(off int64) (start, end int64, err error) {
	if err := f.check("seek data", off, 0); err != nil {
		return 0, 0, err
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	c := &f.d.now
	last := int64(len(c.pages)) * pageSize
	for start = off; start < last && c.page(start/pageSize) == nil; {
		start += pageSize - start%pageSize
	}
	if start >= last {
		return c.size, c.size, nil
	}
	for end = start; c.page(end/pageSize) != nil; {
		end += pageSize - end%pageSize
	}
	return min(start, c.size), min(end, c.size), nil
}

// AllocatedSize returns the bytes of all pages that are not zero.
func (f *File) AllocatedSize() (int64, error) {
	if err := f.check("stat", 0, 0); err != nil {
		return 0, err
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	var n int64
	for _, p := range f.d.now.pages {
		if p != nil {
			n += pageSize
		}
	}
	return n, nil
}
