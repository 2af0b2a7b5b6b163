package blocktest

import (
	"bytes"
	"fmt"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
)

// disk is an image under test together with the content it must have.
type disk struct {
	*suite
	path string
	img  *block.Image // nil while it is closed
	want []byte
	id   uint32 // of the last write
}

func (d *disk) size() int64 { return int64(len(d.want)) }

// open opens the image. One that is open for reading only must leave its files
// alone.
func (d *disk) open(writable bool) {
	d.Helper()
	o := OpenOptions{Writable: writable}
	if !writable {
		o.Wrap = d.untouched().Wrap
	}
	img, err := d.format.Open(d.path, o)
	if err != nil {
		d.Fatalf("open, writable %t: %v", writable, err)
	}
	if img.Writable() != writable {
		d.Fatalf("opened with writable %t: Writable is %t", writable, img.Writable())
	}
	d.img = img
}

func (d *disk) untouched() Hook {
	return func(op IO, off, n int64) error {
		if op != Read && op != Sync {
			d.Errorf("%s of %d bytes at %#x in an image that is open for reading", op, n, off)
		}
		return nil
	}
}

// fill makes the content of the next write, different from all others.
func (d *disk) fill(off, n int64) []byte {
	d.id++
	p := make([]byte, n)
	stamp.Fill(p, off, d.id)
	return p
}

// write writes n new bytes at off.
func (d *disk) write(off, n int64) {
	d.Helper()
	p := d.fill(off, n)
	k, err := d.img.WriteAt(p, off)
	if err != nil || k != len(p) {
		d.Fatalf("write of %d bytes at %#x: %d, %v", n, off, k, err)
	}
	copy(d.want[off:], p)
}

func (d *disk) zero(off, n int64, flags block.ZeroFlags) {
	d.Helper()
	if err := d.img.WriteZeroes(off, n, flags); err != nil {
		d.Fatalf("write zeroes of %d bytes at %#x: %v", n, off, err)
	}
	clear(d.want[off : off+n])
}

// discard demands that each sector of the range keeps what it had or reads as
// zero, and all other sectors what they had. What they are then, they stay.
func (d *disk) discard(off, n int64) {
	d.Helper()
	if err := d.img.Discard(off, n); err != nil {
		d.Fatalf("discard of %d bytes at %#x: %v", n, off, err)
	}
	if err := settle(d.want[off:off+n], d.read(off, n), off); err != nil {
		d.Fatalf("after a discard of %d bytes at %#x: %v", n, off, err)
	}
	d.verify()
}

// settle copies got to want where each sector of it, at disk offset off, is
// zero or what want says.
func settle(want, got []byte, off int64) error {
	for len(want) > 0 {
		n := min(512-off%512, int64(len(want)))
		if !bytes.Equal(got[:n], want[:n]) && !zero.Is(got[:n]) {
			return fmt.Errorf("not zero and %s", stamp.Diff(got[:n], want[:n], off))
		}
		copy(want, got[:n])
		want, got, off = want[n:], got[n:], off+n
	}
	return nil
}

// writeCompressed writes n new bytes at off, compressed.
func (d *disk) writeCompressed(off, n int64) {
	d.Helper()
	p := d.fill(off, n)
	if err := d.img.WriteCompressed(p, off); err != nil {
		d.Fatalf("compressed write of %d bytes at %#x: %v", n, off, err)
	}
	copy(d.want[off:], p)
}

func (d *disk) read(off, n int64) []byte {
	d.Helper()
	p := make([]byte, n)
	for i := range p {
		p[i] = 0xee // a read must set every byte
	}
	k, err := d.img.ReadAt(p, off)
	if err != nil || int64(k) != n {
		d.Fatalf("read of %d bytes at %#x: %d, %v", n, off, k, err)
	}
	return p
}

// verify compares all content.
func (d *disk) verify() {
	d.Helper()
	d.verifyRange(0, d.size())
}

// verifyRange compares the content of the part of [off, end) that is on the
// disk.
func (d *disk) verifyRange(off, end int64) {
	d.Helper()
	off, end = max(0, off), min(end, d.size())
	if diff := stamp.Diff(d.read(off, end-off), d.want[off:end], off); diff != "" {
		d.Fatalf("read: %s", diff)
	}
}

func (d *disk) flush() {
	d.Helper()
	if err := d.img.Flush(); err != nil {
		d.Fatalf("flush: %v", err)
	}
}

// close closes the image and looks at what is left.
func (d *disk) close() {
	d.Helper()
	if err := d.img.Close(); err != nil {
		d.Fatalf("close: %v", err)
	}
	d.open(false)
	d.verify()
	d.verifyExtents()
	d.check(true)
	if err := d.img.Close(); err != nil {
		d.Fatalf("close after reading: %v", err)
	}
	d.img = nil
	if d.format.Check != nil {
		if err := d.format.Check(d.path); err != nil {
			d.Fatalf("the other check: %v", err)
		}
	}
}

func (d *disk) reopen() {
	d.Helper()
	d.close()
	d.open(true)
}

// check demands that the format's check finds nothing, but leaks if not clean.
func (d *disk) check(clean bool) {
	d.Helper()
	c, ok := block.As[block.Checker](d.img)
	if !ok {
		return
	}
	var findings []block.Finding
	r, err := c.Check(d.Context(), block.CheckOptions{Report: func(f block.Finding) { findings = append(findings, f) }})
	if err != nil {
		d.Fatalf("check: %v", err)
	}
	if r.Corruptions+r.Errors > 0 || clean && r.Leaks > 0 {
		d.Fatalf("check finds %d corruptions, %d leaks, %d errors: %+v", r.Corruptions, r.Leaks, r.Errors, findings)
	}
}
