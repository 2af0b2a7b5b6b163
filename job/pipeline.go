package job

import (
	"context"
	"sync"

	"github.com/diskimg/diskimg/internal/zero"
)

// The pipeline of a conversion: one goroutine plans, several read, and what
// they have read is written in the order of the plan by the one that called.
// The number of buffers bounds how far reading runs ahead.

// run ends when everything is written or something has failed, and no
// goroutine is left.
func (c *conversion) run(ctx context.Context) error {
	if err := c.count(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)

	n := workers(c.o.Workers)
	buffers := c.buffers(n)
	l := &lanes{
		free: make(chan []byte, buffers), todo: make(chan *chunk), order: make(chan *chunk, buffers),
	}
	for range buffers {
		l.free <- nil // allocated when first used
	}
	wg.Go(func() { c.plan(ctx, l) })
	for range n {
		wg.Go(func() { c.read(ctx, l, stop) })
	}
	if c.o.Unordered {
		wg.Wait()
		return context.Cause(ctx)
	}
	return c.write(ctx, l)
}

// buffers returns how many chunks there are at a time.
func (c *conversion) buffers(readers int) int {
	memory := int64(bufferMemory)
	if c.o.Compress {
		memory /= 2 // the compressor holds on to as much again
	}
	return int(max(2, min(int64(readers)+2, memory/c.chunk)))
}

// lanes are what chunks travel on.
type lanes struct {
	free  chan []byte
	todo  chan *chunk // to be read
	order chan *chunk // all chunks, in the order of the plan
}

// plan sends out chunks, those with data each with a buffer.
func (c *conversion) plan(ctx context.Context, l *lanes) {
	defer close(l.todo)
	defer close(l.order)
	for k, err := range c.chunks(ctx) {
		if err != nil {
			k = newChunk()
			k.err = err
		}
		if !c.send(ctx, l, k) {
			return
		}
	}
}

func (c *conversion) send(ctx context.Context, l *lanes, k *chunk) bool {
	if k.data {
		select {
		case k.buf = <-l.free:
		case <-ctx.Done():
			return false
		}
	}
	if !c.o.Unordered {
		select {
		case l.order <- k:
		case <-ctx.Done():
			return false
		}
		if !k.data {
			close(k.ready)
			return true
		}
	}
	select {
	case l.todo <- k:
		return true
	case <-ctx.Done():
		return false
	}
}

// read takes chunks and reads their data; without an order to keep it writes
// them too.
func (c *conversion) read(ctx context.Context, l *lanes, stop context.CancelCauseFunc) {
	for k := range l.todo {
		if k.err == nil {
			k.err = c.fetch(ctx, k)
		}
		close(k.ready)
		if !c.o.Unordered {
			continue
		}
		if err := c.finish(ctx, l, k); err != nil {
			stop(err)
			return
		}
	}
}

// write finishes all chunks in the order of the plan.
func (c *conversion) write(ctx context.Context, l *lanes) error {
	for k := range l.order {
		select {
		case <-k.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := c.finish(ctx, l, k); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// finish writes a chunk that has been read and gives its buffer back.
func (c *conversion) finish(ctx context.Context, l *lanes, k *chunk) error {
	if k.err != nil {
		return k.err
	}
	if err := c.store(ctx, k); err != nil {
		return err
	}
	if k.data {
		l.free <- k.buf
	}
	c.report(k.copied)
	return nil
}

// fetch reads the data of a chunk and looks for zeros in it.
func (c *conversion) fetch(ctx context.Context, k *chunk) error {
	if k.data && k.buf == nil {
		k.buf = make([]byte, c.chunk)
	}
	runs := make([]run, 0, len(k.runs))
	for _, r := range k.runs {
		if r.data && !(c.inKernel.Load() && r.file != nil) {
			r.p = k.buf[r.off-k.window:][:r.n]
			if err := c.readSource(ctx, r.p, r.off); err != nil {
				return err
			}
			runs = c.sift(runs, r)
			continue
		}
		runs = append(runs, r)
	}
	k.runs = runs
	return nil
}

// sift appends r, taken apart into data and zeros by aligned grains.
func (c *conversion) sift(runs []run, r run) []run {
	if c.grain == 0 {
		return add(runs, r)
	}
	off, p := r.off, r.p
	for len(p) > 0 {
		// A grain that lies in r only in part is judged by that part.
		n, blank := min(len(p), int(c.grain-off%c.grain)), false
		if off%c.grain == 0 {
			n, blank = zero.Run(p, int(c.grain))
		} else {
			blank = zero.Is(p[:n])
		}
		piece := run{off: off, n: int64(n), data: !blank}
		if piece.data {
			piece.p = p[:n]
		}
		runs = add(runs, piece)
		off, p = off+int64(n), p[n:]
	}
	return runs
}

// add appends r, or makes the last run longer by it.
func add(runs []run, r run) []run {
	if len(runs) > 0 {
		last := &runs[len(runs)-1]
		joins := last.off+last.n == r.off && last.data == r.data && (last.p != nil) == (r.p != nil)
		if joins && (r.p != nil || !r.data) {
			last.n += r.n
			last.p = last.p[:len(last.p)+len(r.p)]
			return runs
		}
	}
	return append(runs, r)
}

// readSource fills p, with zeros for what may be salvaged.
func (c *conversion) readSource(ctx context.Context, p []byte, off int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := c.src.read(p, off)
	if err != nil && c.o.Salvage != nil {
		c.salvage(ctx, p, off, unreadable)
		return nil
	}
	return err
}

// salvage fills p in pieces that end at multiples of step, and those that can't
// be read sector by sector.
func (c *conversion) salvage(ctx context.Context, p []byte, off, step int64) {
	for len(p) > 0 && ctx.Err() == nil {
		n := min(int64(len(p)), step-off%step)
		err := c.src.read(p[:n], off)
		switch {
		case err == nil:
		case step > sectorSize:
			c.salvage(ctx, p[:n], off, sectorSize)
		default:
			clear(p[:n])
			c.mu.Lock()
			c.o.Salvage(off, err)
			c.mu.Unlock()
		}
		p, off = p[n:], off+n
	}
}
