package inflate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// decode runs Decode on a buffer with guards on both sides, and on input with
// nothing behind it, so that a byte written outside is seen and a byte read
// outside is a panic.
func decode(t testing.TB, d *Decoder, size int, src []byte) ([]byte, error) {
	t.Helper()
	const guard = 300
	all := bytes.Repeat([]byte{0xa5}, size+2*guard)
	dst := all[guard : guard+size]
	err := d.Decode(dst, bytes.Clone(src))
	for i, b := range all {
		if b != 0xa5 && (i < guard || i >= guard+size) {
			t.Fatalf("byte %d of a buffer of %d bytes was written", i-guard, size)
		}
	}
	return dst, err
}

func roundTrip(t *testing.T, d *Decoder, want, stream []byte) {
	t.Helper()
	got, err := decode(t, d, len(want), stream)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back different", len(want))
	}
}

// TestRoundTrip has all encoders at the smaller cluster sizes, and those that
// matter most at all of them.
func TestRoundTrip(t *testing.T) {
	var d Decoder
	for name, e := range encoders(t) {
		for content, fill := range contents {
			t.Run(name+"/"+content, func(t *testing.T) {
				most := 14
				if name == "window 4096" || name == "klauspost 1" {
					most = 21
				}
				for bits := 9; bits <= most; bits++ {
					p := fill(1 << bits)
					roundTrip(t, &d, p, encode(t, e, p))
				}
			})
		}
	}
}

// TestSizes has every size at which a tail can lie, with and without something
// behind the stream.
func TestSizes(t *testing.T) {
	var d Decoder
	for name, e := range encoders(t) {
		step := 101
		if name == "window 4096" {
			step = 1
		}
		for content, fill := range contents {
			p := fill(2000)
			for size := 0; size < len(p); size += step {
				stream := encode(t, e, p[:size])
				roundTrip(t, &d, p[:size], stream)
				roundTrip(t, &d, p[:size], append(stream, p[:size%600]...))
			}
			if t.Failed() {
				t.Fatal(name, content)
			}
		}
	}
}

// each calls f with streams of all kinds of content, and of all kinds of block.
func each(t *testing.T, size int, f func(content, stream []byte)) {
	all := encoders(t)
	for content, fill := range contents {
		for _, name := range []string{"window 4096", "std -2", "std 0"} {
			if name != "window 4096" && content != "text" {
				continue
			}
			p := fill(size)
			if f(p, encode(t, all[name], p)); t.Failed() {
				t.Fatal(name, content)
			}
		}
	}
}

// TestPrefix shows that decoding stops wherever the output is full, also in the
// middle of a match or a stored block.
func TestPrefix(t *testing.T) {
	var d Decoder
	each(t, 2000, func(p, stream []byte) {
		for size := range p {
			roundTrip(t, &d, p[:size], stream)
		}
	})
}

// TestTruncated cuts streams at every byte.
func TestTruncated(t *testing.T) {
	each(t, 1000, func(p, stream []byte) {
		for n := range stream {
			agree(t, len(p), stream[:n])
		}
	})
}

// TestBitFlips turns every single bit of streams around.
func TestBitFlips(t *testing.T) {
	each(t, 500, func(p, stream []byte) {
		for i := range len(stream) * 8 {
			stream[i/8] ^= 1 << (i % 8)
			agree(t, len(p), stream)
			stream[i/8] ^= 1 << (i % 8)
		}
	})
}

// agree decodes a stream in three ways. The reference must agree in all. The
// standard library must agree but for two things:
//   - it lets pass a code of code lengths that is one code of one bit, and a
//     literal code without an end of block, which zlib and so QEMU refuse;
//   - it wants at least as many bits for a symbol as the end of block has, and
//     so refuses a stream that was cut right behind its last short symbol.
func agree(t testing.TB, size int, stream []byte) {
	t.Helper()
	var d Decoder
	got, err := decode(t, &d, size, stream)
	want := make([]byte, size)
	wantErr := reference(want, stream)
	if !errors.Is(err, wantErr) {
		t.Errorf("%d bytes from %x: got %v, the reference says %v", size, stream, err, wantErr)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Errorf("%d bytes from %x: other bytes than the reference", size, stream)
	}
	stdErr := standard(want, stream)
	switch {
	case err == nil && stdErr == nil:
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes from %x: other bytes than the library", size, stream)
		}
	case err == nil && errors.Is(stdErr, io.ErrUnexpectedEOF):
	case errors.Is(err, ErrCodeLengths), errors.Is(err, ErrNoEnd):
	case (err == nil) != (stdErr == nil):
		t.Errorf("%d bytes from %x: got %v, the library says %v", size, stream, err, stdErr)
	}
}

// TestReuse shows that an error leaves nothing behind.
func TestReuse(t *testing.T) {
	var d Decoder
	e := encoders(t)["window 4096"]
	p := text(5000)
	good := encode(t, e, p)
	small := encode(t, e, []byte("fixed codes"))
	for n := range len(good) {
		if _, err := decode(t, &d, len(p), good[:n]); err == nil {
			t.Fatalf("%d of %d bytes were enough", n, len(good))
		}
		roundTrip(t, &d, []byte("fixed codes"), small)
		roundTrip(t, &d, p, good)
		if n > 300 {
			break
		}
	}
}

func TestAllocations(t *testing.T) {
	p := text(64 << 10)
	stream := encode(t, encoders(t)["window 4096"], p)
	dst := make([]byte, len(p))
	d := new(Decoder)
	if n := testing.AllocsPerRun(20, func() {
		if err := d.Decode(dst, stream); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a cluster", n)
	}
}

// TestEmptyBlocks shows that blocks that make no output cost little: here
// 512 KiB of those that cost most.
func TestEmptyBlocks(t *testing.T) {
	// Lengths 1 to 15 and zero runs have four bits each; 256 has a code of one
	// bit, others of 2 to 15 bits.
	short := lens(19, map[int]int{18: 4})
	var skewed []bitString
	for n := 1; n <= 15; n++ {
		short[n] = 4
		skewed = append(skewed, bitString(fmt.Sprintf("%04b", min(n, 14))))
	}
	skewed = append(skewed, "1111", num(138-11, 7), "1111", num(256-138-15-11, 7), "0000", "0000")
	single := []bitString{"1", num(127, 7), "1", num(256-138-11, 7), "0", "0"}
	for name, block := range map[string]bitString{
		"stored":    more + "00" + "00000" + num(0, 16) + num(0xffff, 16),
		"fixed":     more + fixedType + fixedEnd,
		"one code":  more + dynamic(257, 1, lens(19, map[int]int{1: 1, 18: 1}), single) + "0",
		"all sizes": more + dynamic(257, 1, short, skewed) + "0",
	} {
		stream := bitString(strings.Repeat(string(block), 8)).bytes()
		stream = bytes.Repeat(stream, 512<<10/len(stream))
		start := time.Now()
		var d Decoder
		if err := d.Decode(make([]byte, 1), stream); !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %v for %d bytes of input", name, took, len(stream))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range encoders(f) {
		for _, fill := range contents {
			f.Add(uint16(600), encode(f, e, fill(600)))
		}
	}
	for _, c := range streams {
		f.Add(uint16(c.size), c.stream)
	}
	f.Fuzz(func(t *testing.T, size uint16, stream []byte) {
		agree(t, int(size), stream)
	})
}
