package qed

import (
	"flag"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
)

// The power fails at every instant of a scenario, and the disk keeps any part
// of what was not synced. Every state that this can leave must open, check
// without corruption, hold what had been flushed, and of each sector that was
// written since, its old or one of its new contents. Only what is marked as in
// need of a check may have leaks.

var crashStates = flag.Int("crash.states", 100_000, "how many power-loss states to visit at least")

func TestCrash(t *testing.T) {
	var total crashfile.Stats
	for seed := uint64(1); total.Distinct < *crashStates; seed++ {
		r := newCrashRun(t, seed)
		if err := r.play(8 + r.rand.IntN(12)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		r.mark = nil
		for state := range r.group.States(crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 40, Seed: seed, Stats: &total}) {
			if err := r.survives(state); err != nil {
				t.Fatalf("seed %d: %+v: %v\n%v", seed, r.options, err, state)
			}
		}
	}
	t.Logf("%d distinct states, %d built, at %d instants", total.Distinct, total.Generated, total.Instants)
}

type crashRun struct {
	*scenario
	group *crashfile.Group
}

// progress is a mark in the log.
type progress struct{ started, safe int }

func newCrashRun(t *testing.T, seed uint64) *crashRun {
	t.Helper()
	r := &crashRun{scenario: newScenario(t, seed), group: crashfile.NewGroup()}
	f := r.group.New()
	if err := r.create(f); err != nil {
		t.Fatal(err)
	}
	r.damage(t, func() block.File { return f.Reopen() })
	r.group.Checkpoint()
	r.open = func() (*block.Image, error) { return r.openOn(f.Reopen(), true) }
	r.mark = func(started, safe int) { r.group.Mark(progress{started, safe}) }
	r.note(false)
	return r
}

// survives checks one state, for reading and, with a write, for writing.
func (r *crashRun) survives(state *crashfile.State) error {
	var at progress
	for _, m := range state.Marks {
		at = m.(progress)
	}
	for _, writable := range []bool{false, true} {
		f := func() block.File { return state.Files[0].Reopen() }
		if err := r.checkOpen(f, writable, true, at.safe, at.started); err != nil {
			return err
		}
	}
	return nil
}
