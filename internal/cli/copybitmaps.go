package cli

import (
	"errors"
	"slices"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file copies dirty bitmaps for convert. What can't be copied is known
// before the disk is copied; bitmaps come after it, and so record nothing of it.

// findBitmaps finds out which bitmaps of the input are to be copied.
func (v *conversion) findBitmaps() error {
	if !v.bitmaps {
		return nil
	}
	if len(v.sources) > 1 {
		return failf("Copying bitmaps only possible with single source")
	}
	l, ok := block.As[block.BitmapLister](v.opened[0])
	if !ok {
		return failf("Source lacks bitmap support")
	}
	list, err := l.Bitmaps()
	if errors.Is(err, block.ErrUnsupported) {
		return failf("Source lacks bitmap support")
	}
	if err != nil {
		return err
	}
	for _, b := range slices.Backward(list) { // as qemu-img does
		if b.Unusable != nil && !v.skipBroken {
			return failf("Cannot copy inconsistent bitmap '%s'\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it", b.Name)
		}
	}
	v.found = list
	return nil
}

// mayHaveBitmaps refuses an output that can't have those bitmaps.
func (v *conversion) mayHaveBitmaps(img *diskimg.Image) error {
	if !v.bitmaps {
		return nil
	}
	unsupported := failf("Format driver '%s' does not support bitmaps", img.Format())
	l, ok := block.As[block.BitmapLister](img)
	if !ok {
		return unsupported
	}
	there, err := l.Bitmaps()
	if errors.Is(err, block.ErrUnsupported) {
		return unsupported
	}
	if err != nil {
		return err
	}
	for _, b := range slices.Backward(v.found) {
		switch same := func(other block.Bitmap) bool { return other.Name == b.Name }; {
		case b.Unusable != nil:
		case slices.ContainsFunc(there, same):
			return failf("Failed to create bitmap %s: Bitmap already exists: %s", b.Name, b.Name)
		case img.Size() < v.size:
			return failf("output file is smaller than input file")
		case img.Size() != v.size:
			return failf("Failed to populate bitmap %s: Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", b.Name, img.Size(), v.size)
		}
	}
	return nil
}

// copyBitmaps makes the bitmaps of the output, with what those of the input
// have recorded.
func (v *conversion) copyBitmaps(img *diskimg.Image) error {
	e, _ := block.As[block.BitmapEditor](img)
	for _, b := range slices.Backward(v.found) {
		if b.Unusable != nil {
			v.sh.warn("Skipping inconsistent bitmap '%s'", b.Name)
		}
	}
	var edits []block.BitmapEdit
	for _, b := range v.found {
		if b.Unusable == nil {
			edits = append(edits, v.copyOf(b)...)
		}
	}
	if len(edits) == 0 {
		return nil
	}
	return copyBitmapError(e.EditBitmaps(v.sh.ctx, edits, nil))
}

func (v *conversion) copyOf(b block.Bitmap) []block.BitmapEdit {
	edits := []block.BitmapEdit{
		{Op: block.AddBitmap, Name: b.Name, Granularity: b.Granularity, Disabled: true},
		{Op: block.MergeBitmap, Name: b.Name, Source: b.Name, From: v.opened[0]},
	}
	if b.Enabled {
		edits = append(edits, block.BitmapEdit{Op: block.EnableBitmap, Name: b.Name})
	}
	return edits
}

func copyBitmapError(err error) error {
	var failed *block.BitmapEditError
	if !errors.As(err, &failed) {
		return err
	}
	text := "Failed to create bitmap "
	if failed.Edit.Op != block.AddBitmap {
		text = "Failed to populate bitmap "
	}
	return &sentence.Error{Text: text + failed.Edit.Name + ": " + sentence.Of(failed.Err), Err: err}
}
