package job

import (
	"context"
	"iter"
	"math"

	"github.com/diskimg/diskimg/block"
)

// Map tells where the content of a disk lies, through the whole backing chain
// and down to the holes of the files in which it is stored. It reads no data.

// MapEntry is a range of the guest disk that is alike in everything that
// qemu-img map tells.
type MapEntry struct {
	Start  int64 // guest offset, bytes
	Length int64 // bytes, greater than zero
	// Depth is the number of the image in the chain that decides, 0 for the
	// image itself. Where none does, it is that of the last one that was long
	// enough to be asked.
	Depth int
	// Present: the image at Depth decides what is read here.
	Present bool
	// Zero: known to read as zero without reading it.
	Zero bool
	// Data: there is something to read, in a file, perhaps encoded; or space
	// for it that still reads as zero.
	Data bool
	// Offset is where the range lies in File as it is, if HasOffset. Encoded
	// data has none.
	Offset    int64
	HasOffset bool
	// File holds the data, nil if there is none or it is encoded.
	File block.File
}

// End returns the guest offset after the last byte.
func (e MapEntry) End() int64 { return e.Start + e.Length }

// Map yields the entries of [off, off+n), clipped to the disk, in order and
// without gaps; nothing for an empty range. After an error it yields no more.
func Map(ctx context.Context, img *block.Image, off, n int64) iter.Seq2[MapEntry, error] {
	return merged(entries(ctx, img, off, n, flaggedFiles))
}

// merged joins entries that continue each other.
func merged(parts iter.Seq2[MapEntry, error]) iter.Seq2[MapEntry, error] {
	return func(yield func(MapEntry, error) bool) {
		var held MapEntry
		for e, err := range parts {
			if err != nil {
				yield(MapEntry{}, err)
				return
			}
			if held.followedBy(e) {
				held.Length += e.Length
				continue
			}
			if held.Length > 0 && !yield(held, nil) {
				return
			}
			held = e
		}
		if held.Length > 0 {
			yield(held, nil)
		}
	}
}

func (e MapEntry) followedBy(next MapEntry) bool {
	return e.Length > 0 && e.Depth == next.Depth && e.alike(next) && e.File == next.File &&
		(!e.HasOffset || e.Offset+e.Length == next.Offset)
}

// alike reports whether two entries have the same block status.
func (e MapEntry) alike(o MapEntry) bool {
	return e.Present == o.Present && e.Zero == o.Zero && e.Data == o.Data && e.HasOffset == o.HasOffset
}

// lookInto says which files are asked for holes.
type lookInto uint8

const (
	// flaggedFiles are those in which holes are to be expected: the answer is
	// that of qemu-img map.
	flaggedFiles lookInto = iota
	// allFiles finds the most zeros.
	allFiles
)

// entries yields what Map does, not merged: each as the layers tell it.
func entries(ctx context.Context, img *block.Image, off, n int64, look lookInto) iter.Seq2[MapEntry, error] {
	return func(yield func(MapEntry, error) bool) {
		if off < 0 || n < 0 {
			yield(MapEntry{}, block.Errorf(block.ErrBounds, "%d bytes at offset %d are not a range of a disk", n, off))
			return
		}
		var h holes
		for end := off + min(n, max(0, img.Size()-off)); off < end; {
			e, err := h.entry(ctx, img, off, end-off, look)
			if !yield(e, err) || err != nil {
				return
			}
			off = e.End()
		}
	}
}

// holes remembers the last answer about a file: the extents of an image are
// short, and the runs of data in its file long.
type holes struct {
	file block.File
	// [from, data) is a hole, [data, end) is none.
	from, data, end int64
}

// entry returns the first entry of a range that lies within the disk.
func (h *holes) entry(ctx context.Context, img *block.Image, off, n int64, look lookInto) (MapEntry, error) {
	if ctx.Err() != nil {
		return MapEntry{}, context.Cause(ctx)
	}
	e, err := img.Locate(off, n)
	if err != nil {
		return MapEntry{}, err
	}
	m := MapEntry{
		Start: e.Start, Length: e.Length, Depth: e.Depth, Present: e.Allocated,
		Zero: e.Kind == block.Zero, Data: e.Kind != block.Zero,
		Offset: e.Offset, HasOffset: e.HasOffset,
	}
	if e.Kind != block.Data {
		return m, nil
	}
	m.File = e.File
	if e.MayBeZero || look == allFiles {
		m.Length, m.Zero, err = h.first(e.File, e.Offset, e.Length)
		if err != nil {
			return MapEntry{}, &block.Error{Op: "map", Path: img.Path(), Format: img.Format(), Offset: off, Err: err}
		}
		m.Data = !m.Zero || !e.Plain
	}
	return m, nil
}

// first returns how many bytes at the start of [off, off+n) of f lie all in a
// hole or all not. What is past the end of the file is a hole.
func (h *holes) first(f block.File, off, n int64) (length int64, hole bool, err error) {
	if f != h.file || off < h.from || off >= h.end {
		data, end, err := block.NextData(f, off)
		if err != nil {
			return 0, false, err
		}
		if data < off || data == end {
			data, end = math.MaxInt64, math.MaxInt64
		}
		*h = holes{file: f, from: off, data: data, end: end}
	}
	if off < h.data {
		return min(n, h.data-off), true, nil
	}
	return min(n, h.end-off), false, nil
}
