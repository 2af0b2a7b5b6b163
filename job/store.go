package job

import (
	"context"
	"errors"
	"time"

	"github.com/diskimg/diskimg/block"
)

// Writing to the target of a conversion: data plain, compressed or moved by the
// kernel; zeros only where the target does not read as zero already.

// store writes a chunk to the target.
func (c *conversion) store(ctx context.Context, k *chunk) error {
	for _, r := range k.runs {
		if err := c.pace(ctx, r); err != nil {
			return err
		}
		var err error
		switch {
		case !r.data:
			err = c.storeZeros(ctx, r.off, r.n)
		case r.p != nil:
			err = c.storeData(r.p, r.off)
		default:
			err = c.copyInKernel(ctx, k, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conversion) storeData(p []byte, off int64) error {
	if c.o.Compress {
		// Only the end of the disk may be less than a cluster.
		whole := len(p)
		if off+int64(len(p)) != c.dst.Size() {
			whole -= len(p) % int(c.cluster)
		}
		if err := c.dst.WriteCompressed(p[:whole], off); err != nil {
			return err
		}
		p, off = p[whole:], off+int64(whole)
	}
	if len(p) == 0 {
		return nil
	}
	_, err := c.dst.WriteAt(p, off)
	return err
}

// storeZeros makes a range read as zero where it does not yet.
func (c *conversion) storeZeros(ctx context.Context, off, n int64) error {
	if c.full {
		return c.writeOut(ctx, off, n)
	}
	if n = min(n, c.zeroFrom-off); n <= 0 {
		return nil
	}
	return c.dst.WriteZeroes(off, n, block.MayUnmap)
}

// writeOut writes zeros as if they were data.
func (c *conversion) writeOut(ctx context.Context, off, n int64) error {
	zeros := make([]byte, min(n, c.chunk))
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k := min(n, int64(len(zeros)))
		if err := c.storeData(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// copyInKernel copies a run that has not been read, and reads it after all
// where the kernel can't.
func (c *conversion) copyInKernel(ctx context.Context, k *chunk, r run) error {
	if c.inKernel.Load() {
		n, err := c.dst.CopyFrom(r.file, r.fileOff, r.off, r.n)
		switch {
		case errors.Is(err, block.ErrUnsupported):
			c.inKernel.Store(false)
		case err != nil:
			return err
		}
		r.off, r.n = r.off+n, r.n-n
	}
	if r.n == 0 {
		return nil
	}
	p := k.buf[r.off-k.window:][:r.n]
	if err := c.readSource(ctx, p, r.off); err != nil {
		return err
	}
	return c.storeData(p, r.off)
}

// pacer keeps to a rate.
type pacer struct {
	perSecond int64
	next      time.Time // when the next write may begin
}

// after returns how long to wait before n bytes are written.
func (p *pacer) after(now time.Time, n int64) time.Duration {
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.perSecond) * float64(time.Second)))
	return wait
}

// pace waits until r may be written.
func (c *conversion) pace(ctx context.Context, r run) error {
	if c.o.RateLimit == 0 || !r.data {
		return context.Cause(ctx)
	}
	c.mu.Lock()
	wait := c.pacer.after(time.Now(), r.n)
	c.mu.Unlock()
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
