package qed

import "errors"

// Closing: everything that waits to be written, then the files.

// Close implements block.Layer.
func (d *disk) Close() error {
	d.mu.Lock()
	d.clean.stop()
	d.mu.Unlock()
	d.clean.busy.Lock() // until the timer's work, if it runs, has ended
	d.clean.busy.Unlock()
	var err error
	if d.writable {
		err = d.finish()
	}
	return errors.Join(err, d.closeBacking(), d.file.Close())
}

// finish writes all that waits, and then the header that says so.
func (d *disk) finish() error {
	if err := d.Flush(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trusted.Load() {
		d.clearNeedCheck()
	}
	return d.broken
}

func (d *disk) closeBacking() error {
	if d.backing == nil {
		return nil
	}
	return d.backing.Close()
}
