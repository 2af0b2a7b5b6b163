package vhd_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// A scenario is a random sequence of operations on a small disk, with content
// that tells which operation put it there. The power fails at every instant of
// it, or each of its I/Os does. What is left must open, check without
// corruption, hold what had been flushed, and of each sector that was written
// since its old or one of its new contents.

var (
	crashStates    = flag.Int("crash.states", 100_000, "how many power-loss states to visit at least")
	faultScenarios = flag.Int("fault.scenarios", 25, "how many scenarios to play with each of their I/Os failing")
)

const (
	sector   = 512
	parentID = 60_000
)

// change is an operation on sectors; maybe says that each has its old content or
// the new.
type change struct {
	first, end int
	id         uint32
	maybe      bool
	size       int64 // that the disk gets, if it is not 0
}

type scenario struct {
	rand    *rand.Rand
	options vhd.CreateOptions
	parents map[string]*storage.Memory // by name
	below   int                        // sectors that the parent shows at first
	shown   int                        // sectors of the parent, 0 if it is gone
	alone   bool                       // the parent may have been taken away
	changes []change
	safe    int // how many of them have been flushed
	reopen  bool
	// mark, if not nil, is told how far changes has come.
	mark func(started, safe int)
}

func newScenario(t *testing.T, seed uint64) *scenario {
	t.Helper()
	s := &scenario{rand: rand.New(rand.NewPCG(seed, 1))}
	s.options = vhd.CreateOptions{Size: 512 * int64(24+s.rand.IntN(60)), BlockSize: 4096 << s.rand.IntN(2)}
	switch s.rand.IntN(8) {
	case 0, 1, 2:
		size := s.options.Size + 512*int64(s.rand.IntN(40)-20)
		s.below, s.shown = int(min(size, s.options.Size)/sector), int(size/sector)
		s.parents = map[string]*storage.Memory{}
		for _, name := range []string{"one", "two", "three"} {
			s.makeParent(t, name, size)
		}
	case 3:
		s.options.BlockSize = 4 << 20 // bitmaps of two sectors
	case 4:
		s.options.Type = vhd.Fixed
	}
	return s
}

