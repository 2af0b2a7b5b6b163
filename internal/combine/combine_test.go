package combine_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/internal/combine"
)

// What was done before Do was called is covered by the call that Do waits for,
// and no two calls run at once.
func TestCovers(t *testing.T) {
	var c combine.Calls
	var done, running, calls atomic.Int64
	var covered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				mine := done.Add(1)
				err := c.Do(func() error {
					if running.Add(1) > 1 {
						t.Error("two calls at once")
					}
					covered.Store(done.Load())
					calls.Add(1)
					running.Add(-1)
					return nil
				})
				if err != nil || covered.Load() < mine {
					t.Errorf("%v; %d is covered, not %d", err, covered.Load(), mine)
				}
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n < 1 || n > 4000 {
		t.Errorf("%d calls for 4000 askers", n)
	}
}

// Who shares a call gets its error; the next call has its own.
func TestErrors(t *testing.T) {
	var c combine.Calls
	bad := errors.New("bad")
	inside, release := make(chan struct{}), make(chan struct{})
	var first error
	var wg sync.WaitGroup
	wg.Go(func() {
		first = c.Do(func() error { close(inside); <-release; return bad })
	})
	<-inside
	wg.Go(func() {
		if err := c.Do(func() error { return nil }); err != nil {
			t.Errorf("a call that began later returns %v", err)
		}
	})
	close(release)
	wg.Wait()
	if !errors.Is(first, bad) {
		t.Errorf("the first call returns %v", first)
	}
}

// While Exclude runs, nothing else does.
func TestExclude(t *testing.T) {
	var c combine.Calls
	var running atomic.Int64
	alone := func() error {
		if running.Add(1) > 1 {
			t.Error("two at once")
		}
		running.Add(-1)
		return nil
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				do := c.Do
				if i%2 == 0 {
					do = c.Exclude
				}
				if err := do(alone); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
