// Package zero finds zeros.
package zero

import "bytes"

var block [64 << 10]byte

// Is reports whether p consists of zeros.
func Is(p []byte) bool {
	for len(p) > len(block) {
		if !bytes.Equal(p[:len(block)], block[:]) {
			return false
		}
		p = p[len(block):]
	}
	return bytes.Equal(p, block[:len(p)])
}
