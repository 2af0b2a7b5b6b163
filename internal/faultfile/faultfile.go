// Package faultfile makes files fail on purpose: the n-th operation of a kind,
// once or from then on, and after a part of it has been done if wanted. A test
// runs once to count the operations and then once for each of them.
package faultfile

import (
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// Kind is a kind of operation.
type Kind uint8

// The operations that can fail. Any stands for all of them.
const (
	Any Kind = iota
	Read
	Write
	Sync
	Truncate
	Zero
	Punch
	Reserve
	Copy
	Close
	kinds
)

func (k Kind) String() string {
	return [kinds]string{"operation", "read", "write", "sync", "truncate", "write zeroes", "punch hole", "reserve", "copy", "close"}[k]
}

// The errors of disks, as a storage would return them.
var (
	EIO    error = &fs.PathError{Op: "fault", Path: "file", Err: syscall.EIO}
	ENOSPC error = &fs.PathError{Op: "fault", Path: "file", Err: block.Errorf(block.ErrNoSpace, "%w", syscall.ENOSPC)}
)

// Fault says what fails.
type Fault struct {
	Kind Kind
	N    int   // the n-th of that kind, from 1; 0: nothing fails
	Err  error // what it returns; nil is EIO
	// Sticky makes all later ones of that kind fail too.
	Sticky bool
	// Partial has the first half of a range done before it fails, in whole
	// sectors of 512 bytes.
	Partial bool
}

func (f Fault) String() string {
	s := fmt.Sprintf("%v %d fails: %v", f.Kind, f.N, f.err())
	if f.Sticky {
		s += ", and all later ones"
	}
	if f.Partial {
		s += ", after half of it"
	}
	return s
}

func (f Fault) err() error {
	if f.Err == nil {
		return EIO
	}
	return f.Err
}

// Plan counts the operations of one or more files, together, and lets one of
// them fail. Its methods may be called concurrently.
type Plan struct {
	mu    sync.Mutex
	fault Fault
	count [kinds]int
	hits  int
}

// NewPlan returns a plan for a fault; the zero Fault only counts.
func NewPlan(f Fault) *Plan { return &Plan{fault: f} }

// Count returns how many operations of a kind have begun.
func (p *Plan) Count(k Kind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[k]
}

// Hits returns how many operations have failed.
func (p *Plan) Hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// Set begins anew with another fault: the count is back at nothing.
func (p *Plan) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.count, p.hits = f, [kinds]int{}, 0
}

// begin counts an operation and returns how it is to fail, if it is.
func (p *Plan) begin(k Kind) (err error, partial bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[k]++
	p.count[Any]++
	f := p.fault
	if f.Kind != Any && f.Kind != k || f.N == 0 {
		return nil, false
	}
	if n := p.count[f.Kind]; n != f.N && !(f.Sticky && n > f.N) {
		return nil, false
	}
	p.hits++
	return f.err(), f.Partial
}

// Wrap returns a file that does what f does, and fails as the plan says. Where
// f lacks an optional interface the file answers block.ErrUnsupported or falls
// back as package block does; only what f is asked for counts.
func (p *Plan) Wrap(f block.File) *File { return &File{f: f, plan: p} }

// File is a file that fails when its Plan says so.
type File struct {
	f    block.File
	plan *Plan
}

var (
	_ block.File           = (*File)(nil)
	_ block.HoleFinder     = (*File)(nil)
	_ block.HolePuncher    = (*File)(nil)
	_ block.ZeroWriter     = (*File)(nil)
	_ block.Reserver       = (*File)(nil)
	_ block.RangeCopier    = (*File)(nil)
	_ block.AllocatedSizer = (*File)(nil)
)

// Unwrap returns the file below.
func (f *File) Unwrap() block.File { return f.f }

const sector = 512

// half does the first half of n bytes, if it has a whole sector.
func half(partial bool, n int64, do func(n int64)) {
	if partial && n >= 2*sector {
		do(n / 2 / sector * sector)
	}
}

// ReadAt reads from the file below.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if err, partial := f.plan.begin(Read); err != nil {
		half(partial, int64(len(p)), func(k int64) { n, _ = f.f.ReadAt(p[:k], off) })
		return n, err
	}
	return f.f.ReadAt(p, off)
}

// WriteAt writes to the file below.
func (f *File) WriteAt(p []byte, off int64) (n int, err error) {
	if err, partial := f.plan.begin(Write); err != nil {
		half(partial, int64(len(p)), func(k int64) { n, _ = f.f.WriteAt(p[:k], off) })
		return n, err
	}
	return f.f.WriteAt(p, off)
}

// Sync syncs the file below. If it fails nothing was synced.
func (f *File) Sync() error {
	if err, _ := f.plan.begin(Sync); err != nil {
		return err
	}
	return f.f.Sync()
}

// Truncate sets the length of the file below.
func (f *File) Truncate(size int64) error {
	if err, _ := f.plan.begin(Truncate); err != nil {
		return err
	}
	return f.f.Truncate(size)
}

// WriteZeroes zeroes a range of the file below.
func (f *File) WriteZeroes(off, n int64) error {
	z, ok := f.f.(block.ZeroWriter)
	if !ok {
		return block.ErrUnsupported
	}
	if err, partial := f.plan.begin(Zero); err != nil {
		half(partial, n, func(k int64) { _ = z.WriteZeroes(off, k) })
		return err
	}
	return z.WriteZeroes(off, n)
}

// PunchHole punches a hole into the file below.
func (f *File) PunchHole(off, n int64) error {
	h, ok := f.f.(block.HolePuncher)
	if !ok {
		return block.ErrUnsupported
	}
	if err, partial := f.plan.begin(Punch); err != nil {
		half(partial, n, func(k int64) { _ = h.PunchHole(off, k) })
		return err
	}
	return h.PunchHole(off, n)
}

// Reserve reserves space in the file below.
func (f *File) Reserve(off, n int64) error {
	r, ok := f.f.(block.Reserver)
	if !ok {
		return block.ErrUnsupported
	}
	if err, _ := f.plan.begin(Reserve); err != nil {
		return err
	}
	return r.Reserve(off, n)
}

// CopyFrom copies to the file below, from the file below src if src is a File
// too. As a Copy it counts here only.
func (f *File) CopyFrom(src block.File, srcOff, off, n int64) (done int64, err error) {
	c, ok := f.f.(block.RangeCopier)
	if !ok {
		return 0, block.ErrUnsupported
	}
	if wrapped, ok := src.(*File); ok {
		src = wrapped.f
	}
	if err, partial := f.plan.begin(Copy); err != nil {
		half(partial, n, func(k int64) { done, _ = c.CopyFrom(src, srcOff, off, k) })
		return done, err
	}
	return c.CopyFrom(src, srcOff, off, n)
}

// Close closes the file below, also when it fails.
func (f *File) Close() error {
	err, _ := f.plan.begin(Close)
	if below := f.f.Close(); err == nil {
		err = below
	}
	return err
}

// Size is that of the file below. It never fails by a plan.
func (f *File) Size() (int64, error) { return f.f.Size() }

// NextData asks the file below. It never fails by a plan.
func (f *File) NextData(off int64) (start, end int64, err error) { return block.NextData(f.f, off) }

// AllocatedSize asks the file below. It never fails by a plan.
func (f *File) AllocatedSize() (int64, error) {
	if a, ok := f.f.(block.AllocatedSizer); ok {
		return a.AllocatedSize()
	}
	return f.f.Size()
}
