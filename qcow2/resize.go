package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"syscall"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Changing the size of the disk, and with it the L1 table.

// Resize implements block.Resizer. What is new reads as zero, also where a
// backing image is longer than the disk was. A power cut leaves the old size or
// the new one; while the disk shrinks, what is to go may read as zero before it
// goes.
func (d *disk) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	t := task.New(ctx, o.Progress)
	err := d.resize(t, size, o)
	if err == nil {
		t.Finish()
	}
	return err
}

func (d *disk) resize(t *task.Task, size int64, o block.ResizeOptions) error {
	d.whole.Lock()
	defer d.whole.Unlock()
	d.writers.Lock()
	defer d.writers.Unlock()
	if err := d.checkResize(size, o); err != nil {
		return err
	}
	old := d.Size()
	t.Expect(resizeSteps(old, size, o.Preallocation))
	if err := t.Step(0); err != nil {
		return err
	}
	switch {
	case size < old:
		t.Settle() // what is to go may have been cleared
		return d.settle(d.resizeBitmaps(size, func() error { return d.shrink(t, size) }))
	case size > old:
		return d.settle(d.resizeBitmaps(size, func() error { return d.enlarge(t, size, o.Preallocation) }))
	}
	return nil
}

// resizeSteps returns how many bytes are gone through to change the size.
func resizeSteps(old, size int64, mode block.Preallocation) int64 {
	switch {
	case size < old:
		return old - size
	case mode != block.PreallocOff:
		return 2 * (size - old)
	}
	return size - old
}

func (d *disk) checkResize(size int64, o block.ResizeOptions) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mayResize(size, o)
}

// mayResize refuses what can't be. Needs mu.
func (d *disk) mayResize(size int64, o block.ResizeOptions) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case size < 0 || size%512 != 0:
		return block.Invalidf("The new size must be a multiple of 512")
	case d.hdr.snapshotCount > 0 && !d.geo.v3:
		return block.Unsupportedf("Can't resize a v2 image which has snapshots")
	case size < d.Size() && !o.Shrink:
		return block.Invalidf("shrinking from %d to %d bytes would lose what lies beyond, and was not allowed", d.Size(), size)
	case size < d.Size() && o.Preallocation != block.PreallocOff:
		return block.Invalidf("Preallocation can't be used for shrinking an image")
	case size > maxSize || d.geo.l1Entries(size) > maxL1Bytes/8:
		return block.Errorf(syscall.EFBIG, "Failed to grow the L1 table: File too large")
	}
	return d.refusal()
}

// enlarge makes the disk larger. Needs writers exclusively.
func (d *disk) enlarge(t *task.Task, size int64, mode block.Preallocation) error {
	old := d.Size()
	need := d.geo.l1Entries(size)
	if mode == block.PreallocOff && d.hdr.autoclear&autoclearRawData != 0 {
		mode = block.PreallocMetadata // what anyone writes to the data file is seen
	}
	if d.shows(old, size) && !d.canMarkZero() && mode < block.PreallocFalloc {
		return block.Unsupportedf("Failed to zero out new clusters: Operation not supported")
	}
	was, err := d.ends()
	if err != nil {
		return err
	}
	err = d.flushes.Exclude(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.growL1(int64(need))
	})
	if err == nil {
		err = d.prepareNew(t, old, size, mode)
	}
	if err != nil {
		// What was prepared lies behind the end of the disk, for nobody to see.
		return errors.Join(err, d.dropNew(old, size, was))
	}
	return d.setSize(size)
}

// fileEnds are where the files of an image end.
type fileEnds struct {
	clusters int64 // of the image file
	data     int64 // bytes of an external data file
}

