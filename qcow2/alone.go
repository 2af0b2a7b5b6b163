package qcow2

import "time"

// What changes the image as a whole (snapshots, sizes, amendments) runs alone:
// no request writes meanwhile, no flush runs, and all that had been written
// before is on disk.

// enter begins a request that writes; leave ends it.
func (d *disk) enter() (token uint32) {
	d.writers.RLock()
	if !d.used.Load() {
		d.used.Store(true)
	}
	return d.pins.pin()
}

func (d *disk) leave(token uint32) {
	d.pins.unpin(token)
	d.writers.RUnlock()
}

// alone runs f when all requests that write have ended and what they wrote is
// on disk. f may take mu. Reads go on.
func (d *disk) alone(f func() error) error {
	d.whole.Lock()
	defer d.whole.Unlock()
	d.writers.Lock()
	defer d.writers.Unlock()
	d.used.Store(true)
	return d.settle(d.flushes.Exclude(func() error {
		if err := d.quiesce(); err != nil {
			return err
		}
		return f()
	}))
}

// quiesce flushes until nothing waits to be written or to be counted down. Only
// the running flush, or who excludes flushes, may call it; takes mu.
func (d *disk) quiesce() error {
	d.beExact(true)
	defer d.beExact(false)
	for {
		if err := d.flush(); err != nil {
			return err
		}
		if !d.waiting() {
			return nil
		}
		if d.onlyRetired() {
			time.Sleep(50 * time.Microsecond) // a read that began earlier still runs
		}
	}
}

func (d *disk) onlyRetired() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.retired) > 0 && d.l2.Dirty()+d.refs.Dirty() == 0
}
