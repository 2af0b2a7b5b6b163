package qed

import (
	"math"

	"github.com/diskimg/diskimg/block"
)

// Invalidate implements block.Invalidator: all that was read is read again, into a
// disk of its own, and what is found there replaces what is in memory. Requests
// wait meanwhile.
func (d *disk) Invalidate() error {
	d.clean.busy.Lock()
	defer d.clean.busy.Unlock()
	r := d.ranges.Acquire(0, math.MaxInt64)
	defer d.ranges.Release(r)
	d.pins.Lock()
	defer d.pins.Unlock()
	return d.flushes.Exclude(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.mayInvalidate(); err != nil {
			return err
		}
		fresh, err := d.readAnew()
		if err != nil {
			// What is in memory must not get into a file that is another one.
			return d.poison(err)
		}
		d.replaceBy(fresh)
		return nil
	})
}

// mayInvalidate refuses to lose what was written. Needs mu.
func (d *disk) mayInvalidate() error {
	if d.broken != nil {
		return d.broken
	}
	if d.newData || d.l2.Dirty() > 0 || len(d.l1Dirty) > 0 {
		return block.Invalidf("an image with changes that are not flushed can't be invalidated")
	}
	return nil
}

// readAnew opens the image once more, over the same file.
func (d *disk) readAnew() (*disk, error) {
	if err := block.Invalidate(d.file); err != nil {
		return nil, err
	}
	if d.backing != nil {
		if err := d.backing.Invalidate(); err != nil {
			return nil, err
		}
	}
	h, err := readHeader(d.file)
	if err != nil {
		return nil, err
	}
	if h.clusterSize != d.hdr.clusterSize || h.tableSize != d.hdr.tableSize || h.backingName != d.hdr.backingName {
		return nil, block.Unsupportedf("the image has become another one and has to be opened again")
	}
	fresh := newDisk(d.file, h, &OpenOptions{Path: d.path, Writable: d.writable, NoSync: d.noSync, Repair: d.repair})
	if err := fresh.loadTables(); err != nil {
		return nil, err
	}
	return fresh, fresh.prepareWrites()
}

// replaceBy makes what was read anew the tables in use. Needs mu exclusively.
func (d *disk) replaceBy(fresh *disk) {
	d.hdr, d.l1 = fresh.hdr, fresh.l1
	d.size.Store(fresh.Size())
	d.fileEnd, d.length, d.tail = fresh.fileEnd, fresh.length, fresh.tail
	d.l2.Clear()
	d.trusted.Store(fresh.trusted.Load())
}
