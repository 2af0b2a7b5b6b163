package zero

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// lengths are around every step that the code takes.
var lengths = []int{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 511, 512, 513, 519, 520, 1024,
	4095, 4096, 4097, 4104, 8191, 8192, 8193, 12288, 65536, 65537}

// at returns n bytes of b, which has none that are zero, at a shifted address.
func at(shift, n int) []byte {
	b := bytes.Repeat([]byte{0xff}, n+64)
	return b[shift : shift+n : shift+n]
}

func TestIsAndPrefix(t *testing.T) {
	for _, n := range lengths {
		for _, shift := range []int{0, 1, 8, 13} {
			p := at(shift, n)
			clear(p)
			if !Is(p) || Prefix(p) != n {
				t.Fatalf("%d zeros at %d: Is %v, Prefix %d", n, shift, Is(p), Prefix(p))
			}
			step := 1 + n/700
			for i := 0; i < n; i += step {
				p[i] = byte(1 << (i % 8))
				if Is(p) || Prefix(p) != i {
					t.Fatalf("byte %d of %d at %d set: Is %v, Prefix %d", i, n, shift, Is(p), Prefix(p))
				}
				p[i] = 0
			}
		}
	}
}

// runs splits p the slow way.
func runs(p []byte, grain int) (s string) {
	for len(p) > 0 {
		n, zero := 0, false
		for i := 0; i < len(p); i += grain {
			g := p[i:min(i+grain, len(p))]
			z := len(bytes.Trim(g, "\x00")) == 0
			if i > 0 && z != zero {
				break
			}
			n, zero = i+len(g), z
		}
		s += fmt.Sprint(n, zero, " ")
		p = p[n:]
	}
	return s
}

func TestRun(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		p := make([]byte, r.IntN(9000))
		for range r.IntN(6) {
			if len(p) > 0 {
				i := r.IntN(len(p))
				for j := i; j < min(len(p), i+r.IntN(3000)); j++ {
					p[j] = byte(j)
				}
			}
		}
		grain := []int{1, 7, 512, 4096, 10000, math.MaxInt}[r.IntN(6)]
		if grain == 1 {
			p = p[:min(len(p), 300)]
		}
		want, got := "", ""
		if grain < math.MaxInt {
			want = runs(p, grain)
		} else if len(p) > 0 {
			want = fmt.Sprint(len(p), Is(p), " ")
		}
		for rest := p; len(rest) > 0; {
			n, zero := Run(rest, grain)
			got += fmt.Sprint(n, zero, " ")
			rest = rest[n:]
		}
		if got != want {
			t.Fatalf("runs of %d bytes at %d are %q, want %q", len(p), grain, got, want)
		}
	}
	if n, zero := Run(nil, 512); n != 0 || !zero {
		t.Errorf("the run of nothing is %d %v", n, zero)
	}
}

func naive(p []byte) int {
	for i, b := range p {
		if b != 0 {
			return i
		}
	}
	return len(p)
}

// BenchmarkZeros compares the functions with a loop over the bytes.
func BenchmarkZeros(b *testing.B) {
	p := make([]byte, 64<<10)
	for _, c := range []struct {
		name string
		all  func(p []byte) bool
	}{
		{"naive", func(p []byte) bool { return naive(p) == len(p) }},
		{"Is", Is},
		{"Prefix", func(p []byte) bool { return Prefix(p) == len(p) }},
		{"Run512", func(p []byte) bool { n, zero := Run(p, 512); return zero && n == len(p) }},
		{"Run4096", func(p []byte) bool { n, zero := Run(p, 4096); return zero && n == len(p) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if !c.all(p) {
					b.Fatal("not all zero")
				}
			}
		})
	}
}
