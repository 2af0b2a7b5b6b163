package qed

import (
	"flag"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/stamp"
)

// The power fails at every instant of a scenario, and the disk keeps any part
// of what was not synced. Every state that this can leave must open, check
// without corruption, hold what had been flushed, and of each sector that was
// written since, its old or one of its new contents. Only what is marked as in
// need of a check may have leaks.

var crashStates = flag.Int("crash.states", 100_000, "how many power-loss states to visit at least")

func TestCrash(t *testing.T) {
	crashfile.Visit(t, *crashStates, func(seed uint64) (*crashfile.Scenario, error) {
		s, group := newScenario(t, seed), crashfile.NewGroup()
		f := group.New()
		if err := s.create(f); err != nil {
			return nil, err
		}
		if err := s.damage(func() block.File { return f.Reopen() }); err != nil {
			return nil, err
		}
		group.Checkpoint()
		group.Record(&s.History)
		s.Open = func() (*block.Image, error) { return s.openOn(f.Reopen(), true) }
		o := crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 40}
		return &crashfile.Scenario{Group: group, History: &s.History, Options: o, What: &s.options, Survives: s.survives},
			s.Play(8 + s.rand.IntN(12))
	})
}

// survives checks one state, for reading and, with a write, for writing.
func (s *scenario) survives(state *crashfile.State, m *stamp.Moment) error {
	f := func() block.File { return state.Files[0].Reopen() }
	unchanged := func() bool { return state.Group().Recorded() == 0 }
	if err := s.checkOpen(f, false, true, unchanged, m); err != nil {
		return err
	}
	return s.checkOpen(f, true, true, unchanged, m)
}
