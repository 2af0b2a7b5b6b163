package inflate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// bitString is a stream as 0 and 1 in the order in which they are read.
type bitString string

// num writes a number, lowest bit first.
func num(v, n int) bitString {
	var b []byte
	for range n {
		b = append(b, '0'+byte(v&1))
		v >>= 1
	}
	return bitString(b)
}

// bytes packs the bits, with zeros up to a whole byte.
func (s bitString) bytes() []byte {
	p := make([]byte, (len(s)+7)/8)
	for i, c := range s {
		p[i/8] |= byte(c-'0') << (i % 8)
	}
	return p
}

const (
	last      = bitString("1")
	more      = bitString("0")
	fixedType = bitString("10")
	dynType   = bitString("01")
	fixedEnd  = bitString("0000000")
)

// fixedA is n times the letter A in the fixed code.
func fixedA(n int) bitString { return bitString(strings.Repeat(fmt.Sprintf("%08b", 0x30+'A'), n)) }

// lens are code lengths; 0 for the many that are not named.
func lens(n int, named map[int]int) []int {
	l := make([]int, n)
	for s, v := range named {
		l[s] = v
	}
	return l
}

// dynamic writes the header of a dynamic block. The code of the code lengths
// has four bits for 0 to 15 and none for the repeats, if short is nil.
func dynamic(nlit, ndist int, short []int, symbols []bitString) bitString {
	order := []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	s := dynType + num(nlit-257, 5) + num(ndist-1, 5) + num(19-4, 4)
	for _, i := range order {
		s += num(short[i], 3)
	}
	return s + bitString(join(symbols))
}

func join(s []bitString) (all bitString) {
	for _, b := range s {
		all += b
	}
	return all
}

// flat is the code of code lengths with four bits for 0 to 15.
var flat = func() []int {
	l := slices.Repeat([]int{4}, 19)
	l[16], l[17], l[18] = 0, 0, 0
	return l
}()

// plain writes lengths in flat.
func plain(lens ...int) (s []bitString) {
	for _, l := range lens {
		s = append(s, bitString(fmt.Sprintf("%04b", l)))
	}
	return s
}

// codes is the header of a dynamic block with these lengths.
func codes(lit map[int]int, dist ...int) bitString {
	return dynamic(286, len(dist), flat, plain(append(lens(286, lit), dist...)...))
}

// abc is A, the end of block and the length 258, with the codes 0, 10 and 11.
var abc = map[int]int{'A': 1, 256: 2, 285: 2}

const sector = 512

