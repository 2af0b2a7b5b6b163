package sectors

import (
	"crypto/subtle"
	"encoding/binary"
)

// The XTS mode of IEEE 1619. All tweaks of a sector are made first and applied
// at once: several times faster than block by block.

// xts runs one sector through f, a direction of the cipher of the data.
func (c *Cipher) xts(w *worker, dst, src []byte, f func(dst, src []byte)) {
	c.tweak.Encrypt(w.iv[:], w.iv[:])
	fillTweaks(&w.tweaks, &w.iv)
	subtle.XORBytes(dst, src, w.tweaks[:])
	for at := 0; at < Size; at += 16 {
		f(dst[at:at+16], dst[at:at+16])
	}
	subtle.XORBytes(dst, dst, w.tweaks[:])
}

// fillTweaks writes the tweak of each block: that of the one before times x in
// GF(2^128).
func fillTweaks(tweaks *[Size]byte, first *[16]byte) {
	lo, hi := binary.LittleEndian.Uint64(first[:8]), binary.LittleEndian.Uint64(first[8:])
	for at := 0; at < Size; at += 16 {
		binary.LittleEndian.PutUint64(tweaks[at:], lo)
		binary.LittleEndian.PutUint64(tweaks[at+8:], hi)
		carry := hi >> 63
		hi = hi<<1 | lo>>63
		lo = lo<<1 ^ 0x87*carry
	}
}
