package qed

import (
	"context"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Growing the disk. The tables are large enough from the beginning.

// Resize implements block.Resizer for sizes that are not smaller.
func (d *disk) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case o.Preallocation != block.PreallocOff:
		return block.Unsupportedf("Unsupported preallocation mode '%s'", o.Preallocation)
	case size%512 != 0:
		return block.Invalidf("Invalid image size specified")
	case size < d.Size():
		return block.Unsupportedf("Shrinking images is currently not supported")
	case size < 0 || uint64(size) > maxImageSize(int64(d.hdr.clusterSize), int64(d.hdr.tableSize)):
		return block.Invalidf("Invalid image size specified")
	}
	if err := d.examine(); err != nil {
		return err
	}
	return d.grow(task.New(ctx, o.Progress), size)
}

// grow makes the disk size bytes long. What comes to light is zero.
func (d *disk) grow(t *task.Task, size int64) error {
	if err := d.zeroBeyond(t, size); err != nil {
		return err
	}
	// Before the disk is longer, what hides the backing image there must be on
	// disk.
	if err := d.Flush(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.patchHeader(atSize, le64(uint64(size))); err != nil {
		return err
	}
	d.hdr.imageSize = uint64(size)
	d.size.Store(size)
	return nil
}

// zeroBeyond zeroes what lies past the end of the disk, up to size: the rest of
// the last cluster, and what the backing image has there.
func (d *disk) zeroBeyond(t *task.Task, size int64) error {
	old := d.Size()
	if edge := min(size, d.geo.alignUp(old)); edge > old {
		if err := d.zeroEdge(guestOff(old), guestOff(edge)); err != nil {
			return err
		}
	}
	if d.backing == nil {
		return nil
	}
	start, end := d.geo.alignUp(old), min(size, d.backing.Size())
	t.Expect(max(0, end-start))
	return d.zeroRange(t, start, end-start, 0)
}

// zeroEdge zeroes [off, end), which lies in the last cluster of the disk and
// past its end.
func (d *disk) zeroEdge(off, end guestOff) error {
	for {
		e, err := d.pinnedResolve(int64(off), int64(end-off))
		switch {
		case err != nil:
			return err
		case e.Kind == block.Data:
			if n, err := d.zeroData(int64(off), e.Length, 0); n > 0 || err != nil {
				return err
			}
			continue
		case e.Kind == block.Zero || d.backing == nil || d.backing.Size() <= int64(off):
			return nil
		}
		if n, err := d.writeZeros(off, end); n > 0 || err != nil {
			return err
		}
	}
}
