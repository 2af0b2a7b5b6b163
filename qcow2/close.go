package qcow2

import (
	"errors"

	"github.com/diskimg/diskimg/block"
)

// Closing: everything that waits to be written, then the files.

// Close implements block.Layer.
func (d *disk) Close() error {
	var err error
	if d.writable {
		// What is wrong with bitmaps must not keep the guest's data from disk.
		err = d.closeBitmaps()
	}
	if d.writable && (d.used.Load() || d.waiting()) {
		err = errors.Join(err, d.finish())
	}
	if d.writable && err == nil {
		err = d.markClean()
	}
	if d.used.Load() && d.unflushed != nil {
		err = errors.Join(err, block.Errorf(block.ErrCorrupt, "Failed to flush the refcount block cache: %w", d.unflushed))
	}
	return errors.Join(err, d.closeReferred(), d.file.Close())
}

// finish writes all that waits, so that the image is left exact: with no leak.
func (d *disk) finish() error {
	d.beExact(true)
	defer d.beExact(false)
	if err := d.extendFile(); err != nil {
		return err
	}
	for {
		if err := d.Flush(); err != nil {
			return err
		}
		// Decrements come to be with the flush of what they unlink, and ride
		// with the next one.
		if !d.waiting() {
			return nil
		}
	}
}

// waiting reports whether anything has to be written yet.
func (d *disk) waiting() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.unlinked)+len(d.retired)+len(d.l1Dirty)+len(d.reftableDirty) > 0 ||
		d.l2.Dirty()+d.refs.Dirty() > 0
}

// extendFile makes the file as long as its clusters are: the end of the last
// ones may never have been written.
func (d *disk) extendFile() error {
	d.mu.RLock()
	end, extended := d.fileEnd<<d.geo.clusterBits, d.extended && !d.endsInPart()
	d.mu.RUnlock()
	if !extended {
		return nil
	}
	size, err := d.file.Size()
	if err != nil || size >= end {
		return err
	}
	return d.file.Truncate(end)
}

// endsInPart reports whether nobody reads the last cluster to its end: it holds
// compressed data, or bitmaps. Needs mu.
func (d *disk) endsInPart() bool {
	last := d.fileEnd - 1
	r, isTable := d.meta.hit(last, 1)
	return isTable && r.kind == metaBitmaps || d.pack != 0 && int64(d.pack)>>d.geo.clusterBits == last
}

// closeReferred closes what the image refers to.
func (d *disk) closeReferred() error {
	var err error
	if d.backing != nil {
		err = d.backing.Close()
	}
	if d.external {
		err = errors.Join(err, d.data.Close())
	}
	return err
}
