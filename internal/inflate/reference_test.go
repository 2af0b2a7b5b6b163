package inflate

// reference decodes as RFC 1951 tells it, a bit at a time and with nothing
// shared with the decoder under test, not even the way the tables are made.
// Its errors are those of Decode; it panics with them.
type referenceReader struct {
	src []byte
	at  int // in bits
}

func reference(dst, src []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = r.(error)
		}
	}()
	r := &referenceReader{src: src}
	var out []byte
	for final := false; len(out) < len(dst); {
		if final {
			return ErrShort
		}
		final = r.bits(1) == 1
		switch r.bits(2) {
		case 0:
			out = r.stored(out, len(dst))
		case 1:
			out = r.block(out, len(dst), fixedReference())
		case 2:
			out = r.block(out, len(dst), r.codes())
		default:
			return ErrBlockType
		}
	}
	copy(dst, out)
	return nil
}

func (r *referenceReader) bit() int {
	if r.at/8 == len(r.src) {
		panic(ErrTruncated)
	}
	b := r.src[r.at/8] >> (r.at % 8) & 1
	r.at++
	return int(b)
}

func (r *referenceReader) bits(n int) (v int) {
	for i := range n {
		v |= r.bit() << i
	}
	return v
}

func (r *referenceReader) stored(out []byte, limit int) []byte {
	r.at = (r.at + 7) / 8 * 8
	n, inverse := r.bits(16), r.bits(16)
	if n^inverse != 0xffff {
		panic(ErrStored)
	}
	for ; n > 0 && len(out) < limit; n-- {
		out = append(out, byte(r.bits(8)))
	}
	return out
}

// code maps the length and the bits of a code to its symbol.
type code map[[2]int]int

func newCode(lens []int, wrong error, sparse bool) code {
	c, next, total := code{}, 0, 0
	for n := 1; n <= 15; n++ {
		next <<= 1
		for s, l := range lens {
			if l == n {
				c[[2]int{n, next}] = s
				next++
				total += 1 << (15 - n)
			}
		}
	}
	_, single := c[[2]int{1, 0}]
	if total != 1<<15 && !(sparse && (len(c) == 0 || len(c) == 1 && single)) {
		panic(wrong)
	}
	return c
}

func (r *referenceReader) symbol(c code, wrong error) int {
	bits := 0
	for n := 1; n <= 15; n++ {
		bits = bits<<1 | r.bit()
		if s, ok := c[[2]int{n, bits}]; ok {
			return s
		}
		if len(c) < 2 {
			break
		}
	}
	panic(wrong)
}

func fixedReference() [2]code {
	var lit, dist []int
	for s := range 288 {
		lit = append(lit, 8)
		if s >= 144 && s < 256 {
			lit[s] = 9
		}
		if s >= 256 && s < 280 {
			lit[s] = 7
		}
	}
	for range 32 {
		dist = append(dist, 5)
	}
	return [2]code{newCode(lit, nil, false), newCode(dist, nil, false)}
}

func (r *referenceReader) codes() [2]code {
	nlit, ndist, n := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	if nlit > 286 || ndist > 30 {
		panic(ErrCounts)
	}
	short := make([]int, 19)
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:n] {
		short[s] = r.bits(3)
	}
	c := newCode(short, ErrCodeLengths, false)
	var lens []int
	for len(lens) < nlit+ndist {
		again, value := 1, r.symbol(c, ErrCodeLengths)
		switch value {
		case 16:
			if len(lens) == 0 {
				panic(ErrRepeat)
			}
			again = 3 + r.bits(2)
			value = lens[len(lens)-1]
		case 17:
			again, value = 3+r.bits(3), 0
		case 18:
			again, value = 11+r.bits(7), 0
		}
		for range again {
			lens = append(lens, value)
		}
	}
	switch {
	case len(lens) > nlit+ndist:
		panic(ErrRepeat)
	case lens[256] == 0:
		panic(ErrNoEnd)
	}
	return [2]code{newCode(lens[:nlit], ErrLiterals, true), newCode(lens[nlit:], ErrDistances, true)}
}

// The tables of section 3.2.5.
var (
	lengthBase  = []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = []int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

func (r *referenceReader) block(out []byte, limit int, c [2]code) []byte {
	for len(out) < limit {
		s := r.symbol(c[0], ErrSymbol)
		switch {
		case s < 256:
			out = append(out, byte(s))
			continue
		case s == 256:
			return out
		case s > 285:
			panic(ErrSymbol)
		}
		length := lengthBase[s-257] + r.bits(lengthExtra[s-257])
		s = r.symbol(c[1], ErrDistance)
		if s > 29 {
			panic(ErrDistance)
		}
		distance := distBase[s] + r.bits(distExtra[s])
		if distance > len(out) {
			panic(ErrTooFar)
		}
		for ; length > 0 && len(out) < limit; length-- {
			out = append(out, out[len(out)-distance])
		}
	}
	return out
}
