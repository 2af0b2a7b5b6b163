package blocktest

// Each operation on the file fails once: the n-th read, write, sync, for every
// n. An error must come back, the image must be readable, hold in each sector
// its old or its new content, and check without corruption when it is opened
// again. Leaks are allowed then.

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// fault is a way for operations to fail.
type fault struct {
	name   string
	err    error
	hits   []IO // what it can happen to
	sticky bool // all after the first fail too
}

var faults = []fault{
	{name: "EIO once", err: syscall.EIO, hits: []IO{Read, Write, Zero, Punch, Truncate, Sync}},
	{name: "EIO from then on", err: syscall.EIO, hits: []IO{Read, Write, Zero, Punch, Truncate, Sync}, sticky: true},
	{name: "no space once", err: errors.Join(block.ErrNoSpace, syscall.ENOSPC), hits: []IO{Write, Zero, Reserve, Truncate}},
	{name: "no space from then on", err: errors.Join(block.ErrNoSpace, syscall.ENOSPC), hits: []IO{Write, Zero, Reserve, Truncate},
		sticky: true},
	{name: "half a write", err: errors.Join(errHalf, syscall.EIO), hits: []IO{Write}},
}

// injector makes the n-th operation fail, counted from one.
type injector struct {
	fault
	n      int
	count  int
	hit    IO // what has failed, empty if nothing has
	paused bool
}

func (i *injector) hook(op IO, off, n int64) error {
	if i.paused || !slices.Contains(i.hits, op) {
		return nil
	}
	i.count++
	if i.count == i.n {
		i.hit = op
	}
	if i.count == i.n || i.sticky && i.count > i.n {
		return fmt.Errorf("injected in %s of %d bytes at %#x: %w", op, n, off, i.err)
	}
	return nil
}

func testFaults(s *suite) {
	if s.cluster > 128<<10 {
		s.Skip("the steps are the same as with smaller clusters")
	}
	for _, f := range faults {
		for n := 1; ; n++ {
			i := &injector{fault: f, n: n}
			s.faultRun(i)
			if i.hit == "" { // there is no n-th operation any more
				break
			}
		}
	}
}

// faultRun goes through all steps with one fault.
func (s *suite) faultRun(i *injector) {
	s.Helper()
	r := s.newTrial(i)
	img, err := s.format.Open(r.path, OpenOptions{Writable: true, Wrap: s.serial(i.hook).Wrap})
	if err != nil {
		r.failed(err)
	} else {
		r.img = img
		for _, step := range r.steps() {
			r.do(step)
		}
		r.look()
		r.finish(img.Close())
	}
	r.judge()
}

func testCreateFaults(s *suite) {
	for _, f := range faults {
		for n := 1; ; n++ {
			i := &injector{fault: f, n: n}
			err := s.format.Create(s.path(), CreateOptions{Size: 3 * s.cluster, Wrap: s.serial(i.hook).Wrap})
			if i.hit == "" {
				if err != nil {
					s.Fatalf("create without a fault: %v", err)
				}
				break
			}
			if optional := i.hit == Zero || i.hit == Punch; err == nil && !optional {
				s.Errorf("create: %s, %s %d: no error", f.name, i.hit, n)
			} else if err != nil && !errors.Is(err, f.err) {
				s.Errorf("create: %s, %s %d: error is %v", f.name, i.hit, n, err)
			}
		}
	}
}

// After a failed sync nobody knows what survived, so no later sync is a success.
func testFailedSync(s *suite) {
	d := s.disk(4 * s.cluster)
	d.write(0, 2*s.cluster)
	d.close()
	failing := false
	hook := Hook(func(op IO, _, _ int64) error {
		if op == Sync && failing {
			return syscall.EIO
		}
		return nil
	})
	img, err := s.format.Open(d.path, OpenOptions{Writable: true, Wrap: hook.Wrap})
	if err != nil {
		s.Fatal(err)
	}
	d.img = img
	d.write(512, 3*s.cluster)
	failing = true
	if err := img.Flush(); !errors.Is(err, syscall.EIO) {
		s.Fatalf("flush with a failing sync: %v", err)
	}
	failing = false
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
