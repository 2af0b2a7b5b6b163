package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/internal/inflate"
	"github.com/diskimg/diskimg/internal/qemu"
)

// source is real data: this program.
var source = sync.OnceValue(func() []byte {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return p[:min(len(p), 3<<20)]
})

func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// samples are clusters of several kinds, all of n bytes.
func samples(n int) map[string][]byte {
	var text strings.Builder
	for i := 0; text.Len() < n; i++ {
		fmt.Fprintf(&text, "line %d of the text\n", i*i%1009)
	}
	return map[string][]byte{
		"zeros":  make([]byte, n),
		"random": random(n),
		"text":   []byte(text.String()[:n]),
		"binary": bytes.Repeat(source(), n/len(source())+2)[len(source())/2:][:n],
		// What lies 4096, 4097 and 32768 bytes back comes again.
		"far":  bytes.Repeat(random(4096+13), n/4096+1)[:n],
		"edge": bytes.Repeat(random(4096), n/4096+1)[:n],
	}
}

func TestRoundTrip(t *testing.T) {
	var d inflate.Decoder
	for _, n := range []int{0, 1, 2, 100, 511, 512, 4096, 65535, 65536, 1 << 20, 2 << 20} {
		for name, src := range samples(n) {
			dst := make([]byte, n+n/100+100)
			m, ok := Compress(dst, src)
			if !ok {
				t.Fatalf("%d bytes %s do not fit into %d", n, name, len(dst))
			}
			back := make([]byte, n)
			if err := d.Decode(back, dst[:m]); err != nil || !bytes.Equal(back, src) {
				t.Errorf("%d bytes %s: %v", n, name, err)
			}
			all, err := io.ReadAll(flate.NewReader(bytes.NewReader(dst[:m])))
			if err != nil || !bytes.Equal(all, src) {
				t.Errorf("%d bytes %s by the library: %d bytes, %v", n, name, len(all), err)
			}
		}
	}
}

// TestFit shows that a stream is written where it just fits, that one byte less
// is noticed, and that nothing is written behind the buffer.
func TestFit(t *testing.T) {
	for name, src := range samples(8192) {
		whole := make([]byte, 2*len(src))
		n, ok := Compress(whole, src)
		if !ok {
			t.Fatal(name)
		}
		for _, room := range []int{n + 1, n, n - 1, n / 2, 1, 0} {
			dst := bytes.Repeat([]byte{0xa5}, n+100)
			m, ok := Compress(dst[:room], src)
			if ok != (room >= n) || ok && (m != n || !bytes.Equal(dst[:n], whole[:n])) {
				t.Errorf("%s, %d bytes into %d: got %d, %v", name, n, room, m, ok)
			}
			if bytes.Count(dst[room:], []byte{0xa5}) != len(dst)-room {
				t.Errorf("%s: written behind %d bytes", name, room)
			}
		}
	}
}

// TestDistances walks through the matches of real data, in clusters of all
// sizes, and of data made to tempt.
func TestDistances(t *testing.T) {
	check := func(what string, src []byte) *walker {
		dst := make([]byte, len(src)+len(src)/100+100)
		n, ok := Compress(dst, src)
		if !ok {
			t.Fatalf("%s does not fit", what)
		}
		w := walk(dst[:n])
		if w.size != len(src) {
			t.Fatalf("%s: the stream is for %d bytes, want %d", what, w.size, len(src))
		}
		if w.maxDistance > MaxDistance {
			t.Errorf("%s: a distance of %d", what, w.maxDistance)
		}
		return w
	}
	matches, longest := 0, 0
	for _, size := range []int{4 << 10, 64 << 10, 2 << 20} {
		for p := source(); len(p) >= size; p = p[size:] {
			w := check("real data", p[:size])
			matches += w.matches
			longest = max(longest, w.maxDistance)
		}
		for name, p := range samples(size) {
			check(name, p)
		}
	}
	if matches < 100000 || longest < MaxDistance*9/10 {
		t.Errorf("only %d matches, of at most %d: the data proves nothing", matches, longest)
	}
	// The walker sees what it looks for.
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(samples(64 << 10)["far"])
	w.Close()
	if got := walk(b.Bytes()).maxDistance; got != 4096+13 {
		t.Errorf("the walker finds a distance of %d, want %d", got, 4096+13)
	}
}

func TestConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	for name, src := range samples(64 << 10) {
		for range 4 {
			wg.Go(func() {
				var d inflate.Decoder
				dst, back := make([]byte, 2*len(src)), make([]byte, len(src))
				for range 5 {
					n, ok := Compress(dst, src)
					if err := d.Decode(back, dst[:n]); !ok || err != nil || !bytes.Equal(src, back) {
						t.Errorf("%s: %v %v", name, ok, err)
					}
					Compress(dst[:n/2], src)
				}
			})
		}
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	src := samples(64 << 10)["text"]
	c := &compressor{dst: make([]byte, len(src))}
	// Not through the pool, which a collection may empty.
	if n := testing.AllocsPerRun(50, func() {
		c.used = 0
		if err := c.compress(src); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a cluster", n)
	}
}

// TestQEMU has QEMU read what is written here.
func TestQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for _, bits := range []int{9, 12, 16, 21} {
		for name, src := range samples(1 << bits) {
			dst := make([]byte, len(src))
			n, ok := Compress(dst, src)
			if !ok {
				continue
			}
			got, err := qemu.Decompress(t, qemu.Deflate, bits, dst[:n])
			if err != nil || !bytes.Equal(got, src) {
				t.Errorf("%s, clusters of %d bytes: %v", name, len(src), err)
			}
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	src := samples(64 << 10)["binary"]
	dst := make([]byte, len(src))
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		Compress(dst, src)
	}
}
