package stamp

import (
	"bytes"
	"compress/flate"
	"strings"
	"testing"
)

func TestMixIsUndone(t *testing.T) {
	f := uint64(factor)
	if f*inverse != 1 {
		inv := f // Newton: each step doubles the number of good bits, from three on
		for range 5 {
			inv *= 2 - f*inv
		}
		t.Fatalf("the inverse of %#x is %#x", f, inv)
	}
	for w := uint64(1); w != 0; w <<= 1 {
		if got := unmix(mix(w)); got != w {
			t.Errorf("unmix(mix(%#x)) is %#x", w, got)
		}
	}
}

// What belongs at an offset is the same however the range around it is cut.
func TestFillDependsOnPlaceOnly(t *testing.T) {
	for _, f := range []func([]byte, int64, uint32){Fill, Noise} {
		all := make([]byte, 300)
		f(all, 1000, 7)
		for start := range 40 {
			for end := start; end < 80; end++ {
				part := make([]byte, end-start)
				f(part, 1000+int64(start), 7)
				if !bytes.Equal(part, all[start:end]) {
					t.Fatalf("bytes %d to %d differ", start, end)
				}
			}
		}
		if id, off, ok := Origin(all[8:16]); !ok || id != 7 || off != 1008 {
			t.Errorf("origin is %d, %d, %t", id, off, ok)
		}
	}
}

func TestCompressibility(t *testing.T) {
	packed := func(f func([]byte, int64, uint32)) int {
		p := make([]byte, 64<<10)
		f(p, 1<<20, 3)
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, flate.BestCompression)
		w.Write(p)
		w.Close()
		return b.Len()
	}
	if n := packed(Fill); n > 32<<10 {
		t.Errorf("Fill compresses 64 KiB to %d bytes only", n)
	}
	if n := packed(Noise); n < 64<<10 {
		t.Errorf("Noise compresses 64 KiB to %d bytes", n)
	}
}

func TestDiff(t *testing.T) {
	make1 := func(id uint32, off int64) []byte {
		p := make([]byte, 64)
		Noise(p, off, id)
		return p
	}
	if d := Diff(make1(1, 512), make1(1, 512), 512); d != "" {
		t.Errorf("equal content differs: %s", d)
	}
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{make1(2, 512), "it holds what write 2 put there, want what write 1 put there"},
		{make1(1, 1024), "it holds what write 1 put at 0x400, want"},
		{make([]byte, 64), "it holds bytes 0000000000000000, want"},
		{make([]byte, 9), "9 bytes at 0x200, want 64"},
	} {
		if d := Diff(c.got, make1(1, 512), 512); !strings.Contains(d, c.want) {
			t.Errorf("got %q, want %q", d, c.want)
		}
	}
}
