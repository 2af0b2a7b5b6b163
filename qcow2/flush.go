package qcow2

import (
	"errors"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Flush: dirty tables to the file in the order that doc.go gives, and what has
// been unlinked back to the allocator.

// piece is a part of a table as it is to be written.
type piece struct {
	kind metaKind
	off  hostOff
	data []byte
}

// batch is all that one flush writes: a copy of the dirty tables at one
// instant, so that a link in it is never without its increment.
type batch struct {
	counts   []piece // refcount blocks
	reftable []piece
	links    []piece // L2 and L1
	unlinked []hostRun
	newData  bool // links refer to data written since the last sync
	blocks   []*cache.Block
	refs     []*cache.Block
}

// Flush implements block.Layer.
func (d *disk) Flush() error {
	if !d.writable {
		return nil
	}
	return d.flushes.Do(d.flush)
}

func (d *disk) flush() error {
	b, err := d.collect()
	if err != nil {
		return err
	}
	err = d.writeBatch(b)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushing = false
	d.l2.Written(b.blocks)
	d.refs.Written(b.refs)
	if err != nil {
		return d.poison(err)
	}
	return d.retire(b.unlinked)
}

// collect takes the dirty tables, with their bytes as they are now.
func (d *disk) collect() (*batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	b := &batch{unlinked: d.unlinked, newData: d.newData, blocks: d.l2.TakeDirty()}
	d.unlinked, d.newData, d.flushing = nil, false, true
	d.reclaimable.Store(0)
	b.links = append(cachePieces(metaL2, b.blocks), tablePieces(metaL1, d.hdr.l1Offset, d.l1, d.l1Dirty)...)
	if d.postpones() {
		// Counts tell else that a link may lead to a table that is new.
		b.newData = true
		return b, d.mayWriteBatch(b)
	}
	b.refs = d.refs.TakeDirty()
	b.counts = cachePieces(metaRefblock, b.refs)
	b.reftable = tablePieces(metaReftable, d.hdr.reftableOffset, d.reftable, d.reftableDirty)
	return b, d.mayWriteBatch(b)
}

// mayWriteBatch refuses a batch of which anything would touch what is not its
// own. Needs mu exclusively.
func (d *disk) mayWriteBatch(b *batch) error {
	for _, list := range [][]piece{b.counts, b.reftable, b.links} {
		for _, p := range list {
			if err := d.mayWriteMeta(p.kind, p.off, int64(len(p.data))); err != nil {
				return err
			}
		}
	}
	return nil
}

func cachePieces(kind metaKind, blocks []*cache.Block) []piece {
	list := make([]piece, len(blocks))
	for i, b := range blocks {
		list[i] = piece{kind, hostOff(b.Off), slices.Clone(b.Data)}
	}
	return list
}

// tablePieces encodes the dirty sectors of a table of 8-byte entries, 64 to a
// sector, and counts them as clean.
func tablePieces(kind metaKind, off uint64, table []uint64, dirty map[int64]bool) []piece {
	var list []piece
	for sector := range dirty {
		part := table[sector*64 : min(int64(len(table)), (sector+1)*64)]
		list = append(list, piece{kind, hostOff(off) + hostOff(sector*512), encodeTable(part)})
	}
	clear(dirty)
	return list
}

// writeBatch is the order of writes.
func (d *disk) writeBatch(b *batch) error {
	if err := d.writePieces(b.counts); err != nil {
		return err
	}
	if len(b.reftable) > 0 {
		// Before the refcount table names a new block, the block must be on
		// disk: it counts itself.
		if err := d.syncTables(); err != nil {
			return err
		}
		if err := d.writePieces(b.reftable); err != nil {
			return err
		}
	}
	if len(b.links) > 0 {
		// Before a link is written, the data it leads to and the count of its
		// cluster must be on disk.
		if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {
			if err := d.sync(); err != nil {
				return err
			}
		}
		if err := d.writePieces(b.links); err != nil {
			return err
		}
	}
	// Before anything that these links no longer refer to is counted down or
	// used again, they must be on disk.
	return d.sync()
}

// sync makes data and tables durable.
func (d *disk) sync() error {
	if d.external && !d.noSync {
		if err := d.data.Sync(); err != nil {
			return err
		}
	}
	return d.syncTables()
}

// syncTables makes the image file durable, and with it the guest's data where
// it is not elsewhere.
func (d *disk) syncTables() error {
	if d.noSync {
		return nil
	}
	return d.file.Sync()
}

// writePieces writes pieces in the order of their offsets, neighbours at once.
func (d *disk) writePieces(list []piece) error {
	slices.SortFunc(list, func(a, b piece) int { return int(a.off>>9) - int(b.off>>9) })
	for len(list) > 0 {
		n, data := 1, list[0].data
		for n < len(list) && list[n].off == list[0].off+hostOff(len(data)) {
			data = append(data, list[n].data...)
			n++
		}
		d.event(updateEvents[list[0].kind])
		if _, err := d.file.WriteAt(data, int64(list[0].off)); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// retired is space whose links are gone from the disk and which requests that
// began in epoch or before may still be using.
type retired struct {
	runs  []hostRun
	epoch uint32
}

// retire counts down what has been unlinked on disk, as soon as no request can
// still refer to it. Needs mu exclusively.
func (d *disk) retire(unlinked []hostRun) error {
	if len(unlinked) > 0 {
		d.retired = append(d.retired, retired{unlinked, d.pins.epoch.Load()})
	}
	d.pins.advance()
	d.pins.advance()
	defer d.punch() // also what is free when an error ends this: later it may be in use
	for len(d.retired) > 0 && d.pins.ended(d.retired[0].epoch) {
		if err := d.countDown(&d.retired[0].runs); err != nil {
			return err
		}
		d.retired = d.retired[1:]
	}
	return nil
}

// countDown counts each cluster of runs down once. After an error, runs has
// what is left to be done.
func (d *disk) countDown(runs *[]hostRun) error {
	defer func() { d.punching = false }()
	for ; len(*runs) > 0; *runs = (*runs)[1:] {
		d.event(block.EventClusterFree)
		for r := &(*runs)[0]; r.n > 0; r.start, r.n = r.start+1, r.n-1 {
			d.punching = r.hole
			if err := d.addRef(r.start, -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// reclaim flushes when much waits to be free again: it is better used than that the
// file grows. Call it before enter: what running requests may refer to is not freed.
func (d *disk) reclaim() error {
	if d.reclaimable.Load()<<d.geo.clusterBits < maxDiscarded {
		return nil
	}
	return d.Flush()
}

// relieve flushes when too much waits to be written. Takes mu; call it with nothing
// locked but a range.
func (d *disk) relieve() error {
	pressed, retired := d.pressed()
	switch {
	case pressed:
		return d.Flush()
	case retired:
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.retire(nil)
	}
	return nil
}

// pressed reports whether a flush is due, and if not whether a former one has
// left something to be counted down.
func (d *disk) pressed() (pressed, retired bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.l2.Pressed() || d.refs.Pressed() || len(d.unlinked) > maxUnlinked, len(d.retired) > 0
}

const (
	// maxUnlinked bounds the list of what waits to be counted down.
	maxUnlinked = 1 << 16
	// maxDiscarded is how many discarded bytes are worth a flush, so that they
	// are used again before the file grows.
	maxDiscarded = 8 << 20
)

// patchHeader writes a field of the header and makes it durable. Needs mu
// exclusively.
func (d *disk) patchHeader(at int64, field []byte) error {
	if err := d.mayWriteMeta(metaHeader, hostOff(at), int64(len(field))); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(field, at); err != nil {
		return d.poison(err)
	}
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	return nil
}

// patchFixed writes the fields of the header that have their fixed places, which
// lie in one sector, at once. Needs mu exclusively.
func (d *disk) patchFixed(h *header) error {
	fixed := make([]byte, h.clusterSize())
	h.encodeFixed(fixed)
	end := v2HeaderLength
	if h.version >= 3 {
		end = minV3HeaderLength
	}
	return d.patchHeader(atSize, fixed[atSize:end])
}

// poison ends all writing through this handle: after a failed metadata write
// or sync it is not known what is on disk. Needs mu exclusively.
func (d *disk) poison(err error) error {
	if d.broken == nil {
		d.broken = block.Errorf(block.ErrBroken, "image can no longer be written, writing its tables failed: %w", err)
	}
	return d.broken
}

// refusal returns why guest data can't be written, nil if it can. Needs mu.
func (d *disk) refusal() error {
	if d.broken != nil {
		return d.broken
	}
	return d.sealed
}

// damage is corruption found in the tables in use, as opposed to the guest's
// data: the image is marked.
func damage(err error) error { return &block.DamageError{Err: err} }

// corrupt marks the image as corrupt and refuses all further writes. Needs mu
// exclusively.
func (d *disk) corrupt(cause error) error {
	if !d.writable || d.broken != nil {
		return cause
	}
	var e *block.DamageError
	if errors.As(cause, &e) {
		cause = e.Err
	}
	cause = &block.DamageError{Marked: true, Err: cause}
	d.broken = block.Errorf(block.ErrBroken, "image is marked corrupt and can no longer be written: %w", cause)
	if d.geo.v3 {
		d.hdr.incompat |= incompatCorrupt
		// What else is wrong, the bit is worth trying; the cause is what counts.
		_, err := d.file.WriteAt(be64(d.hdr.incompat), atIncompat)
		return errors.Join(d.broken, err, d.syncTables())
	}
	return d.broken
}

// settle marks the image if err is damage found while mu was not held
// exclusively. Takes mu.
func (d *disk) settle(err error) error {
	if err == nil {
		return nil
	}
	var e *block.DamageError
	if !errors.As(err, &e) || e.Marked {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.corrupt(e.Err)
	return &block.DamageError{Marked: d.writable, Err: e.Err}
}
