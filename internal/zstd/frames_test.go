package zstd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/diskimg/diskimg/internal/qemu"
)

// size is that of the clusters that the frames made by hand are for.
const size = 64 << 10

const raw, rle, reserved = 0, 1, 3

func block(last bool, kind, size int, data ...byte) []byte {
	b := uint32(kind<<1 | size<<3)
	if last {
		b |= 1
	}
	return append([]byte{byte(b), byte(b >> 8), byte(b >> 16)}, data...)
}

// x is a block that is n times the letter x.
func x(last bool, n int) []byte { return block(last, rle, n, 'x') }

// descriptor bits of a frame header.
const (
	single   = 0x20
	unused   = 0x10
	resBit   = 0x08
	checksum = 0x04
	dictByte = 0x01
	fcsWord  = 0x80
)

// frame puts blocks behind a header with that descriptor and those fields.
func frame(descriptor byte, fields []byte, blocks ...[]byte) []byte {
	f := append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, fields...)
	return append(f, bytes.Join(blocks, nil)...)
}

// window is the field of a header that asks for 1<<log bytes.
func window(log byte) []byte { return []byte{(log - 10) << 3} }

func word(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

func skippable(n int) []byte {
	return slices.Concat([]byte{0x53, 0x2a, 0x4d, 0x18}, word(uint32(n)), make([]byte, n))
}

// w16 is the plainest header that asks for enough.
func w16(blocks ...[]byte) []byte { return frame(0, window(16), blocks...) }

// xxh is the checksum of a cluster of x, and of half of one.
var xxh, xxhHalf = sum(size), sum(size / 2)

// sum is the checksum of n times x, as the library writes it.
func sum(n int) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		panic(err)
	}
	f := w.EncodeAll(bytes.Repeat([]byte{'x'}, n), nil)
	return f[len(f)-4:]
}

var (
	whole = w16(x(false, size/2), x(true, size/2))
	half  = w16(x(true, size/2))
	empty = w16(block(true, raw, 0))
)

