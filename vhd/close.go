package vhd

import "errors"

// Closing: what waits to be written, then the files.

// Close implements block.Layer.
func (d *disk) Close() error {
	var err error
	if d.dirty() {
		err = d.Flush()
	}
	return errors.Join(err, d.closeParent(), d.file.Close())
}

// dirty reports whether a flush may have something to do. Data in place is
// synced too, so whatever is open for writing is.
func (d *disk) dirty() bool { return d.writable && d.damage == nil }

func (d *disk) closeParent() error {
	if d.parent == nil {
		return nil
	}
	return d.parent.Close()
}
