package faultfile

// This file is the frame of a fault test: scenarios on all cores, with each of
// their operations failing.

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
)

// Ways returns the ways for the n-th operation to fail: once or from then on,
// with nothing or with half of it done.
func Ways(n int) []Fault {
	return []Fault{
		{N: n, Err: EIO},
		{N: n, Err: ENOSPC, Partial: true},
		{N: n, Err: EIO, Sticky: true, Partial: true},
		{N: n, Err: ENOSPC, Sticky: true},
	}
}

// FailEach plays the scenarios with the seeds from 1 to n on all cores, each of
// them without a fault first, and then with each of its operations failing in
// each way. It ends with the first error.
func FailEach(t *testing.T, n int, play func(seed uint64, p *Plan) error) {
	t.Helper()
	// Let garbage pile up: a play makes much and keeps nothing.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	var seeds, points, runs atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := seeds.Add(1); seed <= int64(n) && !t.Failed(); seed = seeds.Add(1) {
				done, of := failEach(t, uint64(seed), play)
				runs.Add(int64(done))
				points.Add(int64(of))
			}
		})
	}
	wg.Wait()
	t.Logf("%d I/Os failed, in %d runs", points.Load(), runs.Load())
}

// failEach is FailEach for one scenario. It returns how many runs there were, and
// how many operations.
func failEach(t *testing.T, seed uint64, play func(seed uint64, p *Plan) error) (runs, operations int) {
	plan := NewPlan(Fault{})
	if err := play(seed, plan); err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return 0, 0
	}
	operations = plan.Count(Any)
	for i := 1; i <= operations; i++ {
		for _, f := range Ways(i) {
			if err := play(seed, NewPlan(f)); err != nil {
				t.Errorf("seed %d: %v: %v", seed, f, err)
			}
			runs++
			if t.Failed() {
				return runs, operations
			}
		}
	}
	return runs, operations
}
