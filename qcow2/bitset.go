package qcow2

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// A set of bits that takes memory for what is set in it, and hardly any for long
// runs.

const bitPageBits = 1 << 15

type bitPage [bitPageBits / 64]uint64

// fullPage stands for every page in which all bits are set. It is never written.
var fullPage = func() *bitPage {
	p := new(bitPage)
	p.set(0, bitPageBits)
	return p
}()

// bitset is a set of bits; the zero value is empty.
type bitset struct{ pages []*bitPage }

// set sets the bits of [from, to).
func (s *bitset) set(from, to int64) {
	if from >= to {
		return
	}
	if last := (to - 1) / bitPageBits; last >= int64(len(s.pages)) {
		s.pages = append(s.pages, make([]*bitPage, last+1-int64(len(s.pages)))...)
	}
	for from < to {
		i := from / bitPageBits
		start, end := from-i*bitPageBits, min(to-i*bitPageBits, bitPageBits)
		from = (i + 1) * bitPageBits
		switch p := s.pages[i]; {
		case p == fullPage:
		case start == 0 && end == bitPageBits:
			s.pages[i] = fullPage
		case p == nil:
			s.pages[i] = new(bitPage)
			s.pages[i].set(start, end)
		default:
			p.set(start, end)
		}
	}
}

func (p *bitPage) set(from, to int64) {
	for from < to {
		i, bit := from>>6, uint(from&63)
		n := min(to-from, 64-int64(bit))
		p[i] |= (^uint64(0) >> (64 - uint(n))) << bit
		from += n
	}
}

// truncate clears all bits from n on.
func (s *bitset) truncate(n int64) {
	keep := (n + bitPageBits - 1) / bitPageBits
	if keep > int64(len(s.pages)) {
		return
	}
	s.pages = s.pages[:keep]
	in := n & (bitPageBits - 1)
	if in == 0 || s.pages[keep-1] == nil {
		return
	}
	p := *s.pages[keep-1]
	p[in>>6] &= 1<<uint(in&63) - 1
	clear(p[in>>6+1:])
	s.pages[keep-1] = &p
}

// clone returns a copy that shares nothing that could change.
func (s *bitset) clone() bitset {
	c := bitset{slices.Clone(s.pages)}
	for i, p := range c.pages {
		if p != nil && p != fullPage {
			copied := *p
			c.pages[i] = &copied
		}
	}
	return c
}

// any reports whether there may be a bit in [from, to).
func (s *bitset) any(from, to int64) bool {
	for i := from / bitPageBits; i < int64(len(s.pages)) && i*bitPageBits < to; i++ {
		if p := s.pages[i]; p != nil && p.anyIn(max(from-i*bitPageBits, 0), min(to-i*bitPageBits, bitPageBits)) {
			return true
		}
	}
	return false
}

// anyIn looks at whole words.
func (p *bitPage) anyIn(from, to int64) bool {
	for _, w := range p[from>>6 : (to+63)>>6] {
		if w != 0 {
			return true
		}
	}
	return false
}

// addTo sets in b, whose bits count from first on, the bits of s. first is a
// multiple of 64, and the length of b one of 8.
func (s *bitset) addTo(b []byte, first int64) {
	for len(b) > 0 {
		i := first / bitPageBits
		if i >= int64(len(s.pages)) {
			return
		}
		in := first - i*bitPageBits
		n := min(int64(len(b))*8, bitPageBits-in)
		if p := s.pages[i]; p != nil {
			for k := range n / 64 {
				word := b[8*k:]
				binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)|p[in>>6+k])
			}
		}
		b, first = b[n/8:], first+n
	}
}

// clip clears the bits of b from n on.
func clip(b []byte, n int64) {
	if n = max(n, 0); n >= int64(len(b))*8 {
		return
	}
	b[n/8] &= 1<<uint(n%8) - 1
	clear(b[n/8+1:])
}

// bitRuns calls f for each run of bits that are set in b, whose length is a
// multiple of 8 bytes, until f returns false.
func bitRuns(b []byte, f func(from, to int64) bool) bool {
	n := int64(len(b)) * 8
	for at := int64(0); at < n; {
		from := at + nextBit(b, at, 0)
		if from >= n {
			return true
		}
		at = from + nextBit(b, from, ^uint64(0))
		if !f(from, min(at, n)) {
			return false
		}
	}
	return true
}

// nextBit returns how far it is from at to the next bit that is not as in flip.
func nextBit(b []byte, at int64, flip uint64) int64 {
	start := at
	for at < int64(len(b))*8 {
		w := (binary.LittleEndian.Uint64(b[at>>6*8:]) ^ flip) >> uint(at&63)
		if w != 0 {
			return at + int64(bits.TrailingZeros64(w)) - start
		}
		at = (at>>6 + 1) << 6
	}
	return at - start
}
