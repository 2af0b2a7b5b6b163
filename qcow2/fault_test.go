package qcow2_test

import (
	"errors"
	"flag"
	"fmt"
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
	faultfile.FailEach(t, *faultScenarios, func(seed uint64, p *faultfile.Plan) error {
		r := faultRun{newScenario(t, seed), p, storage.NewMemory(), storage.NewMemory()}
		return r.play()
	})
}

// faultRun is a scenario on files that fail.
type faultRun struct {
	*scenario
	plan        *faultfile.Plan
	table, data *storage.Memory
}

// play creates an image and plays a scenario on it, going on after errors.
func (r *faultRun) play() error {
	if r.create() != nil {
		return nil
	}
	r.ballast(r.table)
	r.Open = func() (*block.Image, error) {
		return r.openOn(func(f block.File) block.File { return r.plan.Wrap(f) }, true)
	}
	errs := r.Persist(20)
	if err := r.inspect(false); err != nil {
		return fmt.Errorf("after %v: %w", errs, err)
	}
	if errs == nil && r.plan.Hits() > 0 {
		// Nobody was told: then nothing may be missing.
		if err := r.inspect(true); err != nil {
			return fmt.Errorf("no error came back, and: %w", err)
		}
	}
	return nil
}

func (r *faultRun) create() error {
	if r.options.DataFile != "" {
		r.options.Data = r.plan.Wrap(r.data.Reopen())
	}
	return qcow2.Create(r.plan.Wrap(r.table.Reopen()), &r.options)
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
