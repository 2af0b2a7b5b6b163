package model

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg/internal/stamp"
)

// Op is one operation of a sequence. It is plain data, so that sequences can
// be printed, read back, cut and changed.
type Op struct {
	ID     uint32 // its number in the sequence, from 1; names its content
	Action string // the name of an Action
	Off    int64
	Len    int64
	Fill   Fill  // of writes
	Unmap  bool  // of write zeroes
	Size   int64 // of resize: the new size of the disk
}

// Fill is a kind of content.
type Fill string

// The kinds of content. What a write puts at an offset depends on the number
// of the write and the offset alone.
const (
	Stamp Fill = "stamp" // tells where it comes from; compresses
	Noise Fill = "noise" // tells where it comes from; does not compress
	Byte  Fill = "byte"  // one byte all over
	Zeros Fill = "zeros" // zeros that are written as data
	Gaps  Fill = "gaps"  // stamps with every other KiB zero
)

var fills = []Fill{Stamp, Noise, Byte, Zeros, Gaps}

const gap = 1024

// Content returns what the operation writes.
func (o Op) Content() []byte {
	p := make([]byte, o.Len)
	switch o.Fill {
	case Zeros:
	case Gaps:
		stamp.Fill(p, o.Off, o.ID)
		o.clearGaps(p)
	case Noise:
		stamp.Noise(p, o.Off, o.ID)
	case Byte:
		for i := range p {
			p[i] = byte(o.ID%255 + 1)
		}
	default:
		stamp.Fill(p, o.Off, o.ID)
	}
	return p
}

// clearGaps clears every other piece of the disk in p.
func (o Op) clearGaps(p []byte) {
	for i := int64(0); i < o.Len; {
		at := o.Off + i
		n := min(gap-at%gap, o.Len-i)
		if at/gap%2 == 1 {
			clear(p[i : i+n])
		}
		i += n
	}
}

// String writes the operation on one line, as ParseOp reads it.
func (o Op) String() string {
	s := fmt.Sprintf("%d %s off=%#x len=%#x", o.ID, o.Action, o.Off, o.Len)
	if o.Fill != "" {
		s += " fill=" + string(o.Fill)
	}
	if o.Unmap {
		s += " unmap=true"
	}
	if o.Size > 0 {
		s += fmt.Sprintf(" size=%#x", o.Size)
	}
	return s
}

// ParseOp reads what String has written.
func ParseOp(line string) (Op, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return Op{}, fmt.Errorf("operation %q: want a number and a name", line)
	}
	id, err := strconv.ParseUint(fields[0], 10, 24)
	if err != nil {
		return Op{}, fmt.Errorf("operation %q: %w", line, err)
	}
	o := Op{ID: uint32(id), Action: fields[1]}
	for _, f := range fields[2:] {
		if err := o.set(strings.Cut(f, "=")); err != nil {
			return Op{}, fmt.Errorf("operation %q: %w", line, err)
		}
	}
	return o, nil
}

func (o *Op) set(key, value string, _ bool) (err error) {
	switch key {
	case "off":
		o.Off, err = strconv.ParseInt(value, 0, 64)
	case "len":
		o.Len, err = strconv.ParseInt(value, 0, 64)
	case "size":
		o.Size, err = strconv.ParseInt(value, 0, 64)
	case "fill":
		o.Fill = Fill(value)
	case "unmap":
		o.Unmap, err = strconv.ParseBool(value)
	default:
		err = fmt.Errorf("no field %q", key)
	}
	return err
}
