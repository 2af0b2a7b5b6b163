package vhd

import "github.com/diskimg/diskimg/block"

// What changes the image as a whole (its size, its parent, all blocks at once)
// runs alone.

var _ block.Pinner = (*disk)(nil)

// Pin implements block.Pinner: what Resolve says stays good until Unpin. Only
// what runs alone would change that.
func (d *disk) Pin() uint32 { d.readers.RLock(); return 0 }

// Unpin implements block.Pinner.
func (d *disk) Unpin(uint32) { d.readers.RUnlock() }

// enter begins a request that writes, in a range that was within the disk when
// the caller looked. writers.RUnlock ends it.
func (d *disk) enter(off, n int64) error {
	d.writers.RLock()
	if off+n > d.Size() {
		d.writers.RUnlock()
		return block.ErrBounds
	}
	return nil
}

// alone runs f when all that had been written before is in the tables on disk;
// no flush runs meanwhile, and mu is held. Needs writers exclusively.
func (d *disk) alone(f func() error) error {
	return d.flushes.Exclude(func() error {
		if err := d.flush(); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.broken != nil {
			return d.broken
		}
		return f()
	})
}