// streams are made by hand to be good or wrong in one way.
var streams = []struct {
	name   string
	size   int
	stream []byte
	err    error
	// lenient: taken here although QEMU refuses it, because of what follows
	// where the output is full.
	lenient bool
}{
	{name: "nothing", stream: nil, err: ErrTruncated},
	{name: "fixed", stream: (last + fixedType + fixedA(512) + fixedEnd).bytes()},
	{name: "fixed without an end", stream: (last + fixedType + fixedA(512)).bytes(), lenient: true},
	{name: "two blocks", stream: (more + fixedType + fixedA(500) + fixedEnd + last + fixedType + fixedA(12) + fixedEnd).bytes()},
	{name: "one byte short", stream: (last + fixedType + fixedA(511) + fixedEnd).bytes(), err: ErrShort},
	{name: "one byte more", stream: (last + fixedType + fixedA(513) + fixedEnd).bytes()},
	{name: "a match too long for the output", stream: (last + fixedType + fixedA(400) + "11000101" + "00000" + fixedEnd).bytes()},
	{name: "a block of type 3 after the last byte", stream: (more + fixedType + fixedA(512) + fixedEnd + "011").bytes(), lenient: true},
	{name: "symbol 286 after the last byte", stream: (last + fixedType + fixedA(512) + "11000110").bytes(), lenient: true},
	{name: "distance too far after the last byte", stream: (last + fixedType + fixedA(512) + "0000001" + "11101" + num(0xfff, 13)).bytes()},

	{name: "block type 3", stream: (last + "11").bytes(), err: ErrBlockType},
	{name: "block type 3 in the second block", stream: (more + fixedType + fixedA(5) + fixedEnd + "011").bytes(), err: ErrBlockType},
	{name: "symbol 286", stream: (last + fixedType + "11000110" + fixedA(600)).bytes(), err: ErrSymbol},
	{name: "symbol 287", stream: (last + fixedType + "11000111" + fixedA(600)).bytes(), err: ErrSymbol},
	{name: "distance symbol 30", stream: (last + fixedType + fixedA(1) + "0000001" + "11110" + fixedA(600)).bytes(), err: ErrDistance},
	{name: "distance symbol 31", stream: (last + fixedType + fixedA(1) + "0000001" + "11111" + fixedA(600)).bytes(), err: ErrDistance},
	{name: "distance 1 at the start", stream: (last + fixedType + "0000001" + "00000" + fixedA(600)).bytes(), err: ErrTooFar},
	{name: "distance 2 after one byte", stream: (last + fixedType + fixedA(1) + "0000001" + "00001" + fixedA(600)).bytes(), err: ErrTooFar},
	{name: "distance 1 after one byte", stream: (last + fixedType + fixedA(1) + "0000001" + "00000" + fixedA(508)).bytes()},
	{name: "cut in a literal", stream: (last + fixedType + fixedA(10) + "0111").bytes()[:11], err: ErrTruncated},
	{name: "cut in a length", stream: (last + fixedType + fixedA(10) + "0000" + "11000100").bytes()[:11], err: ErrTruncated},
	{name: "cut in a distance", stream: (last + fixedType + fixedA(1) + "11000101" + "11101").bytes()[:3], err: ErrTruncated},

	{name: "stored", stream: append([]byte{1, 0, 2, 0xff, 0xfd}, make([]byte, 512)...)},
	{name: "stored, its length cut off", stream: []byte{1, 0, 2, 0xff}, err: ErrTruncated},
	{name: "stored, its data cut off", stream: append([]byte{1, 0, 2, 0xff, 0xfd}, make([]byte, 511)...), err: ErrTruncated},
	{name: "stored, longer than the output", stream: append([]byte{1, 0, 3, 0xff, 0xfc}, make([]byte, 768)...)},
	{name: "stored, longer than the input", stream: append([]byte{1, 0, 3, 0xff, 0xfc}, make([]byte, 512)...)},
	{name: "stored, wrong complement", stream: append([]byte{1, 0, 2, 0xff, 0xfc}, make([]byte, 512)...), err: ErrStored},
	{name: "stored, empty and not the last", stream: make([]byte, 600), err: ErrStored},
	{name: "empty stored blocks", stream: bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 100), err: ErrTruncated},

	{name: "no distance codes", stream: (last + codes(abc, 0) + bitString(strings.Repeat("0", 512)) + "10").bytes()},
	{name: "no distance codes, one used", stream: (last + codes(abc, 0) + "0110" + bitString(strings.Repeat("0", 600))).bytes(), err: ErrDistance},
	{name: "one distance code", stream: (last + codes(abc, 1) + "0110" + bitString(strings.Repeat("0", 600))).bytes()},
	{name: "one distance code, the other used", stream: (last + codes(abc, 1) + "0111" + bitString(strings.Repeat("0", 600))).bytes(), err: ErrDistance},
	{name: "one distance code of two bits", stream: (last + codes(abc, 2) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrDistances},
	{name: "distances incomplete", stream: (last + codes(abc, 2, 2) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrDistances},
	{name: "distances over-subscribed", stream: (last + codes(abc, 1, 1, 1) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrDistances},
	{name: "literals incomplete", stream: (last + codes(map[int]int{'A': 1, 256: 2}, 1) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrLiterals},
	{name: "literals over-subscribed", stream: (last + codes(map[int]int{'A': 1, 256: 1, 257: 1}, 1) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrLiterals},
	{name: "no end of block", stream: (last + codes(map[int]int{'A': 1, 'B': 1}, 1) + bitString(strings.Repeat("0", 600))).bytes(), err: ErrNoEnd},
	{name: "only an end of block", stream: (more + codes(map[int]int{256: 1}, 0) + "0" + last + fixedType + fixedA(512) + fixedEnd).bytes()},
	{name: "only an end of block, the other code used", stream: (more + codes(map[int]int{256: 1}, 0) + "1" + last + fixedType + fixedA(512)).bytes(), err: ErrSymbol},
	{name: "only an end of block, of two bits", stream: (more + codes(map[int]int{256: 2}, 0) + "00" + last + fixedType + fixedA(512)).bytes(), err: ErrLiterals},
	{name: "30 distance codes", stream: (last + codes(abc, make([]int, 30)...) + bitString(strings.Repeat("0", 512)) + "10").bytes()},
	{name: "31 distance codes", stream: (last + codes(abc, make([]int, 31)...) + bitString(strings.Repeat("0", 512))).bytes(), err: ErrCounts},
	{name: "287 literal codes", stream: (last + dynamic(287, 1, flat, plain(append(lens(287, abc), 0)...)) + bitString(strings.Repeat("0", 512))).bytes(), err: ErrCounts},
	{name: "codes of fifteen bits", stream: (last + codes(map[int]int{'A': 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 12, 12: 13, 13: 14, 14: 15, 256: 15}, 0) +
		bitString(strings.Repeat("111111111110"+"11111111111110"+"111111111111110", 171)) + "111111111111111").bytes(), err: ErrShort, size: 514},
	{name: "code lengths incomplete", stream: (last + dynamic(286, 1, lens(19, map[int]int{0: 1, 1: 2}), nil)).bytes(), err: ErrCodeLengths},
	{name: "code lengths a single code", stream: (last + dynamic(286, 1, lens(19, map[int]int{0: 1}), []bitString{num(0, 400)})).bytes(), err: ErrCodeLengths},
	{name: "code lengths over-subscribed", stream: (last + dynamic(286, 1, slices.Repeat([]int{4}, 19), nil)).bytes(), err: ErrCodeLengths},
	{name: "code lengths none", stream: (last + dynamic(286, 1, make([]int, 19), []bitString{num(0, 400)})).bytes(), err: ErrCodeLengths},
	{name: "repeat before the first", stream: (last + dynamic(286, 1, lens(19, map[int]int{0: 1, 16: 1}), []bitString{"1", num(0, 400)})).bytes(), err: ErrRepeat},
	{name: "repeat beyond the last", stream: (last + dynamic(286, 1, lens(19, map[int]int{0: 1, 18: 1}),
		[]bitString{"1", num(127, 7), "1", num(127, 7), "1", num(1, 7)})).bytes(), err: ErrRepeat},
	{name: "repeat from literals into distances", stream: (last + dynamic(286, 5, lens(19, map[int]int{0: 2, 1: 2, 2: 2, 18: 2}),
		// 0 is 00, 1 is 01, 2 is 10, 18 is 11.
		[]bitString{"11", num(65-11, 7), "01", "11", num(138-11, 7), "11", num(52-11, 7), "10", "10", "11", num(33-11, 7)}) +
		bitString(strings.Repeat("0", 512))).bytes()},
	{name: "repeat before the first, cut off", stream: []byte{0x24, 0x12, 0x24, 0x24}, err: ErrRepeat},
	{name: "cut in the header of a block", stream: []byte{1 | 2<<1, 0}, err: ErrTruncated},
	{name: "cut in the code lengths", stream: (last + codes(abc, 0)).bytes()[:60], err: ErrTruncated},
}

func TestStreams(t *testing.T) {
	for _, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			size := max(c.size, sector)
			var d Decoder
			got, err := decode(t, &d, size, c.stream)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err != nil && strings.Count(err.Error(), "\n") != 0 {
				t.Errorf("not one sentence: %q", err)
			}
			if err == nil && !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
				t.Error("wrong bytes")
			}
			agree(t, size, c.stream)
		})
	}
}

// TestQEMU shows that QEMU takes and refuses the same clusters.
func TestQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for _, c := range streams {
		const mostData = 2 * sector // that a compressed cluster can have
		if c.size > sector || len(c.stream) > mostData {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			padded := append(bytes.Clone(c.stream), bytes.Repeat([]byte{0xff}, mostData-len(c.stream))...)
			var d Decoder
			got, err := decode(t, &d, sector, padded)
			want, refusal := qemu.Decompress(t, qemu.Deflate, 9, padded)
			if c.lenient != (err == nil && refusal != nil) {
				t.Fatalf("got %v, QEMU says %v", err, refusal)
			}
			if refusal == nil && !bytes.Equal(got, want) {
				t.Error("other bytes than QEMU")
			}
		})
	}
}
