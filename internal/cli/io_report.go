package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/size"
)

// This file is how qemu-io reads and writes numbers, and words failures.

// ioNumber reads a size, which must fit into 63 bits.
func ioNumber(s string) (int64, bool) {
	n, err := size.Parse(s)
	return int64(n), err == nil && n <= math.MaxInt64
}

// ioSize reads a size and says what is wrong with it.
func ioSize(s string) (int64, error) {
	n, err := size.Parse(s)
	switch {
	case errors.Is(err, size.ErrSyntax):
		return 0, saysf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s", s)
	case err != nil || n > math.MaxInt64:
		return 0, saysf("Parsing error: argument too large -- %s", s)
	}
	return int64(n), nil
}

// ioAmount writes a number of bytes with at most three decimals.
func ioAmount(n float64) string {
	unit := 0
	for n >= 1024 && unit < 6 {
		n, unit = n/1024, unit+1
	}
	if unit == 0 {
		return strings.TrimSuffix(fmt.Sprintf("%f", n), ".000000") + " bytes"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.3f", n), ".000") + " " + "KMGTPE"[unit-1:unit] + "iB"
}

// ioClock writes a time as hours, minutes and seconds.
func ioClock(d time.Duration) string {
	seconds := d.Seconds()
	minutes := int(d / time.Minute)
	return fmt.Sprintf("%d:%02d:%05.2f", minutes/60, minutes%60, seconds-float64(minutes)*60)
}

// ioTime writes how long a request took.
func ioTime(d time.Duration) string {
	if d >= time.Second {
		return ioClock(d)
	}
	return fmt.Sprintf("%05.2f sec", d.Seconds())
}

// report says what a transfer came to: how much of what was asked for, where,
// and how fast.
func (t *transfer) report(w io.Writer, verb string, took time.Duration) {
	if t.quiet {
		return
	}
	seconds := max(took.Seconds(), 1e-9)
	n, rate, ops := t.length, float64(t.length)/seconds, 1/seconds
	if t.statistics {
		fmt.Fprintf(w, "%d,1,%s,%.3f,%.3f\n", n, ioClock(took), rate, ops)
		return
	}
	fmt.Fprintf(w, "%s %d/%d bytes at offset %d\n", verb, n, n, t.off)
	fmt.Fprintf(w, "%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", ioAmount(float64(n)), ioTime(took), ioAmount(rate), ops)
}

// dumpHex writes bytes as hexadecimal numbers and as text. off is where they
// lie.
func dumpHex(w io.Writer, p []byte, off int64) {
	for len(p) > 0 {
		line := p[:min(16, len(p))]
		fmt.Fprintf(w, "%08x:  ", off)
		for _, c := range line {
			fmt.Fprintf(w, "%02x ", c)
		}
		fmt.Fprintf(w, " %s\n", strings.Map(letterOrDot, string(latin(line))))
		p, off = p[len(line):], off+int64(len(line))
	}
}

// latin makes a character of each byte.
func latin(p []byte) []rune {
	runes := make([]rune, len(p))
	for i, c := range p {
		runes[i] = rune(c)
	}
	return runes
}

func letterOrDot(r rune) rune {
	if r|0x20 >= 'a' && r|0x20 <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '.'
}

// ioCause words an error as the system's errors are worded: a program that
// sees only these numbers is what scripts know.
func ioCause(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, errGone):
		return errGone.Error()
	case errors.Is(err, block.ErrRefused):
		errno = syscall.EPERM
	case errors.As(err, &errno):
	case errors.Is(err, block.ErrNoSpace):
		errno = syscall.ENOSPC
	case errors.Is(err, block.ErrUnsupported):
		errno = syscall.ENOTSUP
	case errors.Is(err, block.ErrInvalid):
		errno = syscall.EINVAL
	case errors.Is(err, fs.ErrNotExist):
		errno = syscall.ENOENT
	default:
		errno = syscall.EIO
	}
	text := errno.Error()
	if text == fmt.Sprintf("errno %d", int(errno)) {
		return fmt.Sprintf("Unknown error %d", int(errno))
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
