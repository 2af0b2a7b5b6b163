package blkdebug

import (
	"math"

	"github.com/diskimg/diskimg/block"
)

// Limits are what a file is taken to be able to do at once, in bytes. Zero is no
// limit. Requests that are larger are cut. Rules and events are for requests
// that begin and end at multiples of Align, with what they would have to read
// before; the file below is asked for no more than is needed.
type Limits struct {
	Align                   int64 // a power of two
	MaxTransfer             int64 // of reads and writes, a multiple of Align
	WriteZero, MaxWriteZero int64 // zeros are written by such pieces, the rest as data
	Discard, MaxDiscard     int64 // what is less than a piece is not discarded
}

// Check finds limits that can't be met.
func (l *Limits) Check() error {
	align := max(1, l.Align)
	if align&(align-1) != 0 || align > math.MaxInt32 {
		return block.Invalidf("Cannot meet constraints with align %d", l.Align)
	}
	for _, c := range []struct {
		name            string
		value, multiple int64
	}{
		{"max-transfer", l.MaxTransfer, align},
		{"opt-write-zero", l.WriteZero, align},
		{"max-write-zero", l.MaxWriteZero, max(l.WriteZero, align)},
		{"opt-discard", l.Discard, align},
		{"max-discard", l.MaxDiscard, max(l.Discard, align)},
	} {
		if c.value < 0 || c.value > math.MaxInt32 || c.value%c.multiple != 0 {
			return block.Invalidf("Cannot meet constraints with %s %d", c.name, c.value)
		}
	}
	return nil
}

// whole returns the part of [off, off+n) that consists of whole pieces.
func whole(off, n, piece int64) (start, end int64) {
	start, end = off, off+n
	if piece > 1 {
		start, end = (off+piece-1)/piece*piece, (off+n)/piece*piece
	}
	return start, max(start, end)
}

// cut calls f for [off, off+n) in parts of at most most bytes.
func cut(off, n, most int64, f func(off, n int64) error) error {
	for n > 0 {
		part := n
		if most > 0 {
			part = min(n, most)
		}
		if err := f(off, part); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// widen returns [off, off+n) in whole multiples of Align.
func (l *Limits) widen(off, n int64) (start, end int64) {
	align := max(1, l.Align)
	return off / align * align, (off + n + align - 1) / align * align
}
