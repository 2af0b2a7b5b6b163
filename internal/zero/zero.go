// Package zero finds zeros in buffers at the speed of memory: what is zero
// need not be stored. It neither writes nor allocates, and all of it may be
// called concurrently.
package zero

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// block is what buffers are compared with. It stays in the innermost cache.
var block [4 << 10]byte

// Is reports whether p consists of zeros, as an empty p does.
func Is(p []byte) bool {
	for len(p) > len(block) {
		if !bytes.Equal(p[:len(block)], block[:]) {
			return false
		}
		p = p[len(block):]
	}
	return bytes.Equal(p, block[:len(p)])
}

// Prefix returns the number of zeros that p begins with.
func Prefix(p []byte) int {
	const step = 512
	n := 0
	for len(p)-n >= step && Is(p[n:n+step]) {
		n += step
	}
	for ; len(p)-n >= 8; n += 8 {
		if w := binary.LittleEndian.Uint64(p[n:]); w != 0 {
			return n + bits.TrailingZeros64(w)/8
		}
	}
	for n < len(p) && p[n] == 0 {
		n++
	}
	return n
}

// Run returns the length of the first run of p, and whether it consists of
// zeros. A run is as many grains as possible that are all zero or that all have
// something else in them. A grain has the given number of bytes, which must be
// positive; the last one of p may be shorter. An empty p is a run of zeros.
func Run(p []byte, grain int) (n int, zero bool) {
	zero = Is(p[:min(grain, len(p))])
	for n = grain; n < len(p) && Is(p[n:min(n+grain, len(p))]) == zero; {
		n += grain
	}
	return min(n, len(p)), zero
}
