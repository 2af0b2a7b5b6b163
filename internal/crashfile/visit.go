package crashfile

// This file is the frame of a crash test: scenarios on all cores, and the power
// failing in each of them.

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/internal/stamp"
)

// Scenario is what was done to the files of a group, for the power to fail in.
type Scenario struct {
	Group   *Group
	History *stamp.History // see Record; may be nil
	Options Options
	What    any // for the reader of an error
	// Survives judges a state. The moment tells what it may hold.
	Survives func(*State, *stamp.Moment) error
}

// progress is a mark in the log.
type progress struct{ begun, safe int }

// Record has the log of a group tell how far a history has come.
func (g *Group) Record(h *stamp.History) {
	var last progress
	h.Noted = func(begun, safe int) {
		if at := (progress{begun, safe}); at != last {
			last = at
			g.Mark(at)
		}
	}
	h.Note(false)
}

// gcPercent lets garbage pile up, of which States makes much and keeps little.
const gcPercent = 1600

// Visit plays scenarios, with the seeds from 1 on, on all cores, until it has
// had the power fail in n distinct ways.
func Visit(t *testing.T, n int, play func(seed uint64) (*Scenario, error)) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	var seeds, distinct, built, instants atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for distinct.Load() < int64(n) && !t.Failed() {
				seed := uint64(seeds.Add(1))
				total, err := visit(t, seed, play)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				distinct.Add(int64(total.Distinct))
				built.Add(int64(total.Generated))
				instants.Add(int64(total.Instants))
			}
		})
	}
	wg.Wait()
	t.Logf("%d distinct states, %d built, at %d instants of %d scenarios", distinct.Load(), built.Load(), instants.Load(), seeds.Load())
}

// visit has the power fail in one scenario.
func visit(t *testing.T, seed uint64, play func(seed uint64) (*Scenario, error)) (total Stats, err error) {
	s, err := play(seed)
	if err != nil {
		return total, err
	}
	s.Options.Seed, s.Options.Stats = seed, &total
	var at progress
	var moment *stamp.Moment
	if s.History != nil {
		moment = s.History.At(0, 0)
	}
	for state := range s.Group.States(s.Options) {
		if n := len(state.Marks); n > 0 && state.Marks[n-1] != at {
			at = state.Marks[n-1].(progress)
			moment = s.History.At(at.begun, at.safe)
		}
		if err := s.Survives(state, moment); err != nil {
			return total, fmt.Errorf("%w\n%v\n%+v", err, state, s.What)
		}
		if t.Failed() {
			break // in another scenario: one failure is enough
		}
	}
	return total, nil
}
