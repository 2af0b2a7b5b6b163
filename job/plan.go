package job

import (
	"context"
	"iter"

	"github.com/diskimg/diskimg/block"
)

// The plan of a conversion: the block status of the sources, as ranges of the
// target, in ascending order and without gaps, and then as chunks of work.

// source is one disk made of all sources.
type source struct {
	images []placed
	size   int64
}

// placed is an image that begins at an offset of the target.
type placed struct {
	*block.Image
	at int64
}

func newSource(images []*block.Image) source {
	var s source
	for _, img := range images {
		s.images = append(s.images, placed{img, s.size})
		s.size += img.Size()
	}
	return s
}

func (s source) largestCluster() int64 {
	largest := int64(0)
	for _, img := range s.images {
		largest = max(largest, largestCluster(img.Image))
	}
	return largest
}

// read fills p from off on; the range lies within the sources.
func (s source) read(p []byte, off int64) error {
	for _, img := range s.images {
		in := off - img.at
		if in >= img.Size() {
			continue
		}
		n := min(int64(len(p)), img.Size()-in)
		if err := img.ReadZeroFilled(p[:n], in); err != nil {
			return err
		}
		p, off = p[n:], off+n
		if len(p) == 0 {
			break
		}
	}
	return nil
}

// deed is what is to be done with a range of the target.
type deed uint8

const (
	leave     deed = iota // its backing image has the content
	blank                 // is to read as zero
	replicate             // is to be read from the source
)

// step is a range of the target that is treated in one way.
type step struct {
	off, n int64
	do     deed
	// file, if not nil, holds what is to be replicated, as it is, at fileOff.
	file    block.File
	fileOff int64
}

// unreadable is how much is tried to be read where a source can't tell its
// block status.
const unreadable = 64 << 10

// steps yields what is to be done with the whole target.
func (c *conversion) steps(ctx context.Context) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		for _, img := range c.src.images {
			var h holes
			for off := int64(0); off < img.Size(); {
				e, err := h.entry(ctx, img.Image, off, img.Size()-off, allFiles)
				if err != nil && c.o.Salvage != nil && ctx.Err() == nil {
					e, err = MapEntry{Start: off, Length: min(unreadable, img.Size()-off)}, nil
				}
				s := c.step(e)
				off += s.n
				s.off += img.at
				if !yield(s, err) || err != nil {
					return
				}
			}
		}
	}
}

func (c *conversion) step(e MapEntry) step {
	s := step{off: e.Start, n: e.Length, do: replicate, file: e.File, fileOff: e.Offset}
	switch {
	case c.o.BackingDepth > 0 && e.Depth >= c.o.BackingDepth && e.Start < c.skipTo:
		s.do, s.n = leave, min(s.n, c.skipTo-e.Start)
	case e.Zero:
		s.do = blank
	}
	return s
}

// clusterSteps are the steps in whole clusters: one in which there is more than
// one thing to do is replicated.
func (c *conversion) clusterSteps(ctx context.Context) iter.Seq2[step, error] {
	if c.cluster == 1 {
		return c.steps(ctx)
	}
	return func(yield func(step, error) bool) {
		pos := int64(0) // everything before has been yielded
		for s, err := range joined(c.steps(ctx)) {
			if err != nil {
				yield(s, err)
				return
			}
			end := s.off + s.n
			whole := end
			if end != c.src.size {
				whole -= end % c.cluster
			}
			if whole > pos {
				if !yield(step{off: pos, n: whole - pos, do: s.do}, nil) {
					return
				}
				pos = whole
			}
			if end > pos {
				n := min(c.cluster, c.src.size-pos)
				if !yield(step{off: pos, n: n, do: replicate}, nil) {
					return
				}
				pos += n
			}
		}
	}
}

// joined makes one step of all that follow each other and read nothing.
func joined(steps iter.Seq2[step, error]) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		var held step
		for s, err := range steps {
			if err == nil && held.n > 0 && held.do == s.do && s.do != replicate {
				held.n += s.n
				continue
			}
			if held.n > 0 && !yield(held, nil) {
				return
			}
			if err != nil {
				yield(s, err)
				return
			}
			held = s
		}
		if held.n > 0 {
			yield(held, nil)
		}
	}
}

// The limits of what one chunk takes on besides data, so that the conversion
// can be cancelled and tells its progress.
const (
	maxRuns  = 512
	maxBlank = 128 << 20 // bytes
)

// chunk is the unit of work. Its data lies within one window of the target as
// long as its buffer.
type chunk struct {
	n      int64 // bytes of the sources that it covers
	copied int64 // bytes that count as copied when it is written
	window int64 // where its data begins, rounded down
	runs   []run
	data   bool // has runs of data
	buf    []byte
	err    error
	ready  chan struct{} // closed when the data has been read
}

// run is a range of the target that gets data or zeros.
type run struct {
	off, n int64
	data   bool
	p      []byte // the data, when it has been read
	// file, if not nil, holds the data, as it is, at fileOff.
	file    block.File
	fileOff int64
}

// chunks yields the work that the steps make.
func (c *conversion) chunks(ctx context.Context) iter.Seq2[*chunk, error] {
	return func(yield func(*chunk, error) bool) {
		k := newChunk()
		unreported := int64(0)
		for s, err := range c.clusterSteps(ctx) {
			if err != nil {
				if yield(k, nil) {
					yield(nil, err)
				}
				return
			}
			for s.n > 0 {
				took := c.take(k, s)
				if took == 0 {
					if !yield(k, nil) {
						return
					}
					k = newChunk()
				}
				s.off, s.n, s.fileOff = s.off+took, s.n-took, s.fileOff+took
				if s.do == replicate {
					unreported += took
				}
				if s.n == 0 || unreported >= reportEach {
					k.copied, unreported = k.copied+unreported, 0
				}
			}
		}
		yield(k, nil)
	}
}

func newChunk() *chunk { return &chunk{ready: make(chan struct{})} }

// take adds the beginning of a step to k and returns how much of it: nothing if
// k is full.
func (c *conversion) take(k *chunk, s step) int64 {
	if len(k.runs) == maxRuns || k.n >= maxBlank {
		return 0
	}
	n := min(s.n, maxBlank)
	switch s.do {
	case replicate:
		window := s.off - s.off%c.chunk
		if k.data && window != k.window {
			return 0
		}
		n = min(s.n, window+c.chunk-s.off)
		k.data, k.window = true, window
		k.addData(run{off: s.off, n: n, data: true, file: s.file, fileOff: s.fileOff}, c.inKernel.Load())
	case blank:
		if s.off < c.zeroFrom || c.full {
			k.runs = append(k.runs, run{off: s.off, n: n})
		} else {
			n = s.n
		}
	case leave:
		n = s.n
	}
	k.n += n
	return n
}

// addData appends r, or makes the last run longer by it. Where the data lies
// matters only for copies in the kernel.
func (k *chunk) addData(r run, inKernel bool) {
	if !inKernel {
		r.file = nil
	}
	if len(k.runs) > 0 {
		last := &k.runs[len(k.runs)-1]
		contiguous := last.file == r.file && (r.file == nil || last.fileOff+last.n == r.fileOff)
		if last.data && last.off+last.n == r.off && contiguous {
			last.n += r.n
			return
		}
	}
	k.runs = append(k.runs, r)
}
