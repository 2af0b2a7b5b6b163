package inflate

import (
	"math/bits"
	"sync"
)

// A decoding table is indexed by the next bits of the stream as they come: as
// many as its root has, 11 or 9. A code that is longer leads to a subtable
// behind the root, which is indexed by the bits after those.

const (
	litRoot  = 11
	distRoot = 9
	lensRoot = 7

	maxLitCodes  = 286
	maxDistCodes = 30
	maxCodeLen   = 15
	maxDistSize  = maxCodeLen + 13 // with the extra bits

	endSymbol = 256
)

// The sizes have room for all subtables: one of 2^s entries holds at least s+1
// symbols, so they take at most 286/5*16 entries with s <= 4, 30/7*64 with
// s <= 6. They are powers of two so that a mask keeps an index inside.
type (
	litTable  [2 << litRoot]entry
	distTable [2 << distRoot]entry
	lensTable [1 << lensRoot]entry
)

// entry says what a code stands for, from the lowest bit on:
//
//	6 bits   length of the code and of the extra bits after it, together
//	1 bit    it is a literal
//	1 bit    it is special
//	4 bits   (from bit 8) length of the code; width of a subtable
//	2 bits   which special
//	16 bits  (from bit 16) the literal; the base value; start of a subtable
type entry uint32

const (
	literal entry = 1 << 6
	special entry = 1 << 7

	invalid    = special
	endOfBlock = special | 1<<12
	subtable   = special | 2<<12
	kind       = special | 3<<12
)

// size is the number of bits that the entry consumes.
func (e entry) size() uint { return uint(e & 63) }

// width is the length of the code, or the number of bits indexing a subtable.
func (e entry) width() uint { return uint(e >> 8 & 15) }

// value is the base with the extra bits, taken from what size will consume.
func (e entry) value(b uint64) int {
	return int(e>>16) + int(b&(1<<e.size()-1)>>e.width())
}

// find follows b, the next bits of the stream, to an entry that is no subtable.
func (t *litTable) find(b uint64) entry {
	e := t[b&(1<<litRoot-1)]
	if e&kind == subtable {
		e = t[(uint64(e>>16)+b>>litRoot&(1<<e.width()-1))%uint64(len(t))]
	}
	return e
}

func (t *distTable) find(b uint64) entry {
	e := t[b&(1<<distRoot-1)]
	if e&kind == subtable {
		e = t[(uint64(e>>16)+b>>distRoot&(1<<e.width()-1))%uint64(len(t))]
	}
	return e
}

// build fills a table for the canonical code with these lengths; 0 means that
// a symbol has no code. It reports false if the code is over-subscribed or
// incomplete. A sparse code may also be none at all or one code of one bit.
func build(table []entry, root int, symbols []entry, lens []uint8, sparse bool) bool {
	var count [maxCodeLen + 1]int
	for _, n := range lens {
		count[n]++
	}
	used := len(lens) - count[0]
	count[0] = 0
	free := 1 // codes of the length at hand that no shorter code has taken
	for _, n := range count[1:] {
		free = free<<1 - n
		if free < 0 {
			return false
		}
	}
	if free > 0 {
		if !sparse || used > 1 || used != count[1] {
			return false
		}
		table[0], table[1] = invalid+1, invalid+1
	}
	var next [maxCodeLen + 2]int
	for n, c := range count {
		next[n+1] = next[n] + c
	}
	var sorted [maxLitCodes + 2]uint16 // by length of the code
	for s, n := range lens {
		if n != 0 {
			sorted[next[n]] = uint16(s)
			next[n]++
		}
	}
	enter(table, root, symbols, lens, sorted[:used])
	return true
}

// enter hands out the codes in order. A code is kept with its first bit on
// top, so that each is the sum of the space that those before it took.
func enter(table []entry, root int, symbols []entry, lens []uint8, sorted []uint16) {
	var code uint16
	i := 0
	for n := 1; n <= root; n++ {
		for ; i < len(sorted) && int(lens[sorted[i]]) == n; i++ {
			table[bits.Reverse16(code)] = symbols[sorted[i]].coded(n)
			code += 1 << (16 - n)
		}
		if n < root {
			copy(table[1<<n:], table[:1<<n])
		}
	}
	for end := 1 << root; i < len(sorted); {
		first, room := i, 1<<(16-root)
		for ; room > 0; i++ { // the codes that begin with the same root bits
			room -= 1 << (16 - lens[sorted[i]])
		}
		width := int(lens[sorted[i-1]]) - root
		table[bits.Reverse16(code)&(1<<root-1)] = subtable | entry(end)<<16 | entry(width)<<8
		sub := table[end : end+1<<width]
		for _, s := range sorted[first:i] {
			n := int(lens[s])
			for j := int(bits.Reverse16(code)) >> root; j < len(sub); j += 1 << (n - root) {
				sub[j] = symbols[s].coded(n)
			}
			code += 1 << (16 - n)
		}
		end += len(sub)
	}
}

// coded is what a symbol's entry is when its code has n bits.
func (e entry) coded(n int) entry { return e + entry(n)*(1+1<<8) }

var litSymbols, distSymbols, lensSymbols = symbols()

// symbols are the entries of all symbols without the lengths of their codes.
func symbols() (lit [maxLitCodes + 2]entry, dist [maxDistCodes + 2]entry, lens [19]entry) {
	for s := range lens {
		lens[s] = entry(s) << 16
	}
	for s := range endSymbol {
		lit[s] = literal | entry(s)<<16
	}
	lit[endSymbol] = endOfBlock
	base := entry(3)
	for s := endSymbol + 1; s < maxLitCodes-1; s++ {
		extra := max(0, (s-261)/4)
		lit[s] = base<<16 | entry(extra)
		base += 1 << extra
	}
	lit[maxLitCodes-1] = 258 << 16
	lit[maxLitCodes], lit[maxLitCodes+1] = invalid, invalid
	base = 1
	for s := range maxDistCodes {
		extra := max(0, (s-2)/2)
		dist[s] = base<<16 | entry(extra)
		base += 1 << extra
	}
	dist[maxDistCodes], dist[maxDistCodes+1] = invalid, invalid
	return lit, dist, lens
}

type fixed struct {
	lit  litTable
	dist distTable
}

// fixedTables are those of the fixed codes, made when first needed.
var fixedTables = sync.OnceValue(func() *fixed {
	var lens [maxLitCodes + 2]uint8
	for s := range lens {
		switch {
		case s < 144:
			lens[s] = 8
		case s < 256:
			lens[s] = 9
		case s < 280:
			lens[s] = 7
		default:
			lens[s] = 8
		}
	}
	f := new(fixed)
	build(f.lit[:], litRoot, litSymbols[:], lens[:], false)
	var five [maxDistCodes + 2]uint8
	for s := range five {
		five[s] = 5
	}
	build(f.dist[:], distRoot, distSymbols[:], five[:], false)
	return f
})
