package qcow2

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// slowRef is what the specification says of a refcount of any width: an integer
// of its own from a byte up; below, bits of a byte, the first in the lowest.
func slowRef(b []byte, i, width int) (v uint64) {
	if width >= 8 {
		for _, x := range b[i*width/8:][:width/8] {
			v = v<<8 | uint64(x)
		}
		return v
	}
	for k := range width {
		bit := i*width + k
		v |= uint64(b[bit/8]>>(bit%8)&1) << k
	}
	return v
}

func TestRefcountCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 0))
	for order := range uint(7) {
		width := 1 << order
		b := randomBytes(r, 512)
		n := len(b) * 8 / width
		want := make([]uint64, n)
		for i := range n {
			want[i] = slowRef(b, i, width)
			if got := getRef(b, int64(i), order); got != want[i] {
				t.Fatalf("%d bits: refcount %d is %d, want %d", width, i, got, want[i])
			}
		}
		for range 4 * n {
			i := r.IntN(n)
			want[i] = r.Uint64() >> (64 - width)
			setRef(b, int64(i), order, want[i])
			if i > 0 && slowRef(b, i-1, width) != want[i-1] || i+1 < n && slowRef(b, i+1, width) != want[i+1] {
				t.Fatalf("%d bits: setting refcount %d changes its neighbours", width, i)
			}
		}
		got := make([]uint64, n)
		for i := range got {
			got[i] = slowRef(b, i, width)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bits: what was set is not what is there", width)
		}
	}
}

func TestTableCodec(t *testing.T) {
	table := []uint64{0, 1, 1 << 63, 0x0123456789abcdef}
	b := encodeTable(table)
	if !slices.Equal(decodeTable(b), table) || len(b) != 32 || b[31] != 0xef || b[24] != 0x01 {
		t.Errorf("%x", b)
	}
}

// nextFree finds what a look at each refcount finds, in pieces with few free
// clusters or none.
func TestNextFree(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 0))
	for order := range uint(7) {
		for range 300 {
			b := make([]byte, 512)
			n := int64(len(b)) << 3 >> order
			for i := range n {
				setRef(b, i, order, 1+r.Uint64N(1<<(1<<min(order, 5))-1))
			}
			for range r.IntN(4) {
				setRef(b, r.Int64N(n), order, 0)
			}
			i := r.Int64N(n)
			want := i
			for want < n && getRef(b, want, order) != 0 {
				want++
			}
			if got := nextFree(b, i, order); got != want {
				t.Fatalf("order %d, from %d: found %d, want %d", order, i, got, want)
			}
		}
	}
}
