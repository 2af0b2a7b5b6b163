package inflate

import "encoding/binary"

// The loop in which nearly all time is spent. It checks codes and distances like
// the careful one and never comes near the end of a buffer. It is one function
// because a call in it would put all its variables into memory.

const (
	// fastIn is how much of the input must be left for a round of fast. It
	// loads two words, the second at most 7 bytes after the first.
	fastIn = 16
	// fastOut is how much room a round needs in the output, for literals and
	// a match that is written in words.
	fastOut = 3 + 258 + 16
)

// fast does what symbol does, over and over, as long as so much is left of
// both buffers that their ends need not be minded.
func (d *Decoder) fast() (ended bool, err error) {
	src, dst := d.src, d.dst
	pos, out, b, n := d.pos, d.out, d.bits, d.n
	lastPos, lastOut := len(src)-fastIn, len(dst)-fastOut
loop:
	for pos <= lastPos && out <= lastOut {
		b, n, pos = refill(b, n, src, pos)
		e := d.lit[b&(1<<litRoot-1)]
		for i := 0; e&literal != 0; i++ { // up to three, of up to 11 bits
			dst[out] = byte(e >> 16)
			out++
			b, n = e.consume(b, n)
			if i == 2 {
				continue loop
			}
			e = d.lit[b&(1<<litRoot-1)]
		}
		if e&special != 0 {
			e = d.lit.find(b)
			switch {
			case e&literal != 0:
				dst[out] = byte(e >> 16)
				out++
				b, n = e.consume(b, n)
				continue
			case e&kind == endOfBlock:
				b, n = e.consume(b, n)
				ended = true
				break loop
			case e&special != 0:
				err = ErrSymbol
				break loop
			}
		}
		length := e.value(b) // of up to 20 bits
		b, n = e.consume(b, n)

		if n < maxDistSize {
			b, n, pos = refill(b, n, src, pos)
		}
		e = d.dist.find(b)
		if e&special != 0 {
			err = ErrDistance
			break
		}
		distance := e.value(b)
		b, n = e.consume(b, n)
		if distance > out {
			err = ErrTooFar
			break
		}
		// The last store may run over the end by up to 15 bytes, which what
		// comes next overwrites.
		from, end := out-distance, out+length
		switch {
		case distance >= 16:
			store16(dst, out, from)
			for out += 16; out < end; out += 16 {
				store16(dst, out, out-distance)
			}
		case distance >= 8:
			for ; out < end; out += 8 {
				store8(dst, out, out-distance)
			}
		default: // the bytes repeat: no more are read than the first
			w := pattern(binary.LittleEndian.Uint64(dst[from:]), distance)
			for ; out < end; out += int(strides[distance&7]) {
				binary.LittleEndian.PutUint64(dst[out:], w)
			}
		}
		out = end
	}
	d.pos, d.out, d.bits, d.n = pos, out, b, n
	return ended, err
}

// refill is reader.fill where the input is known to have 8 bytes left.
func refill(b uint64, n uint, src []byte, pos int) (uint64, uint, int) {
	b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
	return b, n | 56, pos + int(63-n)>>3
}

// consume is reader.drop where enough bits are known to be there.
func (e entry) consume(b uint64, n uint) (uint64, uint) {
	return b >> e.size(), n - e.size()
}

func store16(p []byte, to, from int) { *(*[16]byte)(p[to:]) = *(*[16]byte)(p[from:]) }

func store8(p []byte, to, from int) { *(*[8]byte)(p[to:]) = *(*[8]byte)(p[from:]) }

// pattern repeats the first n bytes of w, 1 <= n <= 8.
func pattern(w uint64, n int) uint64 {
	n *= 8
	w &= 1<<n - 1
	w |= w << n
	w |= w << (2 * n)
	return w | w<<(4*n)
}

// strides are the largest multiples of n that are not above 8.
var strides = [8]uint8{1: 8, 2: 8, 3: 6, 4: 8, 5: 5, 6: 6, 7: 7}
