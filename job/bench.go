package job

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/diskimg/diskimg/block"
)

// BenchOptions say which requests a benchmark makes.
type BenchOptions struct {
	// Requests is how many there are, and Depth how many at a time; 0 is 1.
	Requests, Depth int
	// Size of each request in bytes. The first one is at Offset, each of the
	// others Step bytes after the one before; where that leaves the disk it
	// goes on from the beginning. A Step of 0 is Size.
	Size, Offset, Step int64
	// Write writes Pattern instead of reading.
	Write   bool
	Pattern byte
	// FlushInterval is after how many writes there is a flush, 0 for none. It
	// waits for all of them, unless NoDrain sends it along with others.
	FlushInterval int
	NoDrain       bool
	// Progress, if not nil, is told how many requests are done.
	Progress func(done, total int64)
}

// maxBenchMemory is how many bytes of buffers a benchmark may take.
const maxBenchMemory = 4 << 30

// Bench makes requests to an image and returns how long they took. The first
// request that fails ends it.
func Bench(ctx context.Context, img *block.Image, o *BenchOptions) (time.Duration, error) {
	b := &bench{img: img, BenchOptions: *o, at: o.Offset}
	b.Depth = min(max(1, b.Depth), max(1, b.Requests))
	if b.Step == 0 {
		b.Step = b.Size
	}
	switch {
	case img.Size() == 0:
		return 0, block.Invalidf("the disk is empty")
	case b.Requests < 0 || b.Size < 0 || b.Step < 0 || b.Offset < 0 || b.FlushInterval < 0:
		return 0, block.Invalidf("numbers of requests, sizes and offsets must not be negative")
	case b.Size > 0 && int64(b.Depth) > maxBenchMemory/b.Size:
		return 0, block.Invalidf("%d requests of %d bytes at a time need more than %d bytes of memory", b.Depth, b.Size, int64(maxBenchMemory))
	}
	start := time.Now()
	err := b.run(ctx)
	return time.Since(start), err
}

// bench is a running Bench.
type bench struct {
	img *block.Image
	BenchOptions
	// gate is held for reading by requests, and by a flush that waits for all
	// of them.
	gate sync.RWMutex

	mu   sync.Mutex // for what follows, and for calls to Progress
	sent int
	done int
	at   int64 // of the next request
}

// run has Depth workers make one request after the other.
func (b *bench) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for range b.Depth {
		wg.Go(func() {
			if err := b.work(ctx); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (b *bench) work(ctx context.Context) error {
	p := bytes.Repeat([]byte{b.Pattern}, int(b.Size))
	for ctx.Err() == nil {
		off, ok := b.next()
		if !ok {
			break
		}
		if err := b.request(p, off); err != nil {
			return err
		}
		if b.finished()%max(1, b.FlushInterval) != 0 || b.FlushInterval == 0 || !b.Write {
			continue
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// next returns the offset of a request that has not been made yet.
func (b *bench) next() (off int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == b.Requests {
		return 0, false
	}
	b.sent++
	off = b.at
	if b.at += b.Step; b.at >= b.img.Size() {
		b.at %= b.img.Size()
	}
	return off, true
}

func (b *bench) request(p []byte, off int64) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	var err error
	if b.Write {
		_, err = b.img.WriteAt(p, off)
	} else if _, err = b.img.ReadAt(p, off); errors.Is(err, io.EOF) {
		err = block.Errorf(block.ErrBounds, "%d bytes at offset %d lie beyond the end of a disk of %d bytes", len(p), off, b.img.Size())
	}
	return err
}

// finished counts a request and returns how many there have been.
func (b *bench) finished() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done++
	if b.Progress != nil {
		b.Progress(int64(b.done), int64(b.Requests))
	}
	return b.done
}

func (b *bench) flush() error {
	if !b.NoDrain {
		b.gate.Lock()
		defer b.gate.Unlock()
	}
	return b.img.Flush()
}
