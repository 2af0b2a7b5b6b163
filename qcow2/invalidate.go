package qcow2

import (
	"bytes"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Invalidating: all that was read is read again, into a disk of its own, and what
// is found there replaces what is in memory at one instant.

// Invalidate implements block.Invalidator. Space that was about to be counted
// down is not: it may be somebody else's by now. If nobody has counted it anew it
// is leaked. Bitmaps that have recorded writes must have been stored, which
// closing the image does; that they have not is an error as well.
func (d *disk) Invalidate() error {
	d.whole.Lock()
	defer d.whole.Unlock()
	d.writers.Lock()
	defer d.writers.Unlock()
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	return d.flushes.Exclude(func() error {
		if err := d.mayInvalidate(); err != nil {
			return err
		}
		fresh, err := d.readAnew()
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil {
			// What is in memory must not get into a file that is another one.
			return d.poison(err)
		}
		d.replaceBy(fresh)
		return nil
	})
}

// mayInvalidate refuses to lose what was written.
func (d *disk) mayInvalidate() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.broken != nil:
		return d.broken
	case d.newData || d.l2.Dirty() > 0 || len(d.l1Dirty) > 0:
		return block.Invalidf("an image with changes that are not flushed can't be invalidated")
	case slices.ContainsFunc(d.bitmaps.list, func(b *bitmap) bool { return b.held }):
		return block.Invalidf("an image with bitmaps that are not stored can't be invalidated")
	}
	return nil
}

// readAnew opens the image once more, over the same files.
func (d *disk) readAnew() (*disk, error) {
	if err := d.invalidateReferred(); err != nil {
		return nil, err
	}
	h, err := readHeader(d.file)
	if err == nil {
		err = h.validate()
	}
	if err == nil && !d.hdr.sameKind(h) {
		err = block.Unsupportedf("the image has become another one and has to be opened again")
	}
	if err != nil {
		return nil, err
	}
	o := &OpenOptions{Path: d.path, Writable: d.writable, NoSync: d.noSync, Repair: d.repairOnly, Discard: d.discards, InactiveL2: d.inactiveL2}
	fresh := newDisk(d.file, h, o)
	fresh.data, fresh.external, fresh.backing, fresh.crypt = d.data, d.external, d.backing, d.crypt
	if err := fresh.mayOpen(o); err != nil {
		return nil, err
	}
	if err := fresh.loadL1(); err != nil || !d.writable {
		return fresh, err
	}
	return fresh, fresh.prepareWrites()
}

// invalidateReferred invalidates the files and the image that this one stands on.
func (d *disk) invalidateReferred() error {
	if err := block.Invalidate(d.file); err != nil {
		return err
	}
	if d.external {
		if err := block.Invalidate(d.data); err != nil {
			return err
		}
	}
	if d.backing == nil {
		return nil
	}
	return d.backing.Invalidate()
}

// sameKind reports whether images differ in nothing that stays what it is while
// an image is open.
func (h *header) sameKind(other *header) bool {
	const fixed = incompatDataFile | incompatExtendedL2
	return h.clusterBits == other.clusterBits && h.cryptMethod == other.cryptMethod && h.incompat&fixed == other.incompat&fixed &&
		h.backingName == other.backingName && bytes.Equal(h.find(extDataFile), other.find(extDataFile))
}

// replaceBy makes what was read anew the tables in use. Needs mu exclusively.
func (d *disk) replaceBy(fresh *disk) {
	d.setHeader(fresh.hdr)
	d.geo.v3, d.geo.refOrder, d.geo.refBits = fresh.geo.v3, fresh.geo.refOrder, fresh.geo.refBits
	d.lazy = d.lazy && d.geo.v3
	d.size.Store(fresh.Size())
	d.l1, d.reftable, d.meta, d.fileEnd = fresh.l1, fresh.reftable, fresh.meta, fresh.fileEnd
	d.l2.Clear()
	d.refs.Clear()
	clear(d.reftableDirty)
	d.searchFrom, d.pack, d.extended = 0, 0, false
	d.unlinked, d.retired, d.holes = nil, nil, nil
	d.reclaimable.Store(0)
	d.broken = fresh.broken // its snapshots can't be read, if it is
	if fresh.sealed != nil {
		d.sealed, d.unflushed = fresh.sealed, fresh.unflushed
	}
	d.bitmaps.setList(fresh.bitmaps.list)
	d.bitmaps.begun.Store(false)
	d.decoded.forget()
}
