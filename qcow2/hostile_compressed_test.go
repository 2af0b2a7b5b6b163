package qcow2_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
)

// Compressed clusters made to do harm: they cost what a cluster costs, whatever
// is in them. The streams themselves are the matter of inflate and zstd; here
// is what an image can make of them.

// badStream is a cluster whose compressed data is put behind all others.
type badStream struct {
	name, seed string
	data       []byte
	desc       func(f *forge, desc uint64) uint64 // nil: as it should be
	text       string                             // of the error; none: it reads as streamDisk
	differs    string
}

func badStreams() []badStream {
	whole := deflated(4096)
	zeros := bytes.Repeat([]byte{0}, 5000)
	x := uint64(70 - 12)
	far := func(f *forge, desc uint64) uint64 { return desc&^(1<<x-1) | 1<<40 }
	all := func(f *forge, desc uint64) uint64 { return desc | 15<<x }
	none := func(f *forge, desc uint64) uint64 { return desc &^ (15 << x) }
	return []badStream{
		{name: "as it should be", seed: "v3", data: whole},
		{name: "with more sectors than the file has", seed: "v3", data: whole, desc: all},
		{name: "with the copied flag", seed: "v3", data: whole, desc: func(f *forge, d uint64) uint64 { return d | copiedFlag }},
		{name: "with fewer sectors than it needs", seed: "v3", data: noise(4096), desc: none, text: "compressed cluster at"},
		{name: "beyond the end of the file", seed: "v3", data: whole, desc: far, text: "compressed cluster at 0x10000000000 for guest offset 0x0: "},
		{name: "at the last offset", seed: "v3", data: whole, desc: func(f *forge, d uint64) uint64 { return d | (1<<x - 1) }, text: "compressed cluster at 0x3ffffffffffffff"},
		{name: "nothing", seed: "v3", data: nil, text: "compressed cluster at"},
		{name: "zeros", seed: "v3", data: zeros, text: "compressed cluster at"},
		{name: "ones", seed: "v3", data: bytes.Repeat([]byte{0xff}, 5000), text: "compressed cluster at"},
		{name: "a byte less", seed: "v3", data: deflated(4095), text: "with 4095 of 4096 bytes decoded"},
		{name: "a byte more", seed: "v3", data: deflated(4097)},
		{name: "a bomb of 8 MiB", seed: "v3", data: deflated(8 << 20)[:8000]},
		{name: "no output, forever", seed: "v3", data: bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1600), text: "with 0 of 4096 bytes decoded"},
		{name: "a bomb of 64 MiB", seed: "2M", data: deflated(64 << 20)},
		{name: "no output in 2 MiB", seed: "2M", data: bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 400_000), text: "with 0 of 2097152 bytes decoded"},
		{name: "not a frame", seed: "zstd", data: whole, text: "compressed cluster at"},
		{name: "empty frames, forever", seed: "zstd", data: bytes.Repeat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0}, 900), text: "with 0 of 4096 bytes decoded"},
		{name: "skippable frames", seed: "zstd", data: bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 1000), text: "compressed cluster at"},
		{name: "skippable frame of 4 GiB", seed: "zstd", data: []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff}, text: "compressed cluster at"},
		{name: "window of 3.75 TiB", seed: "zstd", data: []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 3, 0x80, 0, 7}, text: "a window of more than 128 MiB"},
		{name: "content of 2^63 bytes", seed: "zstd", data: []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80, 3, 0x80, 0, 7}, text: "compressed cluster at"},
		{name: "dictionary", seed: "zstd", data: []byte{0x28, 0xb5, 0x2f, 0xfd, 0x23, 1, 2, 3, 4, 0, 3, 0x80, 0, 7}, text: "compressed cluster at"},
	}
}

// deflated is n bytes of streamDisk as a raw deflate stream.
func deflated(n int) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	chunk := bytes.Repeat([]byte{'x'}, 64<<10)
	for n > 0 {
		k := min(n, len(chunk))
		if _, err := w.Write(chunk[:k]); err != nil {
			panic(err)
		}
		n -= k
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// noise is a deflate stream of n bytes that hardly shrinks.
func noise(n int) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.HuffmanOnly)
	_, _ = w.Write(seedNoise(n))
	_ = w.Close()
	return b.Bytes()
}

