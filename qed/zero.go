package qed

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
	"github.com/diskimg/diskimg/internal/cow"
	"github.com/diskimg/diskimg/internal/task"
)

// Write zeroes: whole clusters without space by their entries, clusters with
// space in their place. QED has no way to give clusters back.

// WriteZeroes implements block.Layer.
func (d *disk) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	if err := d.examine(); err != nil {
		return err
	}
	return d.zeroRange(nil, off, n, flags)
}

// zeroRange is WriteZeroes for any range that the tables can map.
func (d *disk) zeroRange(t *task.Task, off, n int64, flags block.ZeroFlags) error {
	for n > 0 {
		k, err := d.zeroRun(off, n, flags)
		if err != nil {
			return err
		}
		if err := t.Step(k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// zeroRun zeroes the start of a range, in one way, and returns how much; 0 says
// that the tables have changed and it is to be tried again.
func (d *disk) zeroRun(off, n int64, flags block.ZeroFlags) (int64, error) {
	e, err := d.pinnedResolve(off, n)
	if err == nil {
		err = d.brokenError()
	}
	switch {
	case err != nil:
		return 0, err
	case e.Kind == block.Data:
		return d.zeroData(off, e.Length, flags)
	case e.Kind == block.Zero:
		return e.Length, nil
	}
	return d.zeroBelow(guestOff(off), guestOff(e.End()))
}

// zeroData zeroes the start of a range in its place, nothing if it has none any
// more, and returns how much.
func (d *disk) zeroData(off, n int64, flags block.ZeroFlags) (int64, error) {
	defer d.Unpin(d.Pin())
	host, n, err := d.inPlace(guestOff(off), n)
	if n == 0 || err != nil {
		return 0, err
	}
	return n, d.zeroHost(int64(host), n, flags)
}

// zeroHost zeroes bytes of the image file, as holes if that is allowed.
func (d *disk) zeroHost(off, n int64, flags block.ZeroFlags) error {
	if flags&block.MayUnmap != 0 {
		if err := block.PunchHole(d.file, off, n); !errors.Is(err, block.ErrUnsupported) {
			return err
		}
	}
	return block.WriteZeroes(d.file, off, n)
}

// zeroBelow zeroes the start of [off, end), which is not allocated. A part of a
// cluster becomes data, as QEMU does it. The end of the disk counts as that of
// its cluster.
func (d *disk) zeroBelow(off, end guestOff) (int64, error) {
	next := guestOff(d.geo.alignDown(int64(off)) + d.geo.clusterSize)
	whole := min(next, guestOff(d.Size()))
	if d.geo.alignDown(int64(off)) == int64(off) && end >= whole {
		if int64(end) < d.Size() {
			end = max(next, guestOff(d.geo.alignDown(int64(end))))
		}
		return d.markZero(off, end)
	}
	return d.writeZeros(off, min(end, next))
}

// writeZeros writes zeros as data to the start of [off, end), which lies in one
// cluster without space, and returns how many.
func (d *disk) writeZeros(off, end guestOff) (int64, error) {
	buf := cow.Buffer(int64(end - off))
	defer cow.Release(buf)
	clear(*buf)
	if err := d.relieve(); err != nil {
		return 0, err
	}
	return d.writeNew(*buf, off)
}

// markZero makes the clusters from off on that are not allocated zero by their
// entries, up to end or the end of an L2 slice, and returns how many guest
// bytes that were.
func (d *disk) markZero(off, end guestOff) (int64, error) {
	if err := d.relieve(); err != nil {
		return 0, err
	}
	n := min(int64(end-off), d.sliceSpan(off))
	r := d.ranges.Acquire(int64(off), d.geo.alignUp(n))
	defer d.ranges.Release(r)
	var done int64
	err := d.withEntry(off, true, func(b *cache.Block, at int) error {
		for ; done < n && entryAt(b, at) == 0; at += 8 {
			d.setEntry(b, at, zeroCluster)
			done += d.geo.clusterSize
		}
		return nil
	})
	return min(done, n), err
}

// Discard implements block.Layer. It does nothing: QED can't give clusters
// back, and QEMU leaves their content alone, too.
func (d *disk) Discard(off, n int64) error { return nil }
