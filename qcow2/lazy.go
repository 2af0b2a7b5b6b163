package qcow2

// Lazy refcounts: while an image is marked dirty its refcounts may be behind on
// disk. A flush then leaves them in memory; closing writes them and takes the mark
// off. Who finds the mark makes the refcounts anew (recoverDirty). Facts: qcow2
// specification, "Header", bit 0 of incompatible_features and compatible_features.

// setLaziness decides whether refcounts are postponed.
func (d *disk) setLaziness(o *OpenOptions) error {
	lazy := d.hdr.compat&compatLazyRefcounts != 0
	if o.LazyRefcounts != nil {
		lazy = *o.LazyRefcounts
	}
	d.lazy = lazy && d.geo.v3 && !d.noSync && !d.repairOnly
	return nil
}

// markUnclean sets the dirty bit, if refcounts are lazy. Before the first of them
// changes, that is: the bit is on disk when it returns. Needs mu exclusively.
func (d *disk) markUnclean() error {
	if !d.lazy || d.hdr.incompat&incompatDirty != 0 {
		return nil
	}
	if d.broken != nil {
		return d.broken
	}
	d.hdr.incompat |= incompatDirty
	return d.patchHeader(atIncompat, be64(d.hdr.incompat))
}

// markClean takes the dirty bit off. After all refcounts are on disk. Takes mu.
func (d *disk) markClean() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lazy || d.broken != nil || d.hdr.incompat&incompatDirty == 0 {
		return nil
	}
	d.hdr.incompat &^= incompatDirty
	return d.patchHeader(atIncompat, be64(d.hdr.incompat))
}

// postpones reports whether a flush leaves refcounts in memory. Needs mu.
func (d *disk) postpones() bool {
	return d.lazy && !d.exact && d.hdr.incompat&incompatDirty != 0 && !d.refs.Pressed()
}

// beExact has flushes write refcounts, or no longer. Takes mu.
func (d *disk) beExact(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exact = on
}
