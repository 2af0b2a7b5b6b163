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
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/qcow2"
)

// The power fails at every instant of a scenario, and the disk keeps any part
// of what was not synced. Every state that this can leave must open, check
// without corruption, hold what had been flushed, and of each sector that was
// written since, its old or one of its new contents.

var crashStates = flag.Int("crash.states", 120_000, "how many power-loss states to visit at least")

func TestCrash(t *testing.T) {
	var seeds, distinct atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for distinct.Load() < int64(*crashStates) && !t.Failed() {
				distinct.Add(int64(crash(t, uint64(seeds.Add(1)))))
			}
		})
	}
	wg.Wait()
	t.Logf("%d distinct states of %d scenarios", distinct.Load(), seeds.Load())
}

// crash plays a scenario and visits the states that a power cut can leave of it;
// it returns how many that were.
func crash(t *testing.T, seed uint64) int {
	r := newCrashRun(t, seed)
	if err := r.play(12 + r.rand.IntN(12)); err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return 0
	}
	var total crashfile.Stats
	if err := r.verify(&total); err != nil {
		t.Errorf("seed %d: %v\n%+v", seed, err, r.options)
	}
	return int(total.Distinct)
}

// Marks in the log: operations have begun; operations are flushed.
type (
	begun   int
	flushed int
)

type crashRun struct {
	*scenario
	seed  uint64
	group *crashfile.Group
}

func newCrashRun(t *testing.T, seed uint64) *crashRun {
	r := &crashRun{scenario: newScenario(t, seed), seed: seed, group: crashfile.NewGroup()}
	files := []*crashfile.File{r.group.New()}
	if r.options.DataFile != "" {
		files = append(files, r.group.New())
		r.options.Data = files[1]
	}
	if err := qcow2.Create(files[0], &r.options); err != nil {
		t.Error(err)
	}
	r.ballast(files[0])
	r.group.Checkpoint()
	r.open = func() (*block.Image, error) { return r.openFiles(files, true) }
	r.began = func(n int) { r.group.Mark(begun(n)) }
	r.flushed = func(n int) { r.group.Mark(flushed(n)) }
	return r
}

func (r *crashRun) openFiles(files []*crashfile.File, writable bool) (*block.Image, error) {
	o := &qcow2.OpenOptions{Writable: writable, Policy: r.policy(), Passphrase: passphrase}
	if len(files) > 1 {
		o.Data = files[1].Reopen()
	}
	return qcow2.Open(files[0].Reopen(), o)
}

func (r *crashRun) verify(total *crashfile.Stats) error {
	o := crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 40, Seed: r.seed, Stats: total}
	if r.heavy {
		o.Instants = 0 // all of them: what matters is one moment
	}
	for s := range r.group.States(o) {
		if err := r.survives(s); err != nil {
			return fmt.Errorf("%w\n%v", err, s)
		}
	}
	return nil
}

// survives checks one state: as it is, and after it has been opened for
// writing, written to and closed.
func (r *crashRun) survives(s *crashfile.State) error {
	var safe, started int
	for _, m := range s.Marks {
		switch m := m.(type) {
		case begun:
			started = int(m)
		case flushed:
			safe = int(m)
		}
	}
	for _, writable := range []bool{false, true} {
		img, err := r.openFiles(s.Files, writable)
		if err != nil {
			return err
		}
		if writable || !isDirty(img) { // refcounts of a dirty image may be anything
			err = checkNoCorruption(img, false)
		}
		err = errors.Join(err, r.checkContent(img, safe, started))
		if err == nil && writable {
			_, err = img.WriteAt(make([]byte, sector), 0)
			err = errors.Join(err, checkNoCorruption(img, false))
		}
		if err := errors.Join(err, img.Close()); err != nil {
			return fmt.Errorf("writable %v: %w", writable, err)
		}
	}
	return nil
}
