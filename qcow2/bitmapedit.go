package qcow2

import (
	"cmp"
	"context"
	"math/bits"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Changing bitmaps on request: all edits of a call or none, on disk when it
// returns.

// EditBitmaps implements block.BitmapEditor.
func (d *disk) EditBitmaps(ctx context.Context, edits []block.BitmapEdit, progress func(done, total int64)) error {
	if !d.writable {
		return block.ErrReadOnly
	}
	d.whole.Lock()
	defer d.whole.Unlock()
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	t := task.New(ctx, progress)
	t.Expect(int64(len(edits)))
	next := cloneBitmaps(d.bitmaps.list)
	for _, e := range edits {
		var err error
		if next, err = d.editBitmap(t, next, e); err != nil {
			return &block.BitmapEditError{Edit: e, Err: err}
		}
		if err := t.Step(1); err != nil {
			return err
		}
	}
	return d.saveBitmaps(next, d.bitmaps.begun.Load())
}

// cloneBitmaps copies the list and its bitmaps. They share what bits they have.
func cloneBitmaps(list []*bitmap) []*bitmap {
	list = slices.Clone(list)
	for i, b := range list {
		copied := *b
		list[i] = &copied
	}
	return list
}

// editBitmap changes list, which is a copy, and returns what becomes of it.
func (d *disk) editBitmap(t *task.Task, list []*bitmap, e block.BitmapEdit) ([]*bitmap, error) {
	switch e.Op {
	case block.AddBitmap:
		b, err := d.newBitmap(list, e)
		return append(list, b), err
	case block.RemoveBitmap:
		if findBitmap(list, e.Name) == nil {
			return nil, block.Invalidf("Dirty bitmap '%s' not found", e.Name)
		}
		return slices.DeleteFunc(list, func(b *bitmap) bool { return b.name == e.Name }), nil
	}
	b, err := usableBitmap(list, e.Name)
	if err != nil {
		return nil, err
	}
	switch e.Op {
	case block.ClearBitmap:
		b.valid, b.delta, b.changed = 0, bitset{}, true
	case block.EnableBitmap, block.DisableBitmap:
		b.enabled = e.Op == block.EnableBitmap
	case block.MergeBitmap:
		return list, d.mergeBitmap(t, list, b, e)
	default:
		return nil, block.Invalidf("unknown operation %d on bitmap '%s'", e.Op, e.Name)
	}
	return list, nil
}

func (d *disk) newBitmap(list []*bitmap, e block.BitmapEdit) (*bitmap, error) {
	gran := e.Granularity
	if gran == 0 {
		gran = min(max(d.geo.clusterSize, defaultMinGran), defaultMaxGran)
	}
	switch {
	case e.Name == "":
		return nil, block.Invalidf("Bitmap name cannot be empty")
	case findBitmap(list, e.Name) != nil:
		return nil, block.Invalidf("Bitmap already exists: %s", e.Name)
	case gran < 1<<minGranularityBits || gran > 1<<maxGranularityBits || gran&(gran-1) != 0:
		return nil, block.Invalidf("Granularity must be power of 2 and at least 512")
	case !d.geo.v3:
		return nil, errNoBitmaps
	case len(e.Name) > maxBitmapName:
		return nil, block.Errorf(block.ErrNoSpace, "Name length exceeds maximum (%d characters)", maxBitmapName)
	case len(list) >= maxBitmaps:
		return nil, block.Errorf(block.ErrNoSpace, "Maximum number of persistent bitmaps is already reached")
	}
	b := &bitmap{name: e.Name, granBits: uint8(bits.TrailingZeros64(uint64(gran))), enabled: !e.Disabled, changed: true}
	b.bits = bitmapBits(d.Size(), b.granBits)
	return b, d.bitmapFits(b.bits)
}

// mergeBitmap sets in b what is set in the source of e.
func (d *disk) mergeBitmap(t *task.Task, list []*bitmap, b *bitmap, e block.BitmapEdit) error {
	if own, ok := ownLayer(e.From); e.From != nil && !(ok && own == d) {
		return b.mergeImage(t, e.From, e.Source, d.Size())
	}
	source, err := usableBitmap(list, e.Source)
	if err != nil || source == b {
		return err
	}
	b.delta, b.changed = b.delta.clone(), true
	d.dirtySpans(source, func(s block.Span, failed error) bool {
		b.mark(s.Start, s.Length)
		err = cmp.Or(failed, t.Step(0))
		return err == nil
	})
	return err
}

func ownLayer(i *block.Image) (*disk, bool) {
	if i == nil {
		return nil, false
	}
	return block.As[*disk](i)
}

// mergeImage merges a bitmap of another image, whose disk has to be as large.
func (b *bitmap) mergeImage(t *task.Task, from *block.Image, name string, size int64) error {
	source, ok := block.As[block.BitmapLister](from)
	if !ok {
		return block.Invalidf("Dirty bitmap '%s' not found", name)
	}
	b.delta, b.changed = b.delta.clone(), true
	for s, err := range source.DirtyExtents(name) {
		if err := cmp.Or(err, t.Step(0)); err != nil {
			return err
		}
		if from.Size() == size {
			b.mark(s.Start, s.Length)
		}
	}
	if from.Size() != size {
		return block.Invalidf("Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", size, from.Size())
	}
	return nil
}
