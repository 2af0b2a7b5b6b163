package raw

import (
	"context"
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/prealloc"
	"github.com/diskimg/diskimg/internal/task"
)

// Resize implements block.Resizer: the length of the file is that of the disk.
// What is new reads as zero; a last sector that is not whole ends in zeros.
// After an error the disk has the size it had.
func (d *disk) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	now := d.Size()
	switch {
	case size < 0 || roundUp(size) < size:
		return block.Invalidf("a disk can't have a size of %d bytes", size)
	case d.window > 0:
		return block.Unsupportedf("Cannot resize fixed-size raw disks")
	case size < now && !o.Shrink:
		return block.Invalidf("shrinking from %d to %d bytes would lose what lies beyond, and was not allowed", now, size)
	case size < now && o.Preallocation != block.PreallocOff:
		return block.Invalidf("Cannot use preallocation for shrinking files")
	case o.Preallocation == block.PreallocMetadata:
		return block.Unsupportedf("Unsupported preallocation mode: %s", o.Preallocation)
	}
	if d.looksLike != nil {
		d.edges.Lock()
		defer d.edges.Unlock()
		if err := d.staysRaw(change{}, roundUp(size)); err != nil {
			return err
		}
	}
	d.unsynced.Store(true)
	if err := d.resizeFile(task.New(ctx, o.Progress), now, size, o.Preallocation); err != nil {
		return errors.Join(err, d.f.Truncate(d.offset+now))
	}
	d.size.Store(roundUp(size))
	return nil
}

func (d *disk) resizeFile(t *task.Task, now, size int64, mode block.Preallocation) error {
	// The file may end within the last sector: what follows is zero so far.
	if err := lengthen(d.f, d.offset+size); err != nil {
		return err
	}
	switch actual, err := d.f.Size(); {
	case err != nil:
		return err
	case actual != d.offset+size:
		return block.Unsupportedf("Cannot resize device files")
	case size <= now:
		return nil
	}
	t.Expect(size - now)
	return prealloc.Take(t, d.f, d.offset+now, size-now, mode)
}
