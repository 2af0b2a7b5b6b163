package qed

import (
	"sync"
	"time"
)

// The need check bit: it is set while the image file has clusters that may not
// be linked on disk.

// defaultCleanAfter is how long after the last new cluster the bit is cleared.
const defaultCleanAfter = 5 * time.Second

// cleaner clears the need check bit when nothing has been allocated for a
// while. mu guards it.
type cleaner struct {
	busy    sync.Mutex // held while the timer's work runs; before mu
	after   time.Duration
	timer   *time.Timer
	running bool // the timer is set, or clear runs
	closed  bool
	last    time.Time // when a cluster was allocated last
}

// needCheck sets the bit, if it is not set, and syncs it. Needs mu exclusively.
func (d *disk) needCheck() error {
	if d.noSync {
		return nil
	}
	d.clean.last = time.Now()
	if d.hdr.features&featureNeedCheck == 0 {
		if err := d.patchHeader(atFeatures, le64(d.hdr.features|featureNeedCheck)); err != nil {
			return err
		}
		d.hdr.features |= featureNeedCheck
	}
	if !d.clean.running && !d.clean.closed {
		d.clean.start(d.clearLater)
	}
	return nil
}

func (c *cleaner) start(f func()) {
	c.running = true
	if c.timer == nil {
		c.timer = time.AfterFunc(c.after, f)
		return
	}
	c.timer.Reset(c.after)
}

// clearLater is what the timer calls: it flushes and clears the bit, or waits
// longer if something has been allocated meanwhile. A failure poisons the
// handle, so that the next write tells of it.
func (d *disk) clearLater() {
	d.clean.busy.Lock()
	defer d.clean.busy.Unlock()
	d.mu.Lock()
	wait := time.Until(d.clean.last.Add(d.clean.after))
	if d.clean.closed || wait > 0 {
		if d.clean.running = !d.clean.closed; d.clean.running {
			d.clean.timer.Reset(wait)
		}
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	err := d.Flush()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clean.running = false
	if err != nil || d.clean.closed || d.clearNeedCheck() {
		return
	}
	d.clean.start(d.clearLater)
}

// clearNeedCheck clears the bit if all clusters are linked on disk, and
// reports whether nothing is left to be done. Needs mu exclusively.
func (d *disk) clearNeedCheck() (done bool) {
	if d.hdr.features&featureNeedCheck == 0 || d.broken != nil {
		return true
	}
	if d.newData || d.filling > 0 || d.l2.Dirty() > 0 || len(d.l1Dirty) > 0 {
		return false
	}
	// After the links are on disk, and not earlier, may the bit be cleared.
	if d.patchHeader(atFeatures, le64(d.hdr.features&^featureNeedCheck)) == nil {
		d.hdr.features &^= featureNeedCheck
	}
	return true
}

// stop ends the work of the timer for good. Needs mu exclusively.
func (c *cleaner) stop() {
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
}
