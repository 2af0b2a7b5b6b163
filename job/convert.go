package job

import (
	"context"
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// Convert copies disks. What the sources are known to hold as zero is not read,
// and what the target is known to hold as zero is not written. Stations: plan.go
// says what is to be done with each range, pipeline.go reads ahead on several
// processors and brings everything into order, store.go writes.

// ConvertOptions say how a disk is copied.
type ConvertOptions struct {
	// TargetIsZero says that the target reads as zero wherever its backing
	// image does not supply the content: that it is new. Otherwise zeros are
	// written to it.
	TargetIsZero bool
	// BackingDepth, if greater than 0, says that the backing image of the
	// target holds what the source has at that depth of its chain: 1 for the
	// backing image of the source. What is found there or below is not copied.
	BackingDepth int
	// Compress writes compressed clusters. The target must be able to.
	Compress bool
	// Sparse is how many bytes, aligned, must be zero to become a hole of the
	// target: 512 to 16 MiB, taken as the next lower power of two; 0 is 4096.
	// If it is negative everything is written, zeros too. It does not matter
	// for compression, where a hole is a whole cluster, unless it is negative.
	Sparse int64
	// KernelCopy has data copied by the kernel where it can, without looking
	// for zeros in it. A negative Sparse does so too.
	KernelCopy bool
	// Workers is how many chunks are read at a time, 0 for one for each
	// processor, at most 8.
	Workers int
	// Unordered lets chunks be written as they come, several at a time, and
	// not in ascending order.
	Unordered bool
	// RateLimit is how many bytes are written in a second at most; 0 is no
	// limit.
	RateLimit int64
	// Salvage, if not nil, is told of each source sector that can't be read,
	// by its offset in the target; it is written as zeros. Otherwise the first
	// one ends the conversion.
	Salvage func(off int64, err error)
	// Progress, if not nil, is told how many bytes have been copied, of those
	// that are to be: zeros and what the backing image has are not counted.
	Progress func(done, total int64)
}

// The chunk that is read and written at a time, in bytes. It holds whole
// clusters of source and target up to 2 MiB, and for compression several for
// each processor.
const (
	convertChunk  = 256 << 10
	compressChunk = 2 << 20
	// bufferMemory bounds all chunks together, but there are always two.
	bufferMemory = 16 << 20
	maxSparse    = 16 << 20
)

// Convert copies the sources, one after the other, to the beginning of dst.
// Nobody may write the sources meanwhile. Nothing is flushed. After an error
// the target holds some of the copy; an error of a source names it and the
// offset, and all before that has been written, unless Unordered.
func Convert(ctx context.Context, dst *block.Image, srcs []*block.Image, o *ConvertOptions) error {
	if o == nil {
		o = &ConvertOptions{}
	}
	c, err := newConversion(dst, srcs, *o)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.run(ctx)
}

// conversion is a running Convert.
type conversion struct {
	dst *block.Image
	src source
	o   ConvertOptions

	chunk   int64 // bytes, a power of two
	grain   int64 // of the search for zeros; 0 does not search
	full    bool  // writes zeros as if they were data
	cluster int64 // what is compressed as one; 1 without compression
	// From zeroFrom on the target reads as zero already.
	zeroFrom int64
	// Up to skipTo the backing image of the target stands in for the source's.
	skipTo   int64
	inKernel atomic.Bool // the kernel copies, until it has refused

	mu    sync.Mutex // for what follows, and for calls to o.Progress and o.Salvage
	done  int64
	total int64
	pacer pacer
}

// reportEach is after how many bytes of an extent Progress is told, besides its
// end.
const reportEach = 2 << 20

func newConversion(dst *block.Image, srcs []*block.Image, o ConvertOptions) (*conversion, error) {
	c := &conversion{dst: dst, src: newSource(srcs), o: o, cluster: 1, grain: 4096}
	if err := c.validate(len(srcs)); err != nil {
		return nil, err
	}
	switch {
	case o.Sparse > 0:
		c.grain = 1 << (bits.Len64(uint64(o.Sparse)) - 1)
	case o.Sparse < 0:
		c.grain, c.full = 0, true
	}
	c.chunk = max(convertChunk, c.grain, largestCluster(dst), c.src.largestCluster())
	if o.Compress {
		c.setCompression()
	}
	c.setTarget()
	c.inKernel.Store((o.KernelCopy || o.Sparse < 0) && !o.Compress && o.Salvage == nil)
	c.pacer.perSecond = o.RateLimit
	return c, nil
}

func (c *conversion) validate(sources int) error {
	_, compresses := block.As[block.CompressedWriter](c.dst)
	switch o := c.o; {
	case c.dst.Size() < c.src.size:
		return block.Invalidf("output file is smaller than input file: %d bytes do not fit on a disk of %d", c.src.size, c.dst.Size())
	case o.Compress && !compresses:
		return block.Unsupportedf("compression not supported for file format %s", c.dst.Format())
	case o.Sparse > 0 && o.Sparse < sectorSize || o.Sparse > maxSparse:
		return block.Invalidf("zeros are looked for by %d to %d bytes, not by %d", sectorSize, maxSparse, o.Sparse)
	case o.BackingDepth > 0 && sources > 1:
		return block.Invalidf("having a backing file for the target makes no sense when concatenating multiple input images")
	case o.BackingDepth < 0 || o.RateLimit < 0 || o.Workers < 0:
		return block.Invalidf("depth %d, rate limit %d and workers %d must not be negative", o.BackingDepth, o.RateLimit, o.Workers)
	case o.KernelCopy && (o.Compress || o.Salvage != nil):
		return block.Invalidf("the kernel can't copy what is to be compressed or salvaged")
	}
	return nil
}

// setCompression makes chunks of clusters, enough of them to keep every
// processor busy.
func (c *conversion) setCompression() {
	c.cluster = 64 << 10
	if d, ok := block.As[block.Describer](c.dst); ok {
		if info, err := d.Describe(); err == nil && info.ClusterSize > 0 {
			c.cluster = info.ClusterSize
		}
	}
	rounds := 4 * c.cluster << bits.Len(uint(runtime.GOMAXPROCS(0)-1)) // four for each processor
	c.chunk = max(compressChunk, min(rounds, bufferMemory/2), c.cluster, c.src.largestCluster())
	if c.grain > 0 {
		c.grain = c.cluster
	}
}

// setTarget finds out which zeros need not be written and which content need
// not be copied.
func (c *conversion) setTarget() {
	backing := c.dst.Backing()
	c.zeroFrom, c.skipTo = math.MaxInt64, math.MaxInt64
	switch {
	case backing != nil:
		// What lies past the end of the backing image is zero.
		c.skipTo = backing.Size()
		if c.o.TargetIsZero {
			c.zeroFrom = backing.Size()
		}
	case c.o.TargetIsZero && c.o.BackingDepth == 0:
		c.zeroFrom = 0
	}
}

// count finds out how much is to be copied.
func (c *conversion) count(ctx context.Context) error {
	if c.o.Progress == nil {
		return nil
	}
	for s, err := range c.clusterSteps(ctx) {
		if err != nil {
			return nil // the copy will tell
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.do == replicate {
			c.total += s.n
		}
	}
	return nil
}

// report counts n bytes as copied.
func (c *conversion) report(n int64) {
	if n == 0 || c.o.Progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.o.Progress(c.done, c.total)
}