// makeParent makes a fixed disk below, with content that is that of all others.
func (s *scenario) makeParent(t *testing.T, name string, size int64) {
	t.Helper()
	f, data := storage.NewMemory(), make([]byte, size)
	stamp.Fill(data, 0, parentID)
	if err := vhd.Create(f, &vhd.CreateOptions{Type: vhd.Fixed, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	id, err := vhd.Identify(f)
	if err != nil {
		t.Fatal(err)
	}
	s.parents[name] = f
	s.options.Parent = &vhd.Parent{Identity: id, Name: name}
}

// OpenImage serves a parent.
func (s *scenario) OpenImage(ref block.Ref) (*block.Image, error) {
	return vhd.Open(s.parents[ref.Name].Reopen(), nil)
}

// OpenFile refuses.
func (s *scenario) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

func (s *scenario) open(f block.File, writable bool) (*block.Image, error) {
	return vhd.Open(f, &vhd.OpenOptions{Writable: writable, Policy: s})
}

// play does n operations on an image that it opens and closes, and ends with
// the first error unless stubborn.
func (s *scenario) play(f func() block.File, n int, stubborn bool) error {
	img, err := s.open(f(), true)
	if err != nil {
		return err
	}
	var errs error
	for range n {
		if s.reopen || s.rand.IntN(8) == 0 {
			s.reopen = false
			if err := img.Close(); err != nil {
				return errors.Join(errs, err)
			}
			s.noted(true)
			if img, err = s.open(f(), true); err != nil {
				return errors.Join(errs, err)
			}
		}
		errs = errors.Join(errs, s.step(img))
		if errs != nil && !stubborn {
			break
		}
	}
	if err := img.Close(); err != nil {
		return errors.Join(errs, err)
	}
	s.noted(true)
	return errs
}

func (s *scenario) noted(flushed bool) {
	if flushed {
		s.safe = len(s.changes)
	}
	if s.mark != nil {
		s.mark(len(s.changes), s.safe)
	}
}

// step does one operation.
func (s *scenario) step(img *block.Image) error {
	if s.rand.IntN(6) == 0 {
		return s.wholeStep(img)
	}
	c := change{first: s.rand.IntN(int(img.Size() / sector))}
	c.end = c.first + 1 + s.rand.IntN(min(int(img.Size()/sector)-c.first, 20))
	off, n := int64(c.first)*sector, int64(c.end-c.first)*sector
	kind := s.rand.IntN(8)
	switch kind {
	case 0, 1:
		err := img.Flush()
		if err == nil {
			s.noted(true)
		}
		return err
	case 2:
		c.maybe = true
	case 3:
	default:
		c.id = uint32(len(s.changes) + 1)
	}
	s.changes = append(s.changes, c)
	s.noted(false)
	var err error
	switch {
	case kind == 2:
		err = img.Discard(off, n)
	case kind == 3:
		err = img.WriteZeroes(off, n, block.ZeroFlags(s.rand.IntN(2)))
	default:
		p := make([]byte, n)
		stamp.Fill(p, off, c.id)
		_, err = img.WriteAt(p, off)
	}
	s.changes[len(s.changes)-1].maybe = c.maybe || err != nil
	return err
}

// wholeStep does one operation on the image as a whole.
func (s *scenario) wholeStep(img *block.Image) error {
	e, _ := block.As[block.Emptier](img)
	b, _ := block.As[block.BackingChanger](img)
	now := int(img.Size() / sector)
	var err error
	switch kind := s.rand.IntN(6); {
	case kind == 0 && e != nil:
		s.changes = append(s.changes, change{end: min(s.shown, now), id: parentID, maybe: true}, change{end: now, maybe: true})
		s.noted(false)
		err = e.MakeEmpty()
	case kind == 1 && b != nil && s.parents != nil && !s.alone:
		names := []string{"one", "two", "three"}
		err = b.ChangeBacking(names[s.rand.IntN(3)], "vpc")
		s.reopen = true
	case kind == 2 && b != nil && s.rand.IntN(4) == 0:
		s.changes = append(s.changes, change{end: now, maybe: true})
		s.noted(false)
		if err = b.ChangeBacking("", ""); err == nil {
			s.alone, s.shown = true, 0
		}
		s.reopen = true
	case kind > 2:
		return s.resize(img)
	default:
		return nil
	}
	if err == nil {
		s.noted(true)
	}
	return err
}

// resize makes the disk larger or smaller, by what makes tables grow or not.
func (s *scenario) resize(img *block.Image) error {
	old := img.Size()
	size := max(sector, old+int64(s.rand.IntN(80)-40)*sector)
	if s.rand.IntN(6) == 0 {
		size = old + 128*s.options.BlockSize%(4<<20)
	}
	if size == old {
		return nil
	}
	c := change{first: int(min(size, old) / sector), end: int(max(size, old) / sector), size: size}
	s.changes = append(s.changes, c)
	s.noted(false)
	o := block.ResizeOptions{Shrink: true}
	if size > old && s.options.Type == vhd.Fixed {
		o.Preallocation = []block.Preallocation{block.PreallocOff, block.PreallocFalloc, block.PreallocFull}[s.rand.IntN(3)]
	}
	r, _ := block.As[block.Resizer](img)
	err := r.Resize(size, o)
	if err == nil {
		s.noted(true)
	}
	s.changes[len(s.changes)-1].maybe = err != nil
	return err
}

// sizes returns what the size of the disk may be.
func (s *scenario) sizes(safe, started int) []int64 {
	may := []int64{s.options.Size}
	for i, c := range s.changes[:started] {
		if c.size == 0 {
			continue
		}
		if i < safe && !c.maybe {
			may = may[:0]
		}
		may = append(may, c.size)
	}
	return may
}

// holds checks an image: no corruption, and each sector with what it may hold
// when the first safe changes are flushed and started have begun.
func (s *scenario) holds(img *block.Image, safe, started int) error {
	k, _ := block.As[block.Checker](img)
	var found []string
	r, err := k.Check(block.CheckOptions{Report: func(f block.Finding) { found = append(found, f.Text) }})
	if err != nil || r.Corruptions+r.Errors > 0 {
		return fmt.Errorf("check: %w %q", err, found)
	}
	if may := s.sizes(safe, started); !slices.Contains(may, img.Size()) {
		return fmt.Errorf("the size is %d, may be %d", img.Size(), may)
	}
	p := make([]byte, img.Size())
	if _, err := img.ReadAt(p, 0); err != nil {
		return err
	}
	for at := range len(p) / sector {
		if may, is := s.may(at, safe, started), idOf(p[at*sector:][:sector], at); !slices.Contains(may, is) {
			return fmt.Errorf("sector %d holds %d, may hold %d", at, is, may)
		}
	}
	return nil
}

// may returns what a sector may hold.
func (s *scenario) may(at, safe, started int) []uint32 {
	may := []uint32{0}
	if at < s.below {
		may[0] = parentID
	}
	for i, c := range s.changes[:started] {
		if at < c.first || at >= c.end {
			continue
		}
		if i < safe && !c.maybe {
			may = may[:0]
		}
		may = append(may, c.id)
		if c.size != 0 && s.options.Type == vhd.Fixed && at == c.first && (i >= safe || c.maybe) {
			may = append(may, garbage) // the footer
		}
	}
	return may
}

const garbage = ^uint32(0)

// idOf returns which write a sector holds.
func idOf(p []byte, at int) uint32 {
	if zero.Is(p) {
		return 0
	}
	id, off, ok := stamp.Origin(p[:8])
	want := make([]byte, sector)
	if stamp.Fill(want, off, id); !ok || off != int64(at)*sector || !bytes.Equal(want, p) {
		return garbage
	}
	return id
}

type progress struct{ started, safe int }

func TestCrash(t *testing.T) {
	var total crashfile.Stats
	for seed := uint64(1); total.Distinct < *crashStates; seed++ {
		s, group := newScenario(t, seed), crashfile.NewGroup()
		f := group.New()
		if err := vhd.Create(f, &s.options); err != nil {
			t.Fatal(err)
		}
		group.Checkpoint()
		s.mark = func(started, safe int) { group.Mark(progress{started, safe}) }
		if err := s.play(func() block.File { return f.Reopen() }, 10+s.rand.IntN(12), false); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s.mark = nil
		for state := range group.States(crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 60, Seed: seed, Stats: &total}) {
			if err := s.survives(state); err != nil {
				t.Fatalf("seed %d: %+v: %v\n%v", seed, s.options, err, state)
			}
		}
	}
	t.Logf("%d distinct states, %d built, at %d instants", total.Distinct, total.Generated, total.Instants)
}

// survives checks one state, for reading and, with a write, for writing.
func (s *scenario) survives(state *crashfile.State) error {
	var at progress
	for _, m := range state.Marks {
		at = m.(progress)
	}
	for _, writable := range []bool{false, true} {
		img, err := s.open(state.Files[0].Reopen(), writable)
		if err != nil {
			return err
		}
		err = s.holds(img, at.safe, at.started)
		if err == nil && writable {
			_, err = img.WriteAt(make([]byte, sector), 0)
		}
		if err := errors.Join(err, img.Close()); err != nil {
			return fmt.Errorf("writable %v: %w", writable, err)
		}
	}
	return nil
}

func TestFaults(t *testing.T) {
	points, runs := 0, 0
	for seed := uint64(1); seed <= uint64(*faultScenarios); seed++ {
		n := fault(t, seed, faultfile.Fault{})
		points += n
		for i := 1; i <= n; i++ {
			for _, f := range []faultfile.Fault{
				{N: i, Err: faultfile.EIO}, {N: i, Err: faultfile.ENOSPC, Partial: true},
				{N: i, Err: faultfile.EIO, Sticky: true, Partial: true}, {N: i, Err: faultfile.ENOSPC, Sticky: true},
			} {
				fault(t, seed, f)
				runs++
				if t.Failed() {
					t.Fatalf("seed %d: %+v", seed, f)
				}
			}
		}
	}
	t.Logf("%d I/Os failed, in %d runs", points, runs)
}

// fault plays a scenario with a fault and returns how many I/Os there were.
func fault(t *testing.T, seed uint64, f faultfile.Fault) int {
	s, plan, m := newScenario(t, seed), faultfile.NewPlan(f), storage.NewMemory()
	if err := vhd.Create(plan.Wrap(m.Reopen()), &s.options); err != nil {
		return plan.Count(faultfile.Any)
	}
	err := s.play(func() block.File { return plan.Wrap(m.Reopen()) }, 20, true)
	safe := s.safe
	if err == nil {
		safe = len(s.changes) // nobody was told: then nothing may be missing
	}
	for _, writable := range []bool{false, true} {
		img, oerr := s.open(m.Reopen(), writable)
		if oerr != nil {
			t.Errorf("after %v: %v", err, oerr)
			return 0
		}
		if herr := errors.Join(s.holds(img, safe, len(s.changes)), img.Close()); herr != nil {
			t.Errorf("after %v: %v", err, herr)
		}
	}
	return plan.Count(faultfile.Any)
}