// frames are made by hand to be good or wrong in one way. QEMU takes those that
// have no error.
var frames = []struct {
	name string
	src  []byte
	err  error
}{
	{name: "one frame", src: whole},
	{name: "two frames", src: slices.Concat(half, half)},
	{name: "one frame and another", src: slices.Concat(whole, whole)},
	{name: "half a frame", src: half, err: errAny},
	{name: "a frame and a half", src: slices.Concat(half, whole), err: ErrLong},
	{name: "nothing", src: nil, err: ErrShort},
	{name: "no frame", src: []byte("this is no frame"), err: zstd.ErrMagicMismatch},
	{name: "a byte before", src: slices.Concat([]byte{0}, whole), err: zstd.ErrMagicMismatch},

	{name: "size known", src: frame(fcsWord, slices.Concat(window(16), word(size)), x(true, size))},
	{name: "size known, too large", src: frame(fcsWord, slices.Concat(window(16), word(size+1)), x(true, size)), err: ErrLong},
	{name: "size known, too small", src: frame(fcsWord, slices.Concat(window(16), word(size-1)), x(true, size)), err: errAny},
	{name: "single segment", src: frame(fcsWord|single, word(size), x(true, size))},
	{name: "single segment of 2 GiB", src: frame(fcsWord|single, word(1<<31), x(true, size)), err: ErrLong},
	{name: "unused bit", src: frame(unused, window(16), x(true, size))},
	{name: "reserved bit", src: frame(resBit, window(16), x(true, size)), err: errAny},
	{name: "dictionary 0", src: frame(dictByte, slices.Concat(window(16), []byte{0}), x(true, size))},
	{name: "dictionary 1", src: frame(dictByte, slices.Concat(window(16), []byte{1}), x(true, size)), err: zstd.ErrUnknownDictionary},
	{name: "checksum", src: frame(checksum, window(16), x(true, size), xxh)},
	{name: "checksum wrong", src: frame(checksum, window(16), x(true, size), xxhHalf), err: zstd.ErrCRCMismatch},
	{name: "checksum of the first frame wrong", src: frame(checksum, window(16), x(true, size/2), xxh, half), err: zstd.ErrCRCMismatch},
	{name: "checksum cut off", src: frame(checksum, window(16), x(true, size), xxh[:3]), err: errAny},

	{name: "window of 128 MiB", src: frame(0, window(27), x(true, size))},
	{name: "window of 256 MiB", src: frame(0, window(28), x(true, size)), err: ErrWindow},
	{name: "window of 2 GiB", src: frame(0, window(31), x(true, size)), err: ErrWindow},
	{name: "window of 2 TiB", src: frame(0, window(41), x(true, size)), err: ErrWindow},
	{name: "block larger than the window", src: frame(0, window(10), x(true, size)), err: errAny},

	{name: "block type 3", src: w16(x(false, size/2), block(true, reserved, 0)), err: ErrBlockType},
	{name: "block type 3 behind the last byte", src: w16(x(false, size), block(true, reserved, 0)), err: ErrBlockType},
	{name: "no last block", src: w16(x(false, size)), err: errAny},
	{name: "the last block empty", src: w16(x(false, size), block(true, raw, 0))},
	{name: "a block too many", src: w16(x(false, size), x(true, 1)), err: ErrLong},
	{name: "a block too long", src: w16(x(false, size-1), x(true, 2)), err: ErrLong},
	{name: "a block far too long", src: w16(x(false, size-1), x(true, size)), err: ErrLong},
	{name: "a bomb", src: w16(slices.Repeat(x(false, size), 1000)), err: errAny},
	{name: "a block cut off", src: w16(block(true, raw, size, bytes.Repeat([]byte{'x'}, size-4096)...)), err: ErrTruncated},
	{name: "a header cut off", src: whole[:5], err: errAny},

	{name: "empty frame", src: slices.Concat(empty, whole)},
	{name: "many empty frames", src: append(bytes.Repeat(empty, 1000), whole...)},
	{name: "only empty frames", src: bytes.Repeat(empty, 1000), err: errAny},
	{name: "many empty blocks", src: w16(bytes.Repeat(block(false, raw, 0), 1000), x(true, size))},
	{name: "skippable frame", src: slices.Concat(half, skippable(5), half)},
	{name: "empty skippable frames", src: slices.Concat(bytes.Repeat(skippable(0), 1000), whole)},
	{name: "a skippable frame longer than the input", src: append(skippable(0)[:4], word(0xffffffff)...), err: ErrTruncated},
}

// errAny stands for any error: what it is depends on what follows.
var errAny = errors.New("any error")

func TestFrames(t *testing.T) {
	want := bytes.Repeat([]byte{'x'}, size)
	for _, c := range frames {
		for _, after := range [][]byte{nil, make([]byte, 600), bytes.Repeat([]byte{0xff}, 600)} {
			if c.err != nil && c.err != errAny && after != nil {
				continue
			}
			dst := make([]byte, size)
			err := Decode(dst, slices.Concat(c.src, after))
			if !errors.Is(err, c.err) && (c.err != errAny || err == nil) {
				t.Errorf("%s: got %v, want %v", c.name, err, c.err)
			}
			if err == nil && !bytes.Equal(dst, want) {
				t.Errorf("%s: wrong bytes", c.name)
			}
		}
	}
}

// TestFramesQEMU shows that QEMU takes and refuses the same clusters.
func TestFramesQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img")
	want := bytes.Repeat([]byte{'x'}, size)
	for _, c := range frames {
		for _, after := range []byte{0, 0xff} {
			sectors := (len(c.src) + 1024) / 512
			src := append(bytes.Clone(c.src), bytes.Repeat([]byte{after}, sectors*512-len(c.src))...)
			err := Decode(make([]byte, size), src)
			got, refusal := qemu.Decompress(t, qemu.Zstd, 16, src)
			if (err == nil) != (refusal == nil) {
				t.Errorf("%s, then %#x: got %v, QEMU says %v", c.name, after, err, refusal)
			}
			if refusal == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: QEMU reads other bytes", c.name)
			}
		}
	}
}
