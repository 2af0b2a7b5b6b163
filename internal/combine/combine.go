// Package combine lets calls that do the same for everybody be shared: syncs
// and flushes.
package combine

import "sync"

// Calls runs one call at a time. Who asks while one runs shares the next: it
// begins after they asked, so it covers what they did before. The zero value is
// ready; all methods may be called concurrently.
type Calls struct {
	mu       sync.Mutex
	turn     sync.Cond
	running  bool
	started  uint64
	finished uint64
	errs     map[uint64]error // of calls that failed
}

func (c *Calls) init() {
	if c.turn.L == nil {
		c.turn.L = &c.mu
		c.errs = make(map[uint64]error)
	}
}

// Do returns when a call of run has ended that began after Do was called, with
// its error. The call may be that of another goroutine.
func (c *Calls) Do(run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	for want := c.started + 1; ; c.turn.Wait() {
		if c.finished >= want {
			return c.errs[want]
		}
		if c.running {
			continue
		}
		return c.call(run)
	}
}

// call runs run as the next call. Needs mu, and lets go of it meanwhile.
func (c *Calls) call(run func() error) error {
	c.running = true
	c.started++
	me := c.started
	c.mu.Unlock()
	err := run()
	c.mu.Lock()
	c.running, c.finished = false, me
	if err != nil {
		c.errs[me] = err
	}
	c.turn.Broadcast()
	return err
}

// Exclude runs f while no call runs. Who asks meanwhile waits for a call of
// their own: f covers nothing.
func (c *Calls) Exclude(f func() error) error {
	c.mu.Lock()
	c.init()
	for c.running {
		c.turn.Wait()
	}
	c.running = true
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	c.turn.Broadcast()
	return err
}