func (d *disk) ends() (e fileEnds, err error) {
	if d.external {
		e.data, err = d.data.Size()
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	e.clusters = d.fileEnd
	return e, err
}

// dropNew gives up what lies between the end of the disk and size, but not the state
// of a machine behind that, and cuts the files off at was, or where what they hold
// ends.
func (d *disk) dropNew(old, size int64, was fileEnds) error {
	if err := d.dropRange(old, size); err != nil {
		return err
	}
	if err := d.flushes.Exclude(func() error { return d.trim(was.clusters) }); err != nil || !d.external {
		return err
	}
	// After nothing leads there any more.
	if now, err := d.data.Size(); err != nil || now <= was.data {
		return err
	}
	return d.data.Truncate(was.data)
}

// shows reports whether something lies below the range that would come to light.
func (d *disk) shows(old, size int64) bool {
	return d.backing != nil && d.backing.Size() > d.geo.alignUp(old) && size > d.geo.alignUp(old)
}

// prepareNew has the tables and data behind the end of the disk as they are to be
// when it is longer.
func (d *disk) prepareNew(t *task.Task, old, size int64, mode block.Preallocation) error {
	whole := min(d.geo.alignUp(old), size)
	if err := d.zeroTail(guestOff(old), guestOff(whole)); err != nil {
		return err
	}
	if err := d.zeroNew(t, old, d.geo.alignUp(size)); err != nil {
		return err
	}
	start := whole
	if mode >= block.PreallocFalloc && d.isIdle(d.geo.alignDown(old), old) {
		start = d.geo.alignDown(old) // the part that is new has its space too
	}
	if mode != block.PreallocOff && start < size {
		if err := d.preallocateRange(t, start, size, mode); err != nil {
			return err
		}
	}
	if d.external {
		if err := d.growData(old, size); err != nil {
			return err
		}
	}
	// Before the header says that the disk is longer, what makes the new part
	// zero must be on disk.
	return d.finish()
}

// isIdle reports whether neither the image nor what is below holds anything in
// [off, end), which lies in one cluster.
func (d *disk) isIdle(off, end int64) bool {
	if off == end || d.backing != nil && d.backing.Size() > off {
		return false
	}
	e, err := d.Resolve(off, end-off)
	return err == nil && e.Kind == block.Below && e.Length == end-off
}

// growData makes the data file as long as the disk will be, if it is raw with
// zeros.
func (d *disk) growData(old, size int64) error {
	now, err := d.data.Size()
	if err != nil {
		return err
	}
	if n := min(now, size) - old; n > 0 && d.hdr.autoclear&autoclearRawData != 0 {
		if err := block.WriteZeroes(d.data, old, n); err != nil {
			return err
		}
	}
	return growFile(d.data, size)
}

// zeroTail makes the rest of the disk's last cluster zero: what was below it, or
// was left there by a disk that was longer, must not come to light.
func (d *disk) zeroTail(from, to guestOff) error {
	for from < to {
		e, err := d.Resolve(int64(from), int64(to-from))
		if err != nil {
			return err
		}
		n := e.Length
		if e.Kind == block.Data || e.Kind == block.Special || e.Kind == block.Below && d.backing != nil && d.backing.Size() > int64(from) {
			n, err = d.zeroSome(from, n)
		}
		if err != nil {
			return err
		}
		from += guestOff(n)
	}
	return nil
}

// zeroSome makes the start of a range zero, with space, and returns how much.
func (d *disk) zeroSome(off guestOff, n int64) (int64, error) {
	host, k, err := d.inPlace(off, n)
	switch {
	case err != nil:
		return 0, err
	case k > 0 && d.crypt == nil:
		d.event(block.EventWriteAIO)
		return k, block.WriteZeroes(d.data, int64(host), k)
	}
	return d.writeRun(zeros[:min(n, int64(len(zeros)))], off, new(int64))
}

// zeroNew has the entries of whole clusters behind old say zero if a backing image
// would show in any. Where they can't, and else, they say nothing.
func (d *disk) zeroNew(t *task.Task, old, end int64) error {
	mark := func(e l2Entry, _ uint64) (l2Entry, change) {
		if e == (l2Entry{}) {
			return e, keep
		}
		return l2Entry{}, free
	}
	if d.backing != nil && d.backing.Size() > old && d.geo.v3 && d.canMarkZero() {
		mark = func(l2Entry, uint64) (l2Entry, change) { return d.zeroEntry(), free }
	}
	return d.eachWhole(t, d.geo.alignUp(old), end, mark)
}

// eachWhole changes the entries of whole clusters. The steps are their bytes.
func (d *disk) eachWhole(t *task.Task, off, end int64, f func(l2Entry, uint64) (l2Entry, change)) error {
	for off < end {
		n, err := d.changeSlice(guestOff(off), guestOff(end), f)
		if err != nil {
			return err
		}
		off += n
		if err := t.Step(n); err != nil {
			return err
		}
	}
	return nil
}

// shrink makes the disk smaller. Needs writers exclusively.
func (d *disk) shrink(t *task.Task, size int64) error {
	// Before the header says that the disk is shorter, what it loses is gone: who
	// makes it longer again, or reads the machine's state, must not find it.
	if err := d.clearFrom(t, size); err != nil {
		return err
	}
	if err := d.finish(); err != nil {
		return err
	}
	if err := d.setSize(size); err != nil {
		return err
	}
	// After the header says that the disk is shorter, its tables can go.
	if err := d.dropRange(size, d.l1Entries()*d.tableSpan()); err != nil {
		return err
	}
	if d.external {
		if err := d.data.Truncate(size); err != nil {
			return err
		}
	}
	return d.flushes.Exclude(func() error { return d.trim(1) })
}

// clearFrom has the clusters behind size read as zero, where that can be said.
func (d *disk) clearFrom(t *task.Task, size int64) error {
	if d.hdr.autoclear&autoclearRawData != 0 {
		return makeZero(d.data, size, math.MaxInt64)
	}
	if !d.canMarkZero() {
		return nil
	}
	return d.eachWhole(t, d.geo.alignUp(size), d.geo.alignUp(d.Size()), func(e l2Entry, _ uint64) (l2Entry, change) {
		switch {
		case e == l2Entry{} || e == d.zeroEntry():
			return e, keep
		case d.geo.v3:
			return d.zeroEntry(), free
		}
		return l2Entry{}, free
	})
}

// setSize has the header say how long the disk is.
func (d *disk) setSize(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.patchHeader(atSize, be64(uint64(size))); err != nil {
		return err
	}
	d.hdr.size = uint64(size)
	d.size.Store(size)
	return nil
}

// dropRange gives up all whole clusters of [off, to), behind the end of the disk,
// with the L2 tables from there on that have no others in front of off, and the
// space that they take up in the file.
func (d *disk) dropRange(off, to int64) error {
	d.because(byResize)
	defer d.because(byOther)
	first, last := int64(d.geo.l1Entries(off)), min(int64(d.geo.l1Entries(to)), d.l1Entries())
	end := min(d.geo.alignUp(to), min(first, last)*d.tableSpan())
	err := d.eachWhole(nil, d.geo.alignUp(off), end, func(e l2Entry, _ uint64) (l2Entry, change) {
		if e == (l2Entry{}) {
			return e, keep
		}
		return l2Entry{}, free
	})
	if err != nil {
		return err
	}
	for i := first; i < last; i++ {
		if err := d.dropTable(i); err != nil {
			return err
		}
	}
	return d.finish()
}

// grow makes the disk size bytes long; size is not smaller than now.
func (d *disk) grow(size int64) error {
	need := d.geo.l1Entries(size)
	if size > maxSize || need > maxL1Bytes/8 {
		return block.Invalidf("The image size is too large for file format 'qcow2' (try using a larger cluster size)")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	if err := d.growL1(int64(need)); err != nil {
		return err
	}
	if err := d.patchHeader(atSize, be64(uint64(size))); err != nil {
		return err
	}
	d.hdr.size = uint64(size)
	d.size.Store(size)
	return nil
}

// growL1 moves the L1 table to where it has room for need entries. Needs mu
// exclusively; see writeCounts.
func (d *disk) growL1(need int64) error {
	old := int64(len(d.l1))
	if need <= old {
		return nil
	}
	if old > 0 {
		if err := d.mayWriteMeta(metaL1, hostOff(d.hdr.l1Offset), old*8); err != nil {
			return err
		}
	}
	d.event(block.EventL1GrowAlloc)
	clusters := d.geo.clusters(need * 8)
	run, err := d.alloc(clusters)
	if err != nil {
		return err
	}
	table := make([]uint64, need)
	copy(table, d.l1)
	off := run.off(&d.geo)
	data := make([]byte, d.geo.alignUp(need*8))
	copy(data, encodeTable(table))
	d.event(block.EventL1GrowWrite)
	if _, err := d.file.WriteAt(data, int64(off)); err != nil {
		d.unalloc(run)
		return err
	}
	d.claim(metaL1, off, int64(len(data)))
	return d.switchL1(table, off)
}

// switchL1 makes table, which is in the file at off, the active L1 table.
func (d *disk) switchL1(table []uint64, off hostOff) error {
	d.event(block.EventL1GrowSwitch)
	// Before the header names the new table, it must be on disk, and so must
	// the counts and the data that its entries lead to.
	if err := d.writeCounts(); err != nil {
		return err
	}
	var field [12]byte
	binary.BigEndian.PutUint32(field[:], uint32(len(table)))
	binary.BigEndian.PutUint64(field[4:], uint64(off))
	if err := d.patchHeader(atL1, field[:]); err != nil {
		return err
	}
	if d.hdr.l1Offset != 0 {
		d.replaced(hostOff(d.hdr.l1Offset), int64(len(d.l1))*8)
	}
	d.l1 = table
	d.hdr.l1Offset, d.hdr.l1Size = uint64(off), uint32(len(table))
	clear(d.l1Dirty)
	return nil
}

// writeCounts writes all dirty refcount blocks and what names them, and syncs.
// Needs mu exclusively, and that no flush runs: what it has in hand of the same
// blocks is older, and must not get to the disk last.
func (d *disk) writeCounts() error {
	b := &batch{refs: d.refs.TakeDirty()}
	b.counts = cachePieces(metaRefblock, b.refs)
	b.reftable = tablePieces(metaReftable, d.hdr.reftableOffset, d.reftable, d.reftableDirty)
	defer d.refs.Written(b.refs)
	if err := d.mayWriteBatch(b); err != nil {
		return err
	}
	if err := d.writeBatch(b); err != nil {
		return d.poison(err)
	}
	return nil
}
