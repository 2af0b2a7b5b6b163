package qcow2

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/prealloc"
	"github.com/diskimg/diskimg/internal/task"
)

// Preallocation: every guest cluster gets its place when the image is made.

// Preallocate implements block.Preallocator, for a disk on which nothing has
// been written yet. With extended L2 entries the clusters get their space and
// their subclusters stay unallocated.
func (d *disk) Preallocate(mode block.Preallocation) error {
	if mode == block.PreallocOff {
		return nil
	}
	token := d.enter()
	defer d.leave(token)
	return d.settle(d.preallocateRange(nil, 0, d.Size(), mode))
}

// preallocateRange is Preallocate for clusters that have no space. The steps are
// their bytes.
func (d *disk) preallocateRange(t *task.Task, off, end int64, mode block.Preallocation) error {
	for off < end {
		a, err := d.preallocate(guestOff(off), end-off, mode == block.PreallocMetadata)
		if err != nil {
			return err
		}
		if err := d.reserve(t, &a, mode); err != nil {
			return err
		}
		off = a.end(&d.geo)
	}
	if !d.external {
		return d.extendFile()
	}
	return growFile(d.data, end)
}

// preallocate links a run of guest clusters to new host clusters.
func (d *disk) preallocate(off guestOff, n int64, keepsZero bool) (allocation, error) {
	if err := d.relieve(); err != nil {
		return allocation{}, err
	}
	n = min(n, d.sliceSpan(off))
	r := d.ranges.Acquire(int64(off), d.geo.alignUp(n))
	defer d.ranges.Release(r)
	a, err := d.plan(off, n, 0)
	if err != nil {
		return a, err
	}
	a.from, a.to = a.off, a.off // no unit is filled
	a.keepsZero = keepsZero
	err = d.blank(&a)
	if err == nil {
		err = d.publish(&a)
	}
	if err != nil {
		d.undo(&a)
	}
	return a, err
}

// blank makes the space of a read as zero. Before it is linked, that is: it may
// have held something else.
func (d *disk) blank(a *allocation) error {
	switch {
	case d.holdsZeros():
		return d.writeZeros(a)
	case a.run.fresh:
		return nil
	}
	return makeZero(d.data, int64(a.host), int64(a.host)+a.clusters<<d.geo.clusterBits)
}

// makeZero has what f holds of [off, end) read as zero, without space if that can
// be.
func makeZero(f block.File, off, end int64) error {
	size, err := f.Size()
	n := min(end, size) - off
	if err != nil || n <= 0 {
		return err
	}
	err = block.PunchHole(f, off, n)
	if errors.Is(err, block.ErrUnsupported) {
		err = block.WriteZeroes(f, off, n)
	}
	return err
}

// reserve takes the space of a in the file system. The steps are bytes.
func (d *disk) reserve(t *task.Task, a *allocation, mode block.Preallocation) error {
	off, n := int64(a.host), a.clusters<<d.geo.clusterBits
	if d.holdsZeros() || mode == block.PreallocMetadata {
		return t.Step(n) // the first by blank
	}
	return prealloc.Take(t, d.data, off, n, mode)
}

// holdsZeros reports whether new space has to hold encrypted zeros, because an
// entry can't say that what is in the file does not count.
func (d *disk) holdsZeros() bool { return d.crypt != nil && !d.geo.extended && !d.zeroPlaces() }

// writeZeros fills the space of a with them.
func (d *disk) writeZeros(a *allocation) error {
	for at, end := a.off, guestOff(a.end(&d.geo)); at < end; {
		n := min(int64(end-at), int64(len(zeros)))
		if err := (space{d, a}).WriteNew(zeros[:n], int64(at)); err != nil {
			return err
		}
		at += guestOff(n)
	}
	return nil
}
