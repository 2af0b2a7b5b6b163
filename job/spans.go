package job

import (
	"context"
	"iter"

	"github.com/diskimg/diskimg/block"
)

// What Compare has to read: the block status of two disks, walked in step, as
// spans that cover the larger disk in order and without gaps.

// span is a range of both disks and which of them have to be read.
type span struct {
	off, n       int64
	readA, readB bool
}

func (s span) idle() bool { return !s.readA && !s.readB }

// smallGap is how many bytes it is cheaper to read than to leave out.
const smallGap = 64 << 10

// join adds the span that follows, unless more than a small gap would then be
// read for nothing, or it begins within a sector.
func (s span) join(next span) (span, bool) {
	if s.n == 0 {
		return next, true
	}
	if next.off%sectorSize != 0 {
		return span{}, false
	}
	both := span{s.off, s.n + next.n, s.readA || next.readA, s.readB || next.readB}
	var waste int64
	for _, part := range []span{s, next} {
		if part.readA != both.readA {
			waste += part.n
		}
		if part.readB != both.readB {
			waste += part.n
		}
	}
	return both, waste <= smallGap
}

// spans yields the larger disk in spans of at most a chunk (longer when nothing
// has to be read) and after them what ends the comparison early, if there is
// something: a difference in block status, or an error.
func (c *comparison) spans(ctx context.Context) iter.Seq2[span, outcome] {
	return func(yield func(span, outcome) bool) {
		var held span
		for s, end := range c.steps(ctx) {
			joined, ok := held.join(s)
			if ok && held.n < c.chunk && s.off != c.short && !end.failed() {
				held = joined
				continue
			}
			if !c.cut(held, yield) {
				return
			}
			if end.failed() {
				yield(span{}, end)
				return
			}
			held = s
		}
		c.cut(held, yield)
	}
}

// cut yields a span in pieces that end where chunks do, so that no cluster is
// decoded twice, and in whole sectors.
func (c *comparison) cut(s span, yield func(span, outcome) bool) bool {
	for s.n > 0 {
		piece := s
		if !s.idle() {
			piece.n = min(s.n, c.chunk-(s.off-s.off%sectorSize)%c.chunk)
		}
		if !yield(piece, outcome{}) {
			return false
		}
		s.off, s.n = s.off+piece.n, s.n-piece.n
	}
	return true
}

// steps yields the ranges within which the status of neither disk changes.
func (c *comparison) steps(ctx context.Context) iter.Seq2[span, outcome] {
	return func(yield func(span, outcome) bool) {
		a, b := c.cursor(ctx, c.a), c.cursor(ctx, c.b)
		defer a.stop()
		defer b.stop()
		for off := int64(0); off < c.total; {
			ea, err := a.at(off)
			if err != nil {
				yield(span{}, outcome{CompareResult{Offset: off}, err})
				return
			}
			eb, err := b.at(off)
			if err != nil {
				yield(span{}, outcome{CompareResult{Offset: off}, err})
				return
			}
			if c.o.Strict && !c.sameStatus(ea, eb) {
				yield(span{}, outcome{CompareResult{Verdict: StatusDiffers, Offset: off}, nil})
				return
			}
			end := min(ea.End(), eb.End())
			if off < c.short {
				end = min(end, c.short)
			}
			if !yield(span{off, end - off, !ea.Zero, !eb.Zero}, outcome{}) {
				return
			}
			off = end
		}
	}
}

func (c *comparison) sameStatus(a, b MapEntry) bool {
	return a.alike(b) && (a.End() == c.total) == (b.End() == c.total)
}

// cursor stands at an entry of a disk.
type cursor struct {
	next  func() (MapEntry, error, bool)
	stop  func()
	head  MapEntry
	total int64
}

// cursor walks the status of an image: in a strict comparison as qemu-img tells
// it, otherwise so that the most zeros are found.
func (c *comparison) cursor(ctx context.Context, img *block.Image) *cursor {
	status := entries(ctx, img, 0, img.Size(), allFiles)
	if c.o.Strict {
		status = Map(ctx, img, 0, img.Size())
	}
	next, stop := iter.Pull2(status)
	return &cursor{next: next, stop: stop, total: c.total}
}

// at returns the entry that off lies in. What is past the end of the disk is
// zero.
func (c *cursor) at(off int64) (MapEntry, error) {
	for c.head.End() <= off {
		e, err, more := c.next()
		if err != nil {
			return MapEntry{}, err
		}
		if !more {
			e = MapEntry{Start: off, Length: c.total - off, Zero: true}
		}
		c.head = e
	}
	return c.head, nil
}

// largestCluster is that of the images in a chain, in bytes, as far as it pays
// to read whole clusters: at most 2 MiB.
func largestCluster(img *block.Image) int64 {
	var largest int64
	for ; img != nil; img = img.Backing() {
		largest = max(largest, clusterOf(img))
	}
	return min(largest, 2<<20)
}

// clusterOf returns the cluster size of an image, that of a sector if there are
// no clusters.
func clusterOf(img *block.Image) int64 {
	if d, ok := block.As[block.Describer](img); ok {
		if info, err := d.Describe(); err == nil && info.ClusterSize > 0 {
			return info.ClusterSize
		}
	}
	return sectorSize
}
