package qcow2

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/cow"
)

// Write zeroes and discard: whole units by their entries, the edges as data.

// WriteZeroes implements block.Layer. Clusters (subclusters with extended L2
// entries) that lie whole within the range become zero by their entry: they
// keep their space unless flags say MayUnmap.
func (d *disk) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	token := d.enter()
	defer d.leave(token)
	if err := d.announceWrite(); err != nil {
		return err
	}
	defer d.markDirty(off, n)
	own := flags&block.OwnZeroes != 0
	asData := func(from, to guestOff) error {
		if flags&block.NoFallback != 0 {
			return block.ErrUnsupported
		}
		return d.zeroAsData(from, to, own)
	}
	if flags&block.MayUnmap != 0 && !own && d.punchable() {
		return d.settle(d.punchRaw(off, n, asData))
	}
	if !d.canMarkZero() || own && !d.geo.v3 {
		return d.settle(asData(guestOff(off), guestOff(off+n)))
	}
	mark := func(e l2Entry, units uint64) (l2Entry, change) {
		return d.zeroed(e, units, flags&block.MayUnmap != 0)
	}
	edge := func(from, to guestOff) error { return d.zeroEdge(from, to, asData, mark) }
	return d.settle(d.eachUnit(off, n, edge, mark))
}

// zeroEdge makes parts of units zero. A unit of which the rest reads as zero
// anyway becomes zero as a whole; in others zeros are written, and also in whole
// units that it is called for.
func (d *disk) zeroEdge(from, to guestOff, asData func(from, to guestOff) error, mark func(l2Entry, uint64) (l2Entry, change)) error {
	if int64(to-from) >= 1<<d.geo.unitBits {
		return asData(from, to)
	}
	for from < to {
		next := min(to, from&^(1<<d.geo.unitBits-1)+1<<d.geo.unitBits)
		done, err := d.zeroIdle(from, next, mark)
		if err == nil && !done {
			err = asData(from, next)
		}
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// zeroIdle has the unit changed of which [from, to) is a part, if the rest of it
// reads as zero, and if it holds no data and is no part of a compressed cluster.
func (d *disk) zeroIdle(from, to guestOff, mark func(l2Entry, uint64) (l2Entry, change)) (done bool, err error) {
	if err := d.relieve(); err != nil {
		return false, err
	}
	start := from &^ (1<<d.geo.unitBits - 1)
	end := min(start+1<<d.geo.unitBits, guestOff(d.Size()))
	r := d.ranges.Acquire(d.geo.alignDown(int64(start)), d.geo.clusterSize)
	defer d.ranges.Release(r)
	e, err := d.Resolve(int64(start), int64(end-start))
	if err != nil || e.Kind != block.Zero && e.Kind != block.Below || !d.showsZeros(start, from) || !d.showsZeros(to, end) {
		return false, err
	}
	err = d.changeHeld(start, end, mark)
	if errors.Is(err, errPartOfCompressed) {
		return false, nil
	}
	return true, err
}

// showsZeros is oldIsZero of a range that lies within the disk, where holes count
// too that the file of a backing image has.
func (d *disk) showsZeros(from, to guestOff) bool {
	for e, err := range d.self.Extents(int64(from), int64(to-from)) {
		if err != nil || e.Kind != block.Zero && !isHoleBelow(e) {
			return false
		}
	}
	return true
}

func isHoleBelow(e block.Extent) bool {
	if e.Depth == 0 || e.Kind != block.Data || !e.MayBeZero {
		return false
	}
	data, end, err := block.NextData(e.File, e.Offset)
	return err == nil && (data >= e.Offset+e.Length || data == end)
}

// canMarkZero reports whether an entry can say that a cluster reads as zero.
// Version 2 has no such flag, but without a backing image an unallocated cluster
// says the same. A raw data file has to hold the zeros itself.
func (d *disk) canMarkZero() bool {
	if d.hdr.autoclear&autoclearRawData != 0 {
		return false
	}
	return d.geo.v3 || d.backing == nil
}

// ZeroesQuickly implements block.QuickZeroer.
func (d *disk) ZeroesQuickly() bool { return d.geo.v3 }

// Discard implements block.Layer. Whole clusters are freed and read as zero;
// the edges stay as they are. Where an entry can't say zero, nothing is freed:
// the backing image must not show through.
func (d *disk) Discard(off, n int64) error {
	if d.discards.Ignore || !d.canMarkZero() && !d.punchable() {
		return nil
	}
	token := d.enter()
	defer d.leave(token)
	if err := d.announceWrite(); err != nil {
		return err
	}
	defer d.markDirty(off, n)
	start, end := d.wholeInside(off, off+n)
	if start == end {
		return nil
	}
	skip := func(from, to guestOff) error { return nil }
	if d.punchable() {
		return d.settle(d.punchRaw(start, end-start, skip))
	}
	return d.settle(d.eachUnit(start, end-start, skip, func(e l2Entry, units uint64) (l2Entry, change) {
		return d.discarded(e)
	}))
}

// change says what is to be done with the old entry when it is replaced.
type change uint8

const (
	keep    change = iota // leave the entry alone
	replace               // set the new entry
	free                  // set the new entry and give up what the old one refers to
)

// zeroed returns the entry after the units (a mask, 1 without subclusters) have
// become zero.
func (d *disk) zeroed(e l2Entry, units uint64, unmap bool) (l2Entry, change) {
	if !d.geo.v3 {
		return l2Entry{}, free
	}
	whole := !d.geo.extended || units == allAllocated
	if whole && unmap || e.compressed() {
		return d.zeroEntry(), free
	}
	if !d.geo.extended {
		return l2Entry{desc: e.desc | flagZero}, replace
	}
	e.bitmap = e.bitmap&^units | units<<32
	return e, replace
}

// zeroEntry is a cluster that reads as zero and has no space.
func (d *disk) zeroEntry() l2Entry {
	if d.geo.extended {
		return l2Entry{bitmap: allZero}
	}
	return l2Entry{desc: flagZero}
}

// discarded returns the entry of a cluster that has been discarded: zero, also
// where the backing image showed before.
func (d *disk) discarded(e l2Entry) (l2Entry, change) {
	switch {
	case e.desc&^flagZero == 0 && d.backing == nil, e == d.zeroEntry():
		return e, keep
	case !d.geo.v3:
		return l2Entry{}, free
	}
	return d.zeroEntry(), free
}

// eachUnit changes the entries of all units that lie whole within the range,
// and calls edge for what is left at both ends. With subclusters a cluster that
// is not whole in the range is changed on its own; if its data is compressed,
// which has no subclusters, it is an edge too.
func (d *disk) eachUnit(off, n int64, edge func(from, to guestOff) error, f func(l2Entry, uint64) (l2Entry, change)) error {
	unit := int64(1) << d.geo.unitBits
	start, end := (off+unit-1)&^(unit-1), (off+n)&^(unit-1)
	if off+n == d.Size() {
		end = max(end, off+n) // the last unit may be cut off by the end of the disk
	}
	if start > end {
		return edge(guestOff(off), guestOff(off+n))
	}
	if err := edge(guestOff(off), guestOff(start)); err != nil {
		return err
	}
	if d.partOfCompressed(start) || d.partOfCompressed(end) {
		// It is written over as a whole, as QEMU does.
		return edge(guestOff(start), guestOff(off+n))
	}
	for at := start; at < end; {
		stop := d.wholeClusters(at, end)
		step, err := d.changeSlice(guestOff(at), guestOff(stop), f)
		if errors.Is(err, errPartOfCompressed) {
			step, err = stop-at, edge(guestOff(at), guestOff(stop))
		}
		if err != nil {
			return err
		}
		at += step
	}
	return edge(guestOff(end), guestOff(off+n))
}

var errPartOfCompressed = errors.New("part of a compressed cluster")

// partOfCompressed reports whether at lies within a compressed cluster, which is
// not at its start.
func (d *disk) partOfCompressed(at int64) bool {
	if d.geo.alignDown(at) == at || at >= d.Size() {
		return false
	}
	e, err := d.Resolve(at, 1)
	return err == nil && e.Kind == block.Special
}

// wholeClusters returns the end of the part of [at, end) that consists of whole
// clusters, or of the part in at's cluster if that is not whole.
func (d *disk) wholeClusters(at, end int64) int64 {
	next := d.geo.alignDown(at) + d.geo.clusterSize
	if !d.geo.extended || end == d.Size() && d.geo.alignDown(at) == at {
		return end
	}
	if d.geo.alignDown(at) != at || next > end {
		return min(next, end)
	}
	return d.geo.alignDown(end)
}

// changeSlice changes entries from off on, up to the end of an L2 slice, and
// returns how many guest bytes that were.
func (d *disk) changeSlice(off, end guestOff, f func(l2Entry, uint64) (l2Entry, change)) (int64, error) {
	if err := d.relieve(); err != nil {
		return 0, err
	}
	n := min(int64(end-off), d.sliceSpan(off))
	first := d.geo.alignDown(int64(off))
	r := d.ranges.Acquire(first, d.geo.alignUp(int64(off)+n)-first)
	defer d.ranges.Release(r)
	if err := d.changeHeld(off, off+guestOff(n), f); err != nil || !d.external {
		return n, err
	}
	return n, d.punchUnplaced(int64(off), int64(off)+n)
}

// changeHeld changes the entries of a range that is locked and lies in one slice.
func (d *disk) changeHeld(off, end guestOff, f func(l2Entry, uint64) (l2Entry, change)) error {
	for {
		d.mu.Lock()
		missing, err := d.changeLocked(off, end, f)
		d.mu.Unlock()
		if missing == 0 || err != nil {
			return err
		}
		if err := d.loadSlice(missing); err != nil {
			return err
		}
	}
}

func (d *disk) changeLocked(off, end guestOff, f func(l2Entry, uint64) (l2Entry, change)) (missing hostOff, err error) {
	if err := d.refusal(); err != nil {
		return 0, err
	}
	table, err := d.l2Table(off)
	if err != nil {
		return 0, err
	}
	if table == 0 {
		// An entry that is not there may well stay so.
		if _, c := f(l2Entry{}, allAllocated); c == keep {
			return 0, nil
		}
	}
	if err := d.ownTable(off); err != nil {
		return 0, err
	}
	b, at, slice, err := d.lookup(off)
	if err != nil || b == nil {
		return slice, err
	}
	for off < end {
		start := guestOff(d.geo.alignDown(int64(off)))
		next := min(end, start+guestOff(d.geo.clusterSize))
		whole := off == start && int64(next) >= min(int64(start)+d.geo.clusterSize, d.Size())
		if e := d.entryAt(b, at); e.compressed() && !whole {
			return 0, errPartOfCompressed
		}
		if err := d.changeEntry(b, at, off, d.units(off, next), f); err != nil {
			return 0, err
		}
		off, at = next, at+1<<d.geo.entryBits
	}
	return 0, nil
}

// units returns the mask of the units of [off, next), which lie in one cluster.
func (d *disk) units(off, next guestOff) uint64 {
	if !d.geo.extended {
		return 1
	}
	start := guestOff(d.geo.alignDown(int64(off)))
	return unitMask(uint((off-start)>>d.geo.unitBits), uint((next-start+1<<d.geo.unitBits-1)>>d.geo.unitBits))
}

func (d *disk) changeEntry(b *cache.Block, at int, off guestOff, units uint64, f func(l2Entry, uint64) (l2Entry, change)) error {
	old := d.entryAt(b, at)
	if _, err := d.geo.stateOf(old, 0, d.external); err != nil {
		return d.damagedEntry(old, off, err)
	}
	e, c := f(old, units)
	if c == keep || e == old {
		return nil
	}
	if c == free {
		if err := d.mayGiveUp(old); err != nil {
			return err
		}
	}
	d.setEntry(b, at, e)
	if c == free {
		d.giveUpFor(max(d.cause, byRequest), func() { d.releaseEntry(old) })
	}
	return nil
}

// zeroAsData writes zeros like any other data, unless they are there and need
// not be this layer's own.
func (d *disk) zeroAsData(from, to guestOff, own bool) error {
	if !own && d.oldIsZero(from, to) && d.canMarkZero() {
		return nil
	}
	var next int64
	for from < to {
		n := min(int64(to-from), int64(len(zeros)))
		k, err := d.writeRun(zeros[:n], from, &next)
		if err != nil {
			return err
		}
		from += guestOff(k)
	}
	return nil
}

var zeros [cow.OneWrite]byte
