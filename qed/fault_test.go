package qed

import (
	"errors"
	"flag"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/storage"
)

// Each I/O of a scenario fails, in turn: once or from then on, with nothing or
// with half of it done. An error must come back, or nothing have been lost; the
// image must check without corruption and hold what had been flushed.

var faultScenarios = flag.Int("fault.scenarios", 25, "how many scenarios to play with each of their I/Os failing")

func TestFaults(t *testing.T) {
	points, runs := 0, 0
	for seed := uint64(1); seed <= uint64(*faultScenarios); seed++ {
		n := playFault(t, seed, faultfile.Fault{})
		points += n
		for i := 1; i <= n; i++ {
			for _, f := range []faultfile.Fault{
				{N: i, Err: faultfile.EIO},
				{N: i, Err: faultfile.ENOSPC, Partial: true},
				{N: i, Err: faultfile.EIO, Sticky: true, Partial: true},
				{N: i, Err: faultfile.ENOSPC, Sticky: true},
			} {
				playFault(t, seed, f)
				runs++
				if t.Failed() {
					t.Fatalf("seed %d: %v", seed, f)
				}
			}
		}
	}
	t.Logf("%d I/Os failed, in %d runs", points, runs)
}

// faultRun is a scenario on a file that fails.
type faultRun struct {
	*scenario
	plan *faultfile.Plan
	file *storage.Memory
}

// playFault makes an image and plays a scenario on it, going on after errors,
// and returns how many I/Os that took.
func playFault(t *testing.T, seed uint64, f faultfile.Fault) int {
	t.Helper()
	r := &faultRun{newScenario(t, seed), faultfile.NewPlan(f), storage.NewMemory()}
	r.open = func() (*block.Image, error) { return r.openOn(r.plan.Wrap(r.file.Reopen()), true) }
	if r.create(r.plan.Wrap(r.file.Reopen())) != nil {
		return r.plan.Count(faultfile.Any)
	}
	r.damage(t, func() block.File { return r.file.Reopen() })
	errs := r.stubborn(20)
	safe := r.safe
	if errs == nil {
		safe = len(r.ops) // nobody was told: then nothing may be missing
	}
	for _, writable := range []bool{false, true} {
		f := func() block.File { return r.file.Reopen() }
		if err := r.checkOpen(f, writable, r.plan.Hits() == 0, safe, len(r.ops)); err != nil {
			t.Errorf("after %v: %v", errs, err)
		}
	}
	return r.plan.Count(faultfile.Any)
}

// stubborn does n operations, whatever happens.
func (r *faultRun) stubborn(n int) error {
	var errs error
	if r.img, errs = r.open(); errs != nil {
		return errs
	}
	for range n {
		err := r.step()
		if errs = errors.Join(errs, err); errors.Is(err, block.ErrClosed) || r.img == nil {
			return errs
		}
	}
	err := r.img.Close()
	if err == nil {
		r.note(true)
	}
	return errors.Join(errs, err)
}
