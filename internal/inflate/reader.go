package inflate

import "encoding/binary"

// The bits of the input, with its end in view.

// reader takes bits from a buffer, the lowest bit of each byte first. Past the
// end of the buffer it shows zeros, which can be looked at and not taken.
//
// The bits above the lowest n of bits are either zero or what the bytes from
// pos on will put there, so that filling may set them again.
type reader struct {
	src  []byte
	pos  int // of the next byte that is not counted in n
	bits uint64
	n    uint // bits that may be taken, at most 63
}

// fill makes at least 56 bits ready, or as many as there are.
func (r *reader) fill() {
	if len(r.src)-r.pos >= 8 {
		r.bits |= binary.LittleEndian.Uint64(r.src[r.pos:]) << (r.n & 63)
		r.pos += int(63-r.n) >> 3
		r.n |= 56
		return
	}
	for r.n < 56 && r.pos < len(r.src) {
		r.bits |= uint64(r.src[r.pos]) << (r.n & 63)
		r.pos++
		r.n += 8
	}
}

// drop takes n bits without looking at them. It reports false, and takes
// none, if there are fewer.
func (r *reader) drop(n uint) bool {
	if n > r.n {
		return false
	}
	r.bits >>= n & 63
	r.n -= n
	return true
}

// take takes up to 32 bits that fill has made ready.
func (r *reader) take(n uint) (v uint32, ok bool) {
	v = uint32(r.bits & (1<<(n&63) - 1))
	return v, r.drop(n)
}

// align drops what is left of a byte and gives back the whole bytes.
func (r *reader) align() {
	r.pos -= int(r.n / 8)
	r.bits, r.n = 0, 0
}