func seedNoise(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

func (s *badStream) image(t testing.TB) *forge {
	f := seed(t, s.seed)
	at := int64(len(f.b))
	n := max(1, (int64(len(s.data))+f.cluster()-1)/f.cluster())
	f.grow(n)
	copy(f.b[at:], s.data)
	x := 70 - f.u32(hClusterBits)
	sectors := min(uint64(max(1, len(s.data))-1)/512, 1<<(62-x)-1)
	desc := compressedFlag | sectors<<x | uint64(at)
	if s.desc != nil {
		desc = s.desc(f, desc)
	}
	f.put64(f.l2(0), desc)
	return f
}

func TestBadStreams(t *testing.T) {
	for _, s := range badStreams() {
		t.Run(s.seed+" "+s.name, func(t *testing.T) {
			f := s.image(t)
			img, err := qcow2.Open(f.file(), nil)
			must(t, err)
			s.read(t, img, f.cluster())
			small, err := qcow2.Open(f.file(), nil)
			must(t, err)
			s.read(t, small, 700)
		})
	}
}

// read reads n bytes of the cluster, twice.
func (s *badStream) read(t *testing.T, img *block.Image, n int64) {
	p := make([]byte, n)
	for range 2 {
		var err error
		begin := time.Now()
		heap := allocates(func() {
			within(t, "reading", func() { _, err = img.ReadAt(p, 0) })
		})
		if took := time.Since(begin); heap > 16<<20 || took > 5*time.Second {
			t.Errorf("reading %d bytes takes %d bytes of memory and %v", n, heap, took)
		}
		if s.text != "" {
			refused(t, "reading", err, block.ErrCorrupt, s.text)
		} else if want := bytes.Repeat([]byte{'x'}, int(n)); err != nil || !bytes.Equal(p, want) {
			t.Errorf("read %x: %v", p[:16], err)
		}
	}
}

// Writing to such a cluster and over it: a part needs what is there, the whole
// does not.
func TestWriteToBadStream(t *testing.T) {
	for _, s := range badStreams() {
		if s.seed == "2M" {
			continue
		}
		f := s.image(t)
		img, err := qcow2.Open(f.file(), &qcow2.OpenOptions{Writable: true})
		must(t, err)
		_, err = img.WriteAt([]byte("part"), 100)
		if s.text != "" {
			refused(t, s.name+", writing a part", err, block.ErrCorrupt, s.text)
		} else if err != nil {
			t.Errorf("%s, writing a part: %v", s.name, err)
		}
		_, err = img.WriteAt(seedData(0, f.cluster()), 0)
		if off := f.u64(f.l2(0)) & (1<<58 - 1); s.text != "" && off > uint64(len(f.b)) {
			refused(t, s.name+", writing all", err, block.ErrCorrupt, "lies beyond the end of the file")
			continue
		}
		p := make([]byte, f.cluster())
		if _, rerr := img.ReadAt(p, 0); err != nil || rerr != nil || !bytes.Equal(p, seedData(0, f.cluster())) {
			t.Errorf("%s: writing all: %v; reading that: %v", s.name, err, rerr)
		}
	}
}

func TestBadStreamsByQEMU(t *testing.T) {
	qemu.Need(t, "qemu-io")
	dir := t.TempDir()
	list := badStreams()
	var commands []string
	for i, s := range list {
		path := filepath.Join(dir, fmt.Sprint(i))
		must(t, os.WriteFile(path, s.image(t).b, 0o666))
		commands = append(commands, "open -r -o driver=qcow2 "+path, "read -P 0x78 0 512", "close")
	}
	out, _ := qemu.TryIO(commands...)
	var said []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "read") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	if len(said) != len(list) {
		t.Fatalf("%d answers to %d questions:\n%s", len(said), len(list), out)
	}
	for i, s := range list {
		if agree := (s.text == "") == !strings.Contains(said[i], "failed"); agree != (s.differs == "") {
			t.Errorf("%s: QEMU says %q, we say %q; given for the difference: %q", s.name, said[i], s.text, s.differs)
		}
	}
}
