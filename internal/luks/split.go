package luks

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// The anti-forensic splitter: a key becomes Stripes times as many bytes, all of
// which are needed to have it back.

// split writes the key, split up, to out, which is Stripes times as long.
func split(h func() hash.Hash, key, out []byte) {
	last := len(out) - len(key)
	rand.Read(out[:last]) // never fails
	d := make([]byte, len(key))
	mix(h, d, out[:last])
	subtle.XORBytes(out[last:], d, key)
	clear(d)
}

// merge is the reverse of split.
func merge(h func() hash.Hash, material []byte, keyBytes int) []byte {
	last := len(material) - keyBytes
	key := make([]byte, keyBytes)
	mix(h, key, material[:last])
	subtle.XORBytes(key, key, material[last:])
	return key
}

// mix folds stripes into d, diffused after each.
func mix(h func() hash.Hash, d, stripes []byte) {
	f := h()
	for ; len(stripes) > 0; stripes = stripes[len(d):] {
		subtle.XORBytes(d, d, stripes[:len(d)])
		diffuse(f, d)
	}
}

// diffuse hashes d piece by piece, each with its number before it.
func diffuse(f hash.Hash, d []byte) {
	var sum [64]byte
	var number [4]byte
	for i := uint32(0); len(d) > 0; i++ {
		n := min(len(d), f.Size())
		binary.BigEndian.PutUint32(number[:], i)
		f.Reset()
		f.Write(number[:])
		f.Write(d[:n])
		copy(d[:n], f.Sum(sum[:0]))
		d = d[n:]
	}
	clear(sum[:])
}
