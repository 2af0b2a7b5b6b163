// Package inflate decodes raw deflate streams (RFC 1951) from one buffer into
// another. It is made for compressed clusters, where the size of the output is
// known and the input may be followed by anything: padding to a sector, or the
// next cluster. It does not allocate, never touches a byte outside the two
// buffers, and takes time linear in their lengths.
package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What can be wrong with a stream. Decode wraps these with the place.
var (
	ErrTruncated   = errors.New("the input ends in the middle of the stream")
	ErrShort       = errors.New("the stream ends before the output is full")
	ErrBlockType   = errors.New("block type 3 does not exist")
	ErrStored      = errors.New("the length of a stored block does not match its complement")
	ErrCounts      = errors.New("more than 286 literal/length or 30 distance codes")
	ErrCodeLengths = errors.New("the code of the code lengths is over-subscribed or incomplete")
	ErrRepeat      = errors.New("a code length is repeated before the first or beyond the last")
	ErrNoEnd       = errors.New("the literal/length code has no end of block")
	ErrLiterals    = errors.New("the literal/length code is over-subscribed or incomplete")
	ErrDistances   = errors.New("the distance code is over-subscribed or incomplete")
	ErrSymbol      = errors.New("a literal/length code that stands for nothing")
	ErrDistance    = errors.New("a distance code that stands for nothing")
	ErrTooFar      = errors.New("a distance that reaches before the start of the output")
)

// Decoder holds the tables of one decoding. The zero value is ready, and may
// be used again and again, by one goroutine at a time.
type Decoder struct {
	reader
	dst   []byte
	out   int // bytes of dst that are done
	final bool

	lit   litTable // of the current block
	dist  distTable
	fixed bool // they are those of the fixed codes
	lens  [maxLitCodes + maxDistCodes]uint8
}

// Decode fills dst from the raw deflate stream at the start of src. It stops
// as soon as dst is full: what the stream goes on with is not looked at, and
// neither is what follows it. A stream that ends before, or is not valid up to
// there, is an error, and the content of dst is then unspecified. Distances up
// to 32768 are taken.
//
// QEMU accepts a cluster by almost the same rule. It also cuts off surplus
// output, but first looks for the next symbol that makes some, and refuses the
// cluster if it meets an invalid one on the way.
func (d *Decoder) Decode(dst, src []byte) error {
	d.reader = reader{src: src}
	d.dst, d.out, d.final = dst, 0, false
	err := d.blocks()
	if err != nil {
		err = fmt.Errorf("deflate stream: at byte %d of %d, with %d of %d bytes decoded: %w",
			d.pos-int(d.n/8), len(src), d.out, len(dst), err)
	}
	d.src, d.dst = nil, nil
	return err
}

func (d *Decoder) blocks() error {
	for d.out < len(d.dst) {
		if d.final {
			return ErrShort
		}
		if err := d.block(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) block() error {
	d.fill()
	header, ok := d.take(3)
	if !ok {
		return ErrTruncated
	}
	d.final = header&1 != 0
	switch header >> 1 {
	case 0:
		return d.stored()
	case 1:
		if !d.fixed {
			fixed := fixedTables()
			d.lit, d.dist, d.fixed = fixed.lit, fixed.dist, true
		}
		return d.symbols()
	case 2:
		d.fixed = false
		if err := d.readTables(); err != nil {
			return err
		}
		return d.symbols()
	}
	return ErrBlockType
}

// stored copies a stored block, or as much of it as dst has room for.
func (d *Decoder) stored() error {
	d.align()
	p := d.src[d.pos:]
	if len(p) < 4 {
		return ErrTruncated
	}
	n := int(binary.LittleEndian.Uint16(p))
	if n != int(^binary.LittleEndian.Uint16(p[2:])) {
		return ErrStored
	}
	p = p[4:]
	n = min(n, len(d.dst)-d.out)
	if len(p) < n {
		return ErrTruncated
	}
	copy(d.dst[d.out:], p[:n])
	d.pos += 4 + n
	d.out += n
	return nil
}

// symbols decodes literals and matches up to the end of the block or of dst.
func (d *Decoder) symbols() error {
	ended, err := d.fast()
	for !ended && err == nil && d.out < len(d.dst) {
		ended, err = d.symbol()
	}
	return err
}

// symbol decodes one literal, match or end of block with all checks.
func (d *Decoder) symbol() (ended bool, err error) {
	d.fill()
	e := d.lit.find(d.bits)
	saved := d.bits
	switch {
	case !d.drop(e.size()):
		return false, ErrTruncated
	case e&literal != 0:
		d.dst[d.out] = byte(e >> 16)
		d.out++
		return false, nil
	case e&kind == endOfBlock:
		return true, nil
	case e&special != 0:
		return false, ErrSymbol
	}
	length := e.value(saved)
	d.fill()
	e = d.dist.find(d.bits)
	saved = d.bits
	switch {
	case !d.drop(e.size()):
		return false, ErrTruncated
	case e&special != 0:
		return false, ErrDistance
	}
	distance := e.value(saved)
	if distance > d.out {
		return false, ErrTooFar
	}
	d.repeat(distance, min(length, len(d.dst)-d.out))
	return false, nil
}

// repeat appends length bytes that lie distance bytes back.
func (d *Decoder) repeat(distance, length int) {
	end := d.out + length
	for d.out < end {
		d.out += copy(d.dst[d.out:end], d.dst[d.out-distance:d.out])
	}
}
