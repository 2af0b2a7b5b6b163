package qcow2_test

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Each I/O of a scenario fails, in turn: once or from then on, with nothing or
// with half of it done. An error must come back, or nothing have been lost; the
// image must check without corruption and hold what had been flushed.

var faultScenarios = flag.Int("fault.scenarios", 25, "how many scenarios to play with each of their I/Os failing")

func TestFaults(t *testing.T) {
	var points, runs, seeds atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := uint64(seeds.Add(1)); seed <= uint64(*faultScenarios) && !t.Failed(); seed = uint64(seeds.Add(1)) {
				n := failEach(t, seed)
				points.Add(int64(n))
				runs.Add(int64(n * len(faultsAt(n))))
			}
		})
	}
	wg.Wait()
	t.Logf("%d I/Os failed in %d ways", points.Load(), runs.Load())
}

// failEach plays a scenario with each of its I/Os failing, and returns how many
// it has.
func failEach(t *testing.T, seed uint64) int {
	n := (&faultRun{plan: faultfile.NewPlan(faultfile.Fault{})}).play(t, seed)
	for i := 1; i <= n; i++ {
		for _, f := range faultsAt(i) {
			if (&faultRun{plan: faultfile.NewPlan(f)}).play(t, seed); t.Failed() {
				t.Errorf("seed %d: %v", seed, f)
				return n
			}
		}
	}
	return n
}

func faultsAt(n int) []faultfile.Fault {
	return []faultfile.Fault{
		{N: n, Err: faultfile.EIO},
		{N: n, Err: faultfile.ENOSPC, Partial: true},
		{N: n, Err: faultfile.EIO, Sticky: true, Partial: true},
		{N: n, Err: faultfile.ENOSPC, Sticky: true},
	}
}

// faultRun is a scenario on files that fail.
type faultRun struct {
	*scenario
	plan        *faultfile.Plan
	table, data *storage.Memory
}

// play creates an image and plays a scenario on it, going on after errors, and
// returns how many I/Os that took.
func (r *faultRun) play(t *testing.T, seed uint64) int {
	r.scenario = newScenario(t, seed)
	r.table, r.data = storage.NewMemory(), storage.NewMemory()
	errs := r.create()
	if errs == nil {
		errs = r.operate()
	}
	if errs == nil && r.plan.Hits() > 0 {
		// Nobody was told: then nothing may be missing.
		if err := r.inspect(true); err != nil {
			t.Errorf("an I/O failed, no error came back, and: %v", err)
		}
	}
	return r.plan.Count(faultfile.Any)
}

func (r *faultRun) create() error {
	if r.options.DataFile != "" {
		r.options.Data = r.plan.Wrap(r.data.Reopen())
	}
	return qcow2.Create(r.plan.Wrap(r.table.Reopen()), &r.options)
}

// operate plays the scenario, then looks at what is left of the image.
func (r *faultRun) operate() error {
	r.ballast(r.table)
	r.open = func() (*block.Image, error) {
		return r.openOn(func(f block.File) block.File { return r.plan.Wrap(f) }, true)
	}
	var errs error
	if r.img, errs = r.open(); errs == nil {
		for range 20 {
			err := r.step()
			errs = errors.Join(errs, err)
			if errors.Is(err, block.ErrClosed) || r.img == nil {
				break
			}
		}
		if r.img != nil {
			err := r.img.Close()
			if err == nil {
				r.Note(true)
			} else if !errors.Is(err, block.ErrClosed) {
				errs = errors.Join(errs, err)
			}
		}
	}
	if err := r.inspect(false); err != nil {
		r.t.Errorf("after %v: %v", errs, err)
	}
	return errs
}

func (r *faultRun) openOn(wrap func(block.File) block.File, writable bool) (*block.Image, error) {
	o := &qcow2.OpenOptions{Writable: writable, Policy: r.policy, Passphrase: passphrase, InactiveL2: r.wary}
	if r.options.DataFile != "" {
		o.Data = wrap(r.data.Reopen())
	}
	return qcow2.Open(wrap(r.table.Reopen()), o)
}

// inspect opens what is left, without faults, for reading and for writing.
func (r *faultRun) inspect(exact bool) error {
	safe := r.Safe
	if exact {
		safe = len(r.Changes)
	}
	m := r.At(len(r.Changes), safe)
	for _, writable := range []bool{false, true} {
		img, err := r.openOn(func(f block.File) block.File { return f }, writable)
		if err != nil {
			return err
		}
		if writable || !isDirty(img) {
			err = checkNoCorruption(img, exact && !r.leaky)
		}
		err = errors.Join(err, r.checkContent(img, m))
		if err := errors.Join(err, img.Close()); err != nil {
			return fmt.Errorf("writable %v: %w", writable, err)
		}
	}
	return nil
}
