package job

import (
	"bytes"
	"context"
	"math"
	"runtime"
	"sync"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// Compare tells whether two disks read the same, and if not where they begin
// to differ. What both are known to read as zero is not read (spans.go).

// compareChunk is how many bytes of each disk a worker reads at a time, if
// their clusters are not larger.
const compareChunk = 512 << 10

// sectorSize is the unit in which differences are told.
const sectorSize = 512

// CompareOptions say how strictly and how fast two images are compared.
type CompareOptions struct {
	// Strict asks for the same size and the same block status as well: which
	// ranges are allocated, zero, data, and stored as they are. As for
	// qemu-img, it is a difference too if of two alike runs only one goes on
	// to the end of its disk.
	Strict bool
	// Workers is how many chunks are compared at a time; 0 is one for each
	// processor, at most 8.
	Workers int
	// Progress, if not nil, is told how many bytes of the larger disk are done.
	Progress func(done, total int64)
}

// Verdict is what a comparison found.
type Verdict uint8

const (
	// Identical: both disks read the same; where one is longer it is zero.
	Identical Verdict = iota
	// ContentDiffers in the sector at Offset first.
	ContentDiffers
	// StatusDiffers at Offset: strict comparisons only.
	StatusDiffers
	// SizeDiffers: strict comparisons only; nothing was read.
	SizeDiffers
)

func (v Verdict) String() string {
	return [...]string{"identical", "content differs", "block status differs", "size differs"}[v&3]
}

// CompareResult is what Compare found.
type CompareResult struct {
	Verdict Verdict
	// Offset is the guest offset of the difference, in bytes: of a sector of
	// 512 bytes for content, of an extent for block status. Sectors are
	// counted anew, as qemu-img does, where a file ended within one.
	Offset int64
	// Longer: one disk is longer than the other, and they do not differ before
	// the end of the shorter one.
	Longer bool
}

// Compare compares two images. The result is the first difference by offset,
// whatever the workers find first. An error tells which image could not be
// read or mapped, and where; it is returned only if there is no difference
// before that.
func Compare(ctx context.Context, a, b *block.Image, o *CompareOptions) (CompareResult, error) {
	if o == nil {
		o = &CompareOptions{}
	}
	short, total := min(a.Size(), b.Size()), max(a.Size(), b.Size())
	if o.Strict && short != total {
		return CompareResult{Verdict: SizeDiffers, Offset: short}, nil
	}
	c := &comparison{a: a, b: b, short: short, total: total, o: *o,
		chunk: max(compareChunk, largestCluster(a), largestCluster(b))}
	c.found.Offset = math.MaxInt64
	c.run(ctx)
	if c.err != nil {
		return CompareResult{}, c.err
	}
	r := c.found
	if r.Verdict == Identical {
		r.Offset = 0
	}
	r.Longer = short != total && (r.Verdict == Identical || r.Offset >= short)
	return r, nil
}

// comparison is a running Compare.
type comparison struct {
	a, b  *block.Image
	short int64 // size of the smaller disk
	total int64 // and of the larger
	chunk int64
	o     CompareOptions

	mu    sync.Mutex
	done  int64
	found CompareResult // the first difference so far, or where err is
	err   error
}

// run hands out spans in order until there is a difference or no more of them.
// Spans are short, so the few that are under way then are finished: one of
// them may hold an earlier difference.
func (c *comparison) run(ctx context.Context) {
	todo := make(chan span)
	var wg sync.WaitGroup
	for range workers(c.o.Workers) {
		wg.Go(func() { c.work(ctx, todo) })
	}
	for s, r := range c.spans(ctx) {
		if r.failed() {
			c.settle(r)
		}
		if c.settled() {
			break
		}
		if s.idle() {
			c.progress(s.n)
		} else {
			todo <- s
		}
	}
	close(todo)
	wg.Wait()
}

// workers returns how many workers there are, given how many are asked for.
func workers(asked int) int {
	if asked > 0 {
		return min(asked, 64)
	}
	return min(max(2, runtime.GOMAXPROCS(0)), 8)
}

// outcome ends a comparison, if there is no other before it.
type outcome struct {
	CompareResult
	err error
}

func (r outcome) failed() bool { return r.err != nil || r.Verdict != Identical }

func (c *comparison) settle(r outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Offset < c.found.Offset {
		c.found, c.err = r.CompareResult, r.err
	}
}

func (c *comparison) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found.Offset < math.MaxInt64
}

func (c *comparison) progress(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	if c.o.Progress != nil {
		c.o.Progress(c.done, c.total)
	}
}

func (c *comparison) work(ctx context.Context, todo <-chan span) {
	var a, b []byte
	for s := range todo {
		if a == nil {
			a, b = make([]byte, c.chunk), make([]byte, c.chunk)
		}
		r := outcome{CompareResult{Offset: s.off}, context.Cause(ctx)}
		if r.err == nil {
			r = c.compare(s, a[:s.n], b[:s.n])
		}
		if r.failed() {
			c.settle(r)
		}
		c.progress(s.n)
	}
}

// compare reads a span into a and b and looks for the first difference.
func (c *comparison) compare(s span, a, b []byte) outcome {
	var err error
	if s.readA {
		err = c.a.ReadZeroFilled(a, s.off)
	}
	if s.readB && err == nil {
		err = c.b.ReadZeroFilled(b, s.off)
	}
	if err != nil {
		return outcome{CompareResult{Offset: s.off}, err}
	}
	at := -1
	switch {
	case !s.readB:
		at = firstNonzero(a)
	case !s.readA:
		at = firstNonzero(b)
	default:
		at = firstDifference(a, b)
	}
	if at < 0 {
		return outcome{}
	}
	off := s.off + int64(at)&^(sectorSize-1)
	return outcome{CompareResult{Verdict: ContentDiffers, Offset: off}, nil}
}

// firstNonzero returns the index of the first byte that is not zero, -1 if
// there is none.
func firstNonzero(p []byte) int {
	if n := zero.Prefix(p); n < len(p) {
		return n
	}
	return -1
}

// firstDifference returns the index of the first byte in which a and b, of the
// same length, differ, -1 if they are equal.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	at := 0
	for n := 4 << 10; len(a) > n && bytes.Equal(a[:n], b[:n]); at += n {
		a, b = a[n:], b[n:]
	}
	for i := range a {
		if a[i] != b[i] {
			return at + i
		}
	}
	return -1
}
