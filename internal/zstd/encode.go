// Package zstd compresses and decompresses clusters as Zstandard frames
// (RFC 8878), in memory that is used again.
package zstd

import (
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Compress compresses src into dst, as one frame without a checksum, and
// returns its length; ok is false if it does not fit. Matches reach no further
// back than the cluster, and at most 2 MiB. It may be called concurrently, and
// does not allocate when there were as many calls at the same time before.
func Compress(dst, src []byte) (n int, ok bool) {
	pool := &encoders[windowBits(len(src))-minWindowBits]
	e, _ := pool.Get().(*encoder)
	if e == nil {
		e = new(encoder)
	}
	defer pool.Put(e)
	return e.compress(dst, src)
}

const minWindowBits, maxWindowBits = 10, 21

// encoders are pools of encoder by the size of the window.
var encoders [maxWindowBits - minWindowBits + 1]sync.Pool

// windowBits is the binary logarithm of the window for n bytes.
func windowBits(n int) int {
	return min(max(bits.Len(uint(max(n, 1)-1)), minWindowBits), maxWindowBits)
}

type encoder struct {
	zstd *zstd.Encoder // nil until first used
	buf  []byte        // holds whatever a frame takes
}

func (e *encoder) compress(dst, src []byte) (n int, ok bool) {
	if e.zstd == nil {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithZeroFrames(true), zstd.WithEncoderLevel(zstd.SpeedDefault),
			zstd.WithWindowSize(1<<windowBits(len(src))))
		if err != nil {
			return 0, false
		}
		e.zstd = z
	}
	e.buf = e.zstd.EncodeAll(src, e.buf[:0])
	if len(e.buf) > len(dst) {
		return 0, false
	}
	return copy(dst, e.buf), true
}
