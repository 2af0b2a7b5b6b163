package luks_test

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
	"github.com/diskimg/diskimg/internal/drill"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/luks"
	"github.com/diskimg/diskimg/storage"
)

// A scenario is a random sequence of operations on a small disk. The power fails
// at every instant of some, and each I/O of others fails: what had been flushed
// is there then, and of what was written since each sector holds the old or the
// new.

var (
	crashStates    = flag.Int("crash.states", 1000, "how many power-loss states to visit at least")
	faultScenarios = flag.Int("fault.scenarios", 3, "how many scenarios to play with each of their I/Os failing")
)

type scenario struct {
	drill.Drill
	rand  *rand.Rand
	file  func() block.File
	sizes []int64 // that the disk has had
}

func newScenario(seed uint64) *scenario {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &scenario{rand: r, sizes: []int64{int64(20+r.IntN(40)) * stamp.SectorSize}}
	s.Operation = s.operate
	s.Open = func() (*block.Image, error) {
		return luks.Open(s.file(), &luks.OpenOptions{Writable: true, Passphrase: passphrase})
	}
	return s
}

// create makes the disk, with zeros all over.
func (s *scenario) create(f block.File) error {
	modes := []luks.CreateOptions{{Cipher: "aes-128", Mode: "xts"}, {Cipher: "aes-128", Mode: "cbc", IVGen: "essiv"}, {Cipher: "aes-128", Mode: "ctr"}}
	o := modes[s.rand.IntN(len(modes))]
	o.Size, o.IterTime, o.Passphrase = s.sizes[0], 1, passphrase
	if err := luks.Create(f, &o); err != nil {
		return err
	}
	img, err := s.Open()
	if err != nil {
		return err
	}
	return errors.Join(img.WriteZeroes(0, img.Size(), 0), img.Close())
}

func (s *scenario) operate() error {
	sectors := int(s.Img.Size() / stamp.SectorSize)
	c := stamp.Change{First: s.rand.IntN(sectors)}
	c.End = c.First + 1 + s.rand.IntN(min(sectors-c.First, 12))
	off, n := int64(c.First)*stamp.SectorSize, int64(c.End-c.First)*stamp.SectorSize
	switch k := s.rand.IntN(10); {
	case k < 5:
		_, err := s.Img.WriteAt(s.Write(c), off)
		return err
	case k == 5:
		s.Begin(c)
		return s.Img.WriteZeroes(off, n, block.ZeroFlags(s.rand.IntN(2)))
	case k < 8:
		err := s.Img.Flush()
		s.Note(err == nil)
		return err
	case k == 8:
		return s.grow(sectors)
	}
	return s.Reopen()
}

// grow makes the disk longer. What is new is not defined.
func (s *scenario) grow(sectors int) error {
	more := 1 + s.rand.IntN(8)
	s.sizes = append(s.sizes, int64(sectors+more)*stamp.SectorSize)
	s.Begin(stamp.Change{First: sectors, End: sectors + more, ID: stamp.Garbage})
	r, _ := block.As[block.Resizer](s.Img)
	return r.Resize(context.Background(), int64(sectors+more)*stamp.SectorSize, block.ResizeOptions{})
}

// look opens a disk twice, to read it and to write to it.
func (s *scenario) look(file func() block.File, m *stamp.Moment) error {
	for _, writable := range []bool{false, true} {
		img, err := luks.Open(file(), &luks.OpenOptions{Writable: writable, Passphrase: passphrase})
		if err != nil {
			return err
		}
		// Nothing but the length of the file says how long the disk is: it may lie
		// between what it was and what it was to be.
		if img.Size() < slices.Min(s.sizes) || img.Size() > slices.Max(s.sizes) {
			err = fmt.Errorf("the disk has %d bytes, it had %d", img.Size(), s.sizes)
		}
		err = errors.Join(err, m.Check(img.ReadAt, 0, int(img.Size()/stamp.SectorSize)))
		if writable {
			_, werr := img.WriteAt(make([]byte, 700), 100)
			err = errors.Join(err, werr)
		}
		if err := errors.Join(err, img.Close()); err != nil {
			return err
		}
	}
	return nil
}

func TestCrash(t *testing.T) {
	crashfile.Visit(t, *crashStates, func(seed uint64) (*crashfile.Scenario, error) {
		s, group := newScenario(seed), crashfile.NewGroup()
		f := group.New()
		s.file = func() block.File { return f.Reopen() }
		if err := s.create(f); err != nil {
			return nil, err
		}
		group.Checkpoint()
		group.Record(&s.History)
		return &crashfile.Scenario{
			Group: group, History: &s.History, Options: crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 40}, What: &s.sizes,
			Survives: func(state *crashfile.State, m *stamp.Moment) error {
				return s.look(func() block.File { return state.Files[0].Reopen() }, m)
			},
		}, s.Play(10)
	})
}

func TestFaults(t *testing.T) {
	faultfile.FailEach(t, *faultScenarios, func(seed uint64, p *faultfile.Plan) error {
		s, memory := newScenario(seed), storage.NewMemory()
		plain := func() block.File { return memory.Reopen() }
		if s.file = plain; s.create(plain()) != nil {
			return errors.New("no disk was made")
		}
		s.file = func() block.File { return p.Wrap(memory.Reopen()) }
		errs := s.Persist(15)
		if errs == nil {
			s.Safe = len(s.Changes) // nobody was told: then nothing may be missing
		}
		if err := s.look(plain, s.At(len(s.Changes), s.Safe)); err != nil {
			return fmt.Errorf("after %v: %w", errs, err)
		}
		return nil
	})
}
