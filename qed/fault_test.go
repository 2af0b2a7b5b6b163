package qed

import (
	"flag"
	"fmt"
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
	faultfile.FailEach(t, *faultScenarios, func(seed uint64, p *faultfile.Plan) error {
		return (&faultRun{newScenario(t, seed), p, storage.NewMemory()}).play()
	})
}

// faultRun is a scenario on a file that fails.
type faultRun struct {
	*scenario
	plan *faultfile.Plan
	file *storage.Memory
}

// play makes an image and plays a scenario on it, going on after errors.
func (r *faultRun) play() error {
	r.Open = func() (*block.Image, error) { return r.openOn(r.plan.Wrap(r.file.Reopen()), true) }
	if r.create(r.plan.Wrap(r.file.Reopen())) != nil {
		return nil
	}
	plain := func() block.File { return r.file.Reopen() }
	if err := r.damage(plain); err != nil {
		return err
	}
	errs := r.Persist(20)
	if errs == nil {
		r.Safe = len(r.Changes) // nobody was told: then nothing may be missing
	}
	m := r.At(len(r.Changes), r.Safe)
	for _, writable := range []bool{false, true} {
		if err := r.checkOpen(plain, writable, r.plan.Hits() == 0, nil, m); err != nil {
			return fmt.Errorf("after %v: %w", errs, err)
		}
	}
	return nil
}
