package deflate

// walker goes through the blocks of a valid stream as RFC 1951 tells it and
// notes the matches. It shares nothing with the decoders of this module. On a
// stream that is not valid it panics.
type walker struct {
	src         []byte
	at          int // in bits
	size        int // of the output
	matches     int
	maxDistance int
	maxLength   int
}

func (w *walker) bits(n int) (v int) {
	for i := range n {
		v |= int(w.src[w.at/8]>>(w.at%8)&1) << i
		w.at++
	}
	return v
}

// code is a canonical code: how many symbols have each length, and the symbols
// in the order of their codes.
type code struct {
	count   [16]int
	symbols []int
}

func newCode(lens []int) (c code) {
	for n := 1; n < len(c.count); n++ {
		for s, l := range lens {
			if l == n {
				c.count[n]++
				c.symbols = append(c.symbols, s)
			}
		}
	}
	return c
}

func (w *walker) symbol(c code) int {
	bits, first, before := 0, 0, 0 // of the codes of the length at hand
	for n := 1; ; n++ {
		bits = bits<<1 | w.bits(1)
		first <<= 1
		if bits-first < c.count[n] {
			return c.symbols[before+bits-first]
		}
		first += c.count[n]
		before += c.count[n]
	}
}

func walk(src []byte) *walker {
	w := &walker{src: src}
	for final := false; !final; {
		final = w.bits(1) == 1
		switch w.bits(2) {
		case 0:
			w.at = (w.at + 7) &^ 7
			n := w.bits(16)
			w.at += 16 + n*8
			w.size += n
		case 1:
			w.block(fixed())
		case 2:
			w.block(w.dynamic())
		default:
			panic("a block of type 3")
		}
	}
	return w
}

func fixed() (lit, dist code) {
	lens := make([]int, 288)
	for s := range lens {
		lens[s] = 8
		if s >= 144 && s < 256 {
			lens[s] = 9
		} else if s >= 256 && s < 280 {
			lens[s] = 7
		}
	}
	five := make([]int, 30)
	for s := range five {
		five[s] = 5
	}
	return newCode(lens), newCode(five)
}

func (w *walker) dynamic() (lit, dist code) {
	nlit, ndist, n := w.bits(5)+257, w.bits(5)+1, w.bits(4)+4
	short := make([]int, 19)
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:n] {
		short[s] = w.bits(3)
	}
	c := newCode(short)
	var lens []int
	for len(lens) < nlit+ndist {
		s, again := w.symbol(c), 1
		switch s {
		case 16:
			s, again = lens[len(lens)-1], 3+w.bits(2)
		case 17:
			s, again = 0, 3+w.bits(3)
		case 18:
			s, again = 0, 11+w.bits(7)
		}
		for range again {
			lens = append(lens, s)
		}
	}
	return newCode(lens[:nlit]), newCode(lens[nlit:])
}

func (w *walker) block(lit, dist code) {
	lengths := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	for {
		s := w.symbol(lit)
		if s == 256 {
			return
		}
		if s < 256 {
			w.size++
			continue
		}
		length := lengths[s-257]
		if s >= 265 && s < 285 {
			length += w.bits((s - 261) / 4)
		}
		d := w.symbol(dist)
		distance := d + 1
		if d >= 4 {
			extra := d/2 - 1
			distance = (2+d%2)<<extra + 1 + w.bits(extra)
		}
		w.size += length
		w.matches++
		w.maxLength = max(w.maxLength, length)
		w.maxDistance = max(w.maxDistance, distance)
	}
}
