package qcow2

import (
	"math/rand/v2"
	"testing"
)

// A bitset does what a slice of bools does.
func TestBitset(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 3*bitPageBits + 1000
	var s bitset
	want := make([]bool, n)
	shared, before := bitset{}, []bool(nil)
	for step := range 400 {
		from := r.Int64N(n)
		to := from + r.Int64N(min(n-from, 1<<r.IntN(18))+1)
		switch r.IntN(12) {
		default:
			s.set(from, to)
			for i := from; i < to; i++ {
				want[i] = true
			}
		case 0:
			s.truncate(from)
			clear(want[from:])
		case 1:
			shared, before = s.clone(), append([]bool(nil), want...)
		}
		if step%8 == 0 {
			sameBits(t, &s, want)
			sameBits(t, &shared, before)
		}
		if (from^to)>>6 != 0 {
			lo, hi := from&^63, to&^63
			if got := s.any(lo, hi); got != anyOf(want[lo:hi]) {
				t.Fatalf("any bit in [%d, %d): %v", lo, hi, got)
			}
		}
	}
}

func anyOf(list []bool) bool {
	for _, b := range list {
		if b {
			return true
		}
	}
	return false
}

// sameBits reads the set in pieces of odd sizes.
func sameBits(t *testing.T, s *bitset, want []bool) {
	t.Helper()
	const piece = 512 * 8
	p := make([]byte, piece/8)
	for first := 0; first < len(want); first += piece {
		clear(p)
		s.addTo(p, int64(first))
		got := make([]bool, piece)
		bitRuns(p, func(from, to int64) bool {
			for i := from; i < to; i++ {
				got[i] = true
			}
			return true
		})
		for i, b := range got {
			if at := first + i; b != (at < len(want) && want[at]) {
				t.Fatalf("bit %d is %v", at, b)
			}
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want [3]byte
	}{{-5, [3]byte{}}, {0, [3]byte{}}, {1, [3]byte{1}}, {8, [3]byte{255}}, {11, [3]byte{255, 7}}, {24, [3]byte{255, 255, 255}}, {99, [3]byte{255, 255, 255}}} {
		p := [3]byte{255, 255, 255}
		if clip(p[:], c.n); p != c.want {
			t.Errorf("%d bits: %v, want %v", c.n, p, c.want)
		}
	}
}
