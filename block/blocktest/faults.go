package blocktest

// Each operation on the file fails once: the n-th read, write, sync, for every
// n. An error must come back, the image must be readable, hold in each sector
// its old or its new content, and check without corruption when it is opened
// again. Leaks are allowed then.

import (
	"errors"
	"syscall"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
)

// disasters are the kinds of operation that fail, and how.
var disasters = []struct {
	how   faultfile.Fault
	kinds []faultfile.Kind
}{
	{faultfile.Fault{Err: faultfile.EIO}, everything},
	{faultfile.Fault{Err: faultfile.EIO, Sticky: true}, everything},
	{faultfile.Fault{Err: faultfile.ENOSPC}, growth},
	{faultfile.Fault{Err: faultfile.ENOSPC, Sticky: true}, growth},
	{faultfile.Fault{Err: faultfile.EIO, Partial: true}, []faultfile.Kind{faultfile.Write, faultfile.Zero, faultfile.Punch}},
}

var (
	growth     = []faultfile.Kind{faultfile.Write, faultfile.Zero, faultfile.Truncate, faultfile.Reserve}
	everything = []faultfile.Kind{faultfile.Read, faultfile.Write, faultfile.Sync, faultfile.Truncate, faultfile.Zero,
		faultfile.Punch, faultfile.Reserve, faultfile.Close}
)

// optional are the operations that a format can do without: it may go on after
// they have failed.
var optional = map[faultfile.Kind]bool{faultfile.Zero: true, faultfile.Punch: true, faultfile.Reserve: true}

// fault is one that has been set, and what counts towards it.
type fault struct {
	faultfile.Fault
	*faultfile.Plan
}

// happened reports whether anything has failed yet.
func (f fault) happened() bool { return f.Hits() > 0 }

func (f fault) wrap(file block.File) block.File { return f.Wrap(file) }

// eachFault yields, for every kind of operation, a fault of the first, of the
// second, and so on, until one does not happen.
func eachFault(yield func(fault) bool) {
	for _, d := range disasters {
		for _, kind := range d.kinds {
			if !eachNth(d.how, kind, yield) {
				return
			}
		}
	}
}

func eachNth(how faultfile.Fault, kind faultfile.Kind, yield func(fault) bool) bool {
	for n := 1; ; n++ {
		f := fault{how, nil}
		f.Kind, f.N = kind, n
		f.Plan = faultfile.NewPlan(f.Fault)
		if !yield(f) {
			return false
		}
		if !f.happened() { // there is no n-th
			return true
		}
	}
}

func testFaults(s *suite) {
	if s.cluster > 128<<10 {
		s.Skip("the steps are the same as with smaller clusters")
	}
	for f := range eachFault {
		s.faultRun(f)
	}
}

// faultRun goes through all steps with one fault.
func (s *suite) faultRun(f fault) {
	s.Helper()
	t := s.newTrial(f)
	img, err := s.format.Open(t.path, OpenOptions{Writable: true, Wrap: f.wrap})
	if err != nil {
		t.failed(err)
	} else {
		t.img = img
		for _, step := range t.steps() {
			t.do(step)
		}
		t.look()
		t.finish(img.Close())
	}
	t.judge()
}

func testCreateFaults(s *suite) {
	for f := range eachFault {
		err := s.format.Create(s.path(), CreateOptions{Size: 3 * s.cluster, Wrap: f.wrap})
		switch {
		case !f.happened() && err != nil:
			s.Fatalf("create without a fault: %v", err)
		case f.happened() && err == nil && !optional[f.Kind]:
			s.Errorf("create: %v: no error", f.Fault)
		case err != nil && !errors.Is(err, f.Err):
			s.Errorf("create: %v: error is %v", f.Fault, err)
		}
	}
}

// After a failed sync nobody knows what survived, so no later sync is a success.
func testFailedSync(s *suite) {
	d := s.disk(4 * s.cluster)
	d.write(0, 2*s.cluster)
	d.close()
	plan := faultfile.NewPlan(faultfile.Fault{})
	img, err := s.format.Open(d.path, OpenOptions{Writable: true, Wrap: fault{Plan: plan}.wrap})
	if err != nil {
		s.Fatal(err)
	}
	d.img = img
	d.write(512, 3*s.cluster)
	plan.Set(faultfile.Fault{Kind: faultfile.Sync, N: 1})
	if err := img.Flush(); !errors.Is(err, syscall.EIO) {
		s.Fatalf("flush with a failing sync: %v", err)
	}
	s.wantError("second flush", img.Flush(), block.ErrBroken)
	_, err = img.WriteAt(make([]byte, 512), 0)
	s.wantError("write after a failed flush", err, block.ErrBroken)
	s.wantError("write zeroes after a failed flush", img.WriteZeroes(0, 512, 0), block.ErrBroken)
	s.wantError("discard after a failed flush", img.Discard(0, 512), block.ErrBroken)
	d.verify()
	if err := img.Close(); err == nil {
		s.Error("close after a failed flush: no error")
	}
	d.open(false)
	d.check(false)
	if err := img.Close(); !errors.Is(err, block.ErrClosed) {
		s.Errorf("second close: %v", err)
	}
	if err := d.img.Close(); err != nil {
		s.Error(err)
	}
}
