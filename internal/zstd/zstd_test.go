package zstd

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

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
	return p[:min(len(p), 4<<20)]
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
		"far":    bytes.Repeat(random(n/2+1), 2)[:n],
	}
}

func roundTrip(t *testing.T, what string, want, frame []byte) {
	t.Helper()
	const guard = 200
	all := bytes.Repeat([]byte{0xa5}, len(want)+2*guard)
	dst := all[guard : guard+len(want)]
	if err := Decode(dst, frame); err != nil {
		t.Errorf("%s of %d bytes: %v", what, len(want), err)
	} else if !bytes.Equal(dst, want) {
		t.Errorf("%s of %d bytes came back different", what, len(want))
	}
	if bytes.Count(all[:guard], []byte{0xa5}) != guard || bytes.Count(all[guard+len(want):], []byte{0xa5}) != guard {
		t.Errorf("%s of %d bytes: written outside of the buffer", what, len(want))
	}
}

var sizes = []int{1, 2, 100, 511, 512, 1023, 4096, 65535, 65536, 65537, 128 << 10, 300000, 2 << 20}

func TestRoundTrip(t *testing.T) {
	for _, n := range sizes {
		for name, src := range samples(n) {
			dst := make([]byte, n+n/100+100)
			m, ok := Compress(dst, src)
			if !ok {
				t.Fatalf("%s of %d bytes does not fit", name, n)
			}
			roundTrip(t, name, src, dst[:m])
			roundTrip(t, name, src, append(dst[:m:m], make([]byte, 511)...))
			roundTrip(t, name, src, append(dst[:m:m], random(511)...))
			var h zstd.Header
			if err := h.Decode(dst[:m]); err != nil {
				t.Fatal(err)
			}
			if h.WindowSize > uint64(max(1024, 2*n)) || h.HasFCS && h.FrameContentSize != uint64(n) || h.HasCheckSum {
				t.Errorf("%s of %d bytes: the header is %+v", name, n, h)
			}
		}
	}
	if err := Decode(nil, nil); err != nil {
		t.Error(err)
	}
	if n, ok := Compress(make([]byte, 20), nil); !ok || n == 0 {
		t.Errorf("compressing nothing gives %d, %v", n, ok)
	}
}

// TestOthersFrames reads what other settings and ways to write give.
func TestOthersFrames(t *testing.T) {
	for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
		for _, window := range []int{1 << 10, 2 << 20} {
			var b bytes.Buffer
			w, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			for name, src := range samples(size) {
				what := fmt.Sprint(name, level, window)
				roundTrip(t, what, src, w.EncodeAll(src, nil))
				roundTrip(t, what, src, slices.Concat(w.EncodeAll(src[:1000], nil), w.EncodeAll(src[1000:], nil)))
				b.Reset()
				w.Reset(&b)
				for p := range slices.Chunk(src, 10000) {
					if _, err := w.Write(p); err != nil {
						t.Fatal(err)
					}
					if err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				roundTrip(t, what, src, b.Bytes())
			}
		}
	}
}

// TestFit shows that a frame is written where it just fits, that one byte less
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

// stream decodes with the library's other way, which has no frame boundaries
// to find.
var stream = sync.OnceValue(func() *zstd.Decoder {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeBuffersBelow(0),
		zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err)
	}
	return r
})

// agree shows that what is taken is what the library's stream reader reads. The
// latter takes more: it does not see what the frame ends with.
func agree(t testing.TB, n int, src []byte) {
	t.Helper()
	got, want := make([]byte, n), make([]byte, n)
	err := Decode(got, src)
	if err != nil {
		return
	}
	libErr := stream().Reset(bytes.NewReader(src))
	if libErr == nil {
		_, libErr = io.ReadFull(stream(), want)
	}
	if libErr != nil && n > 0 {
		t.Errorf("%d bytes from %x: the library says %v", n, src, libErr)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes from %x: other bytes than the library", n, src)
	}
}

func TestDamage(t *testing.T) {
	for name, src := range samples(1500) {
		dst := make([]byte, 2*len(src))
		n, _ := Compress(dst, src)
		f := dst[:n]
		for i := range n {
			if err := Decode(make([]byte, len(src)), f[:i]); err == nil {
				t.Fatalf("%s: %d of %d bytes were enough", name, i, n)
			}
		}
		for i := range n * 8 {
			if name != "text" && i > 2000 {
				break
			}
			f[i/8] ^= 1 << (i % 8)
			agree(t, len(src), f)
			f[i/8] ^= 1 << (i % 8)
		}
		for _, other := range []int{0, 1, len(src) - 1, len(src) + 1} {
			if err := Decode(make([]byte, other), f); (err == nil) != (other == 0) {
				t.Errorf("%s: %d bytes of %d: %v", name, other, len(src), err)
			}
		}
	}
}

