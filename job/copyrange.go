package job

import (
	"context"

	"github.com/diskimg/diskimg/block"
)

// CopyRange copies [off, off+n) of src, clipped to its disk, to the beginning of
// dst, as Convert copies a whole disk.
func CopyRange(ctx context.Context, dst, src *block.Image, off, n int64, o *ConvertOptions) error {
	if off < 0 || n < 0 {
		return block.Errorf(block.ErrBounds, "%d bytes at offset %d are not a range of a disk", n, off)
	}
	off = min(off, src.Size())
	part := &window{img: src, off: off, n: min(n, src.Size()-off)}
	view := block.NewImage(part, block.ImageOptions{Path: src.Path(), Format: src.Format()})
	return Convert(ctx, dst, []*block.Image{view}, o)
}

// window is a range of a disk as a disk of its own, to be read.
type window struct {
	img    *block.Image
	off, n int64
}

func (w *window) Size() int64 { return w.n }

func (w *window) Resolve(off, n int64) (block.Extent, error) {
	e, err := w.img.Locate(w.off+off, n)
	e.Start = off
	return e, err
}

func (w *window) ReadSpecial(_ block.Extent, p []byte, off int64) error {
	return w.img.ReadZeroFilled(p, w.off+off)
}

func (w *window) WriteAt([]byte, int64) error                     { return block.ErrReadOnly }
func (w *window) WriteZeroes(int64, int64, block.ZeroFlags) error { return block.ErrReadOnly }
func (w *window) Discard(int64, int64) error                      { return block.ErrReadOnly }
func (w *window) Flush() error                                    { return nil }
func (w *window) Close() error                                    { return nil }
