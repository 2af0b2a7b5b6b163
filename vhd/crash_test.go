package vhd_test

import (
	"context"
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
	sector   = stamp.SectorSize
	parentID = 60_000
)

type scenario struct {
	stamp.History
	rand    *rand.Rand
	options vhd.CreateOptions
	parents map[string]*storage.Memory // by name
	shown   int                        // sectors of the parent, 0 if it is gone
	alone   bool                       // the parent may have been taken away
	resized []resized
	reopen  bool
}

// resized says that the disk has a size after a change.
type resized struct {
	change int
	size   int64
}

func newScenario(t *testing.T, seed uint64) *scenario {
	t.Helper()
	s := &scenario{rand: rand.New(rand.NewPCG(seed, 1))}
	s.options = vhd.CreateOptions{Size: 512 * int64(24+s.rand.IntN(60)), BlockSize: 4096 << s.rand.IntN(2)}
	switch s.rand.IntN(8) {
	case 0, 1, 2:
		size := s.options.Size + 512*int64(s.rand.IntN(40)-20)
		below := int(min(size, s.options.Size) / sector)
		s.shown = int(size / sector)
		s.First = func(at int) uint32 {
			if at < below {
				return parentID
			}
			return 0
		}
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
			s.Note(true)
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
	s.Note(true)
	return errs
}

// step does one operation.
func (s *scenario) step(img *block.Image) error {
	if s.rand.IntN(6) == 0 {
		return s.wholeStep(img)
	}
	c := stamp.Change{First: s.rand.IntN(int(img.Size() / sector))}
	c.End = c.First + 1 + s.rand.IntN(min(int(img.Size()/sector)-c.First, 20))
	off, n, from := int64(c.First)*sector, int64(c.End-c.First)*sector, len(s.Changes)
	var err error
	switch s.rand.IntN(8) {
	case 0, 1:
		err := img.Flush()
		if err == nil {
			s.Note(true)
		}
		return err
	case 2:
		c.Maybe = true
		s.Begin(c)
		err = img.Discard(off, n)
	case 3:
		s.Begin(c)
		err = img.WriteZeroes(off, n, block.ZeroFlags(s.rand.IntN(2)))
	default:
		_, err = img.WriteAt(s.Write(c), off)
	}
	if err != nil {
		s.Doubt(from)
	}
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
		s.Begin(stamp.Change{End: min(s.shown, now), ID: parentID, Maybe: true})
		s.Begin(stamp.Change{End: now, Maybe: true})
		err = e.MakeEmpty()
	case kind == 1 && b != nil && s.parents != nil && !s.alone:
		names := []string{"one", "two", "three"}
		err = b.ChangeBacking(names[s.rand.IntN(3)], "vpc")
		s.reopen = true
	case kind == 2 && b != nil && s.rand.IntN(4) == 0:
		s.Begin(stamp.Change{End: now, Maybe: true})
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
		s.Note(true)
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
	c, from := stamp.Change{First: int(min(size, old) / sector), End: int(max(size, old) / sector)}, len(s.Changes)
	if s.options.Type == vhd.Fixed { // where the footer is
		s.Changes = append(s.Changes, stamp.Change{First: c.First, End: c.First + 1, ID: stamp.Garbage})
	}
	s.resized = append(s.resized, resized{len(s.Changes), size})
	s.Begin(c)
	o := block.ResizeOptions{Shrink: true}
	if size > old && s.options.Type == vhd.Fixed {
		o.Preallocation = []block.Preallocation{block.PreallocOff, block.PreallocFalloc, block.PreallocFull}[s.rand.IntN(3)]
	}
	r, _ := block.As[block.Resizer](img)
	err := r.Resize(context.Background(), size, o)
	if err == nil {
		s.Note(true)
	} else {
		s.Doubt(from)
	}
	return err
}

// sizes returns what the size of the disk may be.
func (s *scenario) sizes(m *stamp.Moment) []int64 {
	may := []int64{s.options.Size}
	for _, r := range s.resized {
		if r.change >= m.Begun {
			break
		}
		if r.change < m.Safe && !s.Changes[r.change].Maybe {
			may = may[:0]
		}
		may = append(may, r.size)
	}
	return may
}

// holds checks an image: no corruption, and each sector with what it may hold.
func (s *scenario) holds(img *block.Image, m *stamp.Moment) error {
	k, _ := block.As[block.Checker](img)
	var found []string
	r, err := k.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) { found = append(found, f.Text) }})
	if err != nil || r.Corruptions+r.Errors > 0 {
		return fmt.Errorf("check: %w %q", err, found)
	}
	if may := s.sizes(m); !slices.Contains(may, img.Size()) {
		return fmt.Errorf("the size is %d, may be %d", img.Size(), may)
	}
	return m.Check(img.ReadAt, 0, int(img.Size()/sector))
}

func TestCrash(t *testing.T) {
	crashfile.Visit(t, *crashStates, func(seed uint64) (*crashfile.Scenario, error) {
		s, group := newScenario(t, seed), crashfile.NewGroup()
		f := group.New()
		if err := vhd.Create(f, &s.options); err != nil {
			return nil, err
		}
		group.Checkpoint()
		group.Record(&s.History)
		o := crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 60}
		return &crashfile.Scenario{Group: group, History: &s.History, Options: o, What: &s.options, Survives: s.survives},
			s.play(func() block.File { return f.Reopen() }, 10+s.rand.IntN(12), false)
	})
}

// survives checks one state, for reading and, with a write, for writing.
func (s *scenario) survives(state *crashfile.State, m *stamp.Moment) error {
	for _, writable := range []bool{false, true} {
		img, err := s.open(state.Files[0].Reopen(), writable)
		if err != nil {
			return err
		}
		if !writable || state.Group().Recorded() > 0 { // the file is not what was checked
			err = s.holds(img, m)
		}
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
	faultfile.FailEach(t, *faultScenarios, func(seed uint64, p *faultfile.Plan) error { return playFault(t, seed, p) })
}

// playFault plays a scenario with a fault.
func playFault(t *testing.T, seed uint64, plan *faultfile.Plan) error {
	s, m := newScenario(t, seed), storage.NewMemory()
	if vhd.Create(plan.Wrap(m.Reopen()), &s.options) != nil {
		return nil
	}
	err := s.play(func() block.File { return plan.Wrap(m.Reopen()) }, 20, true)
	if err == nil {
		s.Safe = len(s.Changes) // nobody was told: then nothing may be missing
	}
	moment := s.At(len(s.Changes), s.Safe)
	for _, writable := range []bool{false, true} {
		img, oerr := s.open(m.Reopen(), writable)
		if oerr == nil {
			oerr = errors.Join(s.holds(img, moment), img.Close())
		}
		if oerr != nil {
			return fmt.Errorf("after %v: %w", err, oerr)
		}
	}
	return nil
}