// TestHostile shows that nothing a frame says costs more than its own length
// and that of the output.
func TestHostile(t *testing.T) {
	const most = 2 << 20
	cases := map[string][]byte{
		"window":       frame(0, window(27), x(true, 1)),
		"empty frames": bytes.Repeat(empty, most/len(empty)),
		"skippable":    bytes.Repeat(skippable(0), most/8),
		"empty blocks": w16(bytes.Repeat(block(false, raw, 0), most/3), block(true, raw, 0)),
		"bomb":         w16(bytes.Repeat(x(false, size), most/4), x(true, size)),
		"bombs":        bytes.Repeat(w16(x(true, size-1)), most/10),
		"tiny frames":  bytes.Repeat(w16(x(true, 1)), size-1),
		"size":         frame(fcsWord|single, word(1<<31), x(true, size)),
	}
	dst := make([]byte, size)
	if err := Decode(dst, whole); err != nil {
		t.Fatal(err)
	}
	for name, src := range cases {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		err := Decode(dst, src)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: took %d bytes of memory", name, n)
		}
	}
}

func TestConcurrent(t *testing.T) {
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for name, src := range samples(64 << 10) {
		for range 4 {
			wg.Go(func() {
				dst, back := make([]byte, 2*len(src)), make([]byte, len(src))
				for range 5 {
					n, ok := Compress(dst, src)
					if err := Decode(back, dst[:n]); !ok || err != nil || !bytes.Equal(src, back) {
						t.Errorf("%s: %v %v", name, ok, err)
					}
					if err := Decode(back, dst[:n/2]); err == nil {
						t.Errorf("%s: half of a frame was enough", name)
					}
				}
			})
		}
	}
	wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines became %d", before, runtime.NumGoroutine())
		}
	}
}

func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector empties the library's pools at random")
	}
	src := samples(64 << 10)["text"]
	dst, back := make([]byte, len(src)), make([]byte, len(src))
	var e encoder
	var d decoder
	n := 0
	// Not through the pools, which a collection may empty.
	if a := testing.AllocsPerRun(50, func() { n, _ = e.compress(dst, src) }); a != 0 {
		t.Errorf("%v allocations to compress a cluster", a)
	}
	if a := testing.AllocsPerRun(50, func() {
		if err := d.decode(back, dst[:n]); err != nil {
			t.Fatal(err)
		}
	}); a != 0 {
		t.Errorf("%v allocations to decompress a cluster", a)
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
			got, err := qemu.Decompress(t, qemu.Zstd, bits, dst[:n])
			if err != nil || !bytes.Equal(got, src) {
				t.Errorf("%s, clusters of %d bytes: %v", name, len(src), err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range frames {
		f.Add(uint32(size), c.src)
	}
	for _, src := range samples(600) {
		dst := make([]byte, 700)
		n, _ := Compress(dst, src)
		f.Add(uint32(600), dst[:n])
	}
	f.Fuzz(func(t *testing.T, n uint32, src []byte) {
		agree(t, int(n%(256<<10)), src)
	})
}

// FuzzRoundTrip shows that what is compressed comes back.
func FuzzRoundTrip(f *testing.F) {
	f.Add(random(5000))
	f.Add(make([]byte, 5000))
	f.Fuzz(func(t *testing.T, src []byte) {
		dst := make([]byte, len(src)+len(src)/100+100)
		n, ok := Compress(dst, src)
		if !ok {
			t.Fatal("does not fit")
		}
		roundTrip(t, "", src, dst[:n])
	})
}

func BenchmarkCompress(b *testing.B) {
	src := samples(size)["binary"]
	dst := make([]byte, len(src))
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		Compress(dst, src)
	}
}

func BenchmarkDecode(b *testing.B) {
	src := samples(size)["binary"]
	f := make([]byte, len(src))
	n, _ := Compress(f, src)
	dst := make([]byte, len(src))
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(dst, f[:n]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream is the other way to decode, which Decode is measured against.
func BenchmarkStream(b *testing.B) {
	src := samples(size)["binary"]
	f := make([]byte, len(src))
	n, _ := Compress(f, src)
	dst := make([]byte, len(src))
	r := bytes.NewReader(nil)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(f[:n])
		if err := stream().Reset(r); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(stream(), dst); err != nil {
			b.Fatal(err)
		}
	}
}
