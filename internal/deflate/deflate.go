// Package deflate compresses clusters as raw deflate streams (RFC 1951) with
// the window of 4 KiB that the qcow2 format has: no match reaches back further.
// Readers that inflate in pieces, with a window of just that size, fail on
// streams that do.
package deflate

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/flate"
)

// MaxDistance is how far back a match may reach, in bytes.
const MaxDistance = 4096

// Compress compresses src into dst and returns the length of the stream. ok is
// false if it does not fit; what is in dst is then unspecified. It may be
// called concurrently, and does not allocate when there were as many calls at
// the same time before.
func Compress(dst, src []byte) (n int, ok bool) {
	c := compressors.Get().(*compressor)
	defer compressors.Put(c)
	c.dst, c.used = dst, 0
	ok = c.compress(src) == nil
	c.dst = nil
	return c.used, ok
}

var compressors = sync.Pool{New: func() any { return new(compressor) }}

// compressor is a writer of streams and the buffer that it writes to.
type compressor struct {
	w    *flate.Writer // nil until first used
	dst  []byte
	used int
}

func (c *compressor) compress(src []byte) (err error) {
	if c.w != nil {
		c.w.Reset(c)
	} else if c.w, err = flate.NewWriterWindow(c, MaxDistance); err != nil {
		return err
	}
	if _, err := c.w.Write(src); err != nil {
		return err
	}
	return c.w.Close()
}

var errFull = errors.New("the stream does not fit")

// Write appends to the buffer and fails once it is full.
func (c *compressor) Write(p []byte) (int, error) {
	n := copy(c.dst[c.used:], p)
	c.used += n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}
