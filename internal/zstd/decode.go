package zstd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Frames are measured before they are decoded, since the library fails on what
// follows them: the padding of a sector, or the next cluster.

// MaxWindow is the largest window that a frame may ask for, in bytes. It is what
// QEMU takes. No memory is set aside for it.
const MaxWindow = 128 << 20

// What can be wrong with frames, besides what the library finds in them. Decode
// wraps these with the place.
var (
	ErrTruncated = errors.New("the input ends in the middle of a frame")
	ErrShort     = errors.New("the frames end before the output is full")
	ErrLong      = errors.New("the frame does not end where the output is full")
	ErrWindow    = errors.New("the frame asks for a window of more than 128 MiB")
	ErrBlockType = errors.New("block type 3 does not exist")
)

// Decode fills dst from the frames at the start of src. The frame that makes
// dst full must end just there, with a checksum that holds if it has one. What
// follows it is not looked at. After an error the content of dst is
// unspecified. Time and memory are linear in the lengths of dst and src,
// whatever the frames ask for. It may be called concurrently, and does not
// allocate when there were as many calls at the same time before.
//
// This is what QEMU accepts, too.
func Decode(dst, src []byte) error {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	return d.decode(dst, src)
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

type decoder struct {
	zstd *zstd.Decoder // nil until first used
	buf  []byte
}

// slack is how much longer than its output the decoder's buffer is. With less
// it takes a path of two thirds of the speed, which costs more than the copy.
const slack = 64

func (d *decoder) init(size int) (err error) {
	if cap(d.buf) < size+slack {
		d.buf = make([]byte, 0, size+slack)
	}
	if d.zstd == nil {
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(MaxWindow))
	}
	return err
}

func (d *decoder) decode(dst, src []byte) error {
	if err := d.init(len(dst)); err != nil {
		return err
	}
	out := d.buf[: 0 : len(dst)+slack]
	for pos := 0; len(out) < len(dst); {
		n, err := d.frame(&out, len(dst), src[pos:])
		if err != nil {
			return fmt.Errorf("zstd frame at byte %d of %d, with %d of %d bytes decoded: %w",
				pos, len(src), len(out), len(dst), err)
		}
		pos += n
	}
	copy(dst, out)
	return nil
}

// frame appends what the frame at the start of src holds to out, which may
// become size bytes long. It returns the length of the frame.
func (d *decoder) frame(out *[]byte, size int, src []byte) (int, error) {
	var h zstd.Header
	if len(src) == 0 {
		return 0, ErrShort
	}
	if err := h.Decode(src); errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, ErrTruncated
	} else if err != nil {
		return 0, err
	}
	if h.Skippable {
		return skip(&h, src)
	}
	n, err := measure(&h, src)
	switch {
	case err != nil:
		return 0, err
	case h.WindowSize > MaxWindow:
		return 0, ErrWindow
	case h.HasFCS && h.FrameContentSize > uint64(size-len(*out)):
		return 0, ErrLong
	}
	whole, err := d.zstd.DecodeAll(src[:n], *out)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded) || err == nil && len(whole) > size:
		return 0, ErrLong
	case err != nil:
		return 0, err
	}
	*out = whole
	return n, nil
}

// skip returns the length of a frame without content.
func skip(h *zstd.Header, src []byte) (int, error) {
	n := int64(h.HeaderSize) + int64(h.SkippableSize)
	if n > int64(len(src)) {
		return 0, ErrTruncated
	}
	return int(n), nil
}

// measure returns the length of a frame from the headers of its blocks.
func measure(h *zstd.Header, src []byte) (int, error) {
	const rle, reserved = 1, 3
	for n, last := h.HeaderSize, false; ; {
		if last && h.HasCheckSum {
			n += 4
		}
		if n > len(src) {
			return 0, ErrTruncated
		}
		if last {
			return n, nil
		}
		if len(src)-n < 3 {
			return 0, ErrTruncated
		}
		b := uint32(binary.LittleEndian.Uint16(src[n:])) | uint32(src[n+2])<<16
		last = b&1 != 0
		size := int(b >> 3)
		switch b >> 1 & 3 {
		case rle:
			size = 1
		case reserved:
			return 0, ErrBlockType
		}
		n += 3 + size
	}
}
