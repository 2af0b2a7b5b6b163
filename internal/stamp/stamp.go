// Package stamp fills disks with content that tells where it comes from: each
// eight bytes name the write that put them there and the place where they
// belong. A sector that turns up elsewhere, or a write that was lost, is seen
// and can be named. Used by tests only.
package stamp

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A word is the number of the write in the upper bits and the disk offset,
// counted in words, in the lower ones.
const (
	size     = 8
	placeLen = 40
	// MaxID is the greatest number of a write.
	MaxID = 1<<24 - 1
)

// Fill writes into p what write id, 1 to MaxID, puts at the disk offset off.
// What belongs at an offset does not depend on where p begins. It compresses
// well.
func Fill(p []byte, off int64, id uint32) { fill(p, off, id, func(w uint64) uint64 { return w }) }

// Noise is Fill with bytes that do not compress.
func Noise(p []byte, off int64, id uint32) { fill(p, off, id, mix) }

func fill(p []byte, off int64, id uint32, encode func(uint64) uint64) {
	var w [size]byte
	for len(p) > 0 {
		word := uint64(id)<<placeLen | uint64(off/size)
		binary.LittleEndian.PutUint64(w[:], encode(word))
		n := copy(p, w[off%size:])
		p, off = p[n:], off+int64(n)
	}
}

// Two rounds of multiplication by an odd number, which can be undone, with the
// halves folded in between, which undoes itself.
const (
	factor  = 0x9e6c63d0a53f19b5
	inverse = 0x5c0fbcbe4f2dcc9d
)

func fold(w uint64) uint64 { return w ^ w>>32 }

func mix(w uint64) uint64 { return fold(fold(fold(w)*factor) * factor) }

func unmix(w uint64) uint64 { return fold(fold(fold(w)*inverse) * inverse) }

// Origin returns which write put a word there and where that belonged. The
// word is the eight bytes at a disk offset that is a multiple of eight.
func Origin(word []byte) (id uint32, off int64, ok bool) {
	w := binary.LittleEndian.Uint64(word)
	for _, w := range []uint64{w, unmix(w)} {
		id, off = uint32(w>>placeLen), int64(w&(1<<placeLen-1))*size
		if id > 0 && id < 1<<16 && off < 1<<36 {
			return id, off, true
		}
	}
	return 0, 0, false
}

// Diff returns where got, the content of a disk at off, first differs from
// want, and whose bytes are there. It is empty if they are equal.
func Diff(got, want []byte, off int64) string {
	if bytes.Equal(got, want) {
		return ""
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes at %#x, want %d", len(got), off, len(want))
	}
	first, count := -1, 0
	for i := range got {
		if got[i] != want[i] {
			count++
			if first < 0 {
				first = i
			}
		}
	}
	return fmt.Sprintf("%d of %d bytes at %#x differ, the first at %#x: it holds %s, want %s",
		count, len(got), off, off+int64(first), describe(got, off, first), describe(want, off, first))
}

// describe says whose byte i of p, the content of a disk at off, is.
func describe(p []byte, off int64, i int) string {
	at := (off + int64(i)) / size * size // the word that byte i is in
	start := at - off
	if start < 0 || start+size > int64(len(p)) {
		return fmt.Sprintf("byte %#02x", p[i])
	}
	word := p[start : start+size]
	id, place, ok := Origin(word)
	switch {
	case !ok:
		return fmt.Sprintf("bytes %x", word)
	case place == at:
		return fmt.Sprintf("what write %d put there", id)
	}
	return fmt.Sprintf("what write %d put at %#x", id, place)
}
