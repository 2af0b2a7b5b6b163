package qed

import "errors"

// Closing: everything that waits to be written, then the files.

// Close implements block.Layer.
func (d *disk) Close() error {
	d.stopCleaning()
	var err error
	if d.writable {
		err = d.finish()
	}
	return errors.Join(err, d.closeBacking(), d.file.Close())
}

// stopCleaning returns when the timer's work, if it runs, has ended; later it
// finds the image closed and does nothing.
func (d *disk) stopCleaning() {
	d.clean.busy.Lock()
	defer d.clean.busy.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clean.stop()
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
