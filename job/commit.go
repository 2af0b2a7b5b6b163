package job

import (
	"context"
	"errors"
	"math"

	"github.com/diskimg/diskimg/block"
)

// Commit brings what an overlay holds into an image below it. It is a
// conversion whose target is part of the source's chain.

// CommitOptions say how an overlay is committed.
type CommitOptions struct {
	// Depth is the place in the chain of the image that is written: 1 for the
	// backing image, 2 for the one below that; 0 is 1.
	Depth int
	// Keep leaves the overlay as it is. If Depth is above 1 it always is: what
	// lies between shows through an empty one, and is out of date.
	Keep bool
	// RateLimit is how many bytes are written in a second at most; 0 is no
	// limit.
	RateLimit int64
	// Progress, if not nil, is told how many bytes have been copied, of those
	// that are to be.
	Progress func(done, total int64)
}

// Commit copies what img and the images between hold into the one at o.Depth,
// which must have been opened for writing, and then makes img empty. A base
// that is smaller is grown, one that is larger keeps what lies behind. Nobody
// may write img meanwhile. It can be cancelled and repeated: until all is in
// the base and on disk, the overlay holds what it held, and reads the same.
func Commit(ctx context.Context, img *block.Image, o *CommitOptions) error {
	if o == nil {
		o = &CommitOptions{}
	}
	depth := max(1, o.Depth)
	base := img
	for range depth {
		if base = base.Backing(); base == nil {
			return block.Invalidf("Image does not have a backing file")
		}
	}
	empty, err := emptier(img, o.Keep || depth > 1)
	if err != nil {
		return err
	}
	if err := growTo(ctx, base, img.Size()); err != nil {
		return err
	}
	if err := copyDown(ctx, img, base, depth, o); err != nil {
		return err
	}
	// Before anything is taken from the overlay, the base must be on disk.
	if err := base.Flush(); err != nil {
		return err
	}
	return empty()
}

// emptier returns what empties img, which does nothing if it is to be kept.
func emptier(img *block.Image, keep bool) (func() error, error) {
	if keep {
		return func() error { return nil }, nil
	}
	e, ok := block.As[block.Emptier](img)
	switch {
	case !ok:
		return nil, block.Unsupportedf("images of format %s can't be made empty", img.Format())
	case !img.Writable():
		return nil, &block.Error{Op: "make empty", Path: img.Path(), Format: img.Format(), Offset: -1, Err: block.ErrReadOnly}
	}
	return func() error {
		if err := e.MakeEmpty(); err != nil {
			return &block.Error{Op: "make empty", Path: img.Path(), Format: img.Format(), Offset: -1, Err: err}
		}
		return nil
	}, nil
}

// growTo makes img at least size bytes long.
func growTo(ctx context.Context, img *block.Image, size int64) error {
	if img.Size() >= size {
		return nil
	}
	fail := func(err error) error {
		return &block.Error{Op: "resize", Path: img.Path(), Format: img.Format(), Offset: -1, Err: err}
	}
	r, ok := block.As[block.Resizer](img)
	switch {
	case !ok:
		return fail(block.Unsupportedf("it is smaller than the overlay, and images of format %s can't be resized", img.Format()))
	case !img.Writable():
		return fail(block.ErrReadOnly)
	}
	if err := r.Resize(ctx, size, block.ResizeOptions{}); err != nil {
		var e *block.Error
		if errors.As(err, &e) {
			return err
		}
		return fail(err)
	}
	return nil
}

// copyDown writes into base what the images above it decide, zeros too.
func copyDown(ctx context.Context, img, base *block.Image, depth int, o *CommitOptions) error {
	c, err := newConversion(base, []*block.Image{img}, ConvertOptions{
		BackingDepth: depth, RateLimit: o.RateLimit, Progress: o.Progress,
	})
	if err != nil {
		return err
	}
	// What is found in the base stays; zeros are zeros by the word of an
	// image, not looked for in its data.
	c.skipTo, c.zeroFrom, c.grain = math.MaxInt64, math.MaxInt64, 0
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.run(ctx)
}
