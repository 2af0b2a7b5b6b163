package vhd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// sample is a dynamic disk with two blocks of 4 KiB: footer, header, BAT of
// one sector at 0x600, blocks at 0x800 and 0x1a00, footer at 0x2c00.
func sample(t *testing.T) *storage.Memory {
	t.Helper()
	f := storage.NewMemory()
	if err := vhd.Create(f, &vhd.CreateOptions{Size: 64 << 10, BlockSize: 4 << 10}); err != nil {
		t.Fatal(err)
	}
	img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 8 << 10} {
		if _, err := img.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if size, _ := f.Size(); size != 0x2e00 {
		t.Fatalf("the sample has %#x bytes", size)
	}
	return f
}

const (
	footerAt, headerAt, tableAt, tailAt = 0, 0x200, 0x600, 0x2c00
)

// sum makes the checksum of a footer or header in b right.
func sum(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], 0)
	var s uint32
	for _, c := range b {
		s += uint32(c)
	}
	binary.BigEndian.PutUint32(b[at:], ^s)
	return b
}

// patched changes bytes of the structure at off, n long, with its checksum.
func patched(n int64, checksum int, off int64, at int, value ...byte) func(*testing.T, *storage.Memory) {
	return func(t *testing.T, f *storage.Memory) {
		b := make([]byte, n)
		if err := block.ReadFull(f, b, off); err != nil {
			t.Fatal(err)
		}
		copy(b[at:], value)
		if checksum > 0 {
			sum(b, checksum)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
}

func inFooter(off int64, at int, value ...byte) func(*testing.T, *storage.Memory) {
	return patched(512, 64, off, at, value...)
}

func inHeader(at int, value ...byte) func(*testing.T, *storage.Memory) {
	return patched(1024, 36, headerAt, at, value...)
}

func entry(i int64, sector uint32) func(*testing.T, *storage.Memory) {
	return patched(4, 0, tableAt+4*i, 0, binary.BigEndian.AppendUint32(nil, sector)...)
}

func cut(size int64) func(*testing.T, *storage.Memory) {
	return func(t *testing.T, f *storage.Memory) {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
}

// Broken images: whether they can be read and written, what a check finds and
// what a repair leaves.
func TestHostile(t *testing.T) {
	for _, c := range []struct {
		name               string
		spoil              func(*testing.T, *storage.Memory)
		read, write        error // nil: opens
		corruptions, leaks int64 // -1: can't be opened to be checked
		left               int64 // corruptions after a repair
	}{
		{"block size 0", inHeader(32, 0, 0, 0, 0), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"block size 3", inHeader(32, 0, 0, 0, 3), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"block size 2 GiB", inHeader(32, 0x80, 0, 0, 0), block.ErrUnsupported, block.ErrUnsupported, -1, 0, 0},
		{"many entries", inHeader(28, 0x1f, 0xff, 0xff, 0xff), nil, block.ErrCorrupt, 3, 0, 3},
		{"more entries than any file has", inHeader(28, 0x20, 0, 0, 0), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"few entries", inHeader(28, 0, 0, 0, 15), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"table at 2^63", inHeader(16, 0x80), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"table within a sector", inHeader(23, 1), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"header checksum", patched(1024, 0, headerAt, 36, 1, 2), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"header cookie", inHeader(0, 'x'), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"header version", inHeader(24, 0, 2), block.ErrUnsupported, block.ErrUnsupported, -1, 0, 0},
		{"disk type 5", inFooter(footerAt, 63, 5), block.ErrUnsupported, block.ErrCorrupt, -1, 0, 0},
		{"too large a disk", inFooter(footerAt, 48, 1), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"ends as a fixed disk", inFooter(tailAt, 63, 2), block.ErrCorrupt, block.ErrCorrupt, -1, 0, 0},
		{"copy's checksum", patched(512, 0, footerAt, 64, 1, 2), block.ErrCorrupt, block.ErrCorrupt, 1, 0, 0},
		{"footer's checksum", patched(512, 0, tailAt, 64, 1, 2), nil, block.ErrCorrupt, 1, 0, 0},
		{"footers differ", inFooter(tailAt, 68, 1, 2, 3), nil, block.ErrCorrupt, 1, 0, 0},
		{"no footer", cut(tailAt), nil, nil, 0, 1, 0},
		{"two entries, one block", entry(1, 4), nil, block.ErrCorrupt, 1, 0, 1},
		{"two entries, overlapping", entry(1, 5), nil, block.ErrCorrupt, 2, 0, 2},
		{"entry into the header", entry(1, 1), nil, block.ErrCorrupt, 3, 0, 3},
		{"entry to the footer", entry(1, tailAt/512), block.ErrCorrupt, block.ErrCorrupt, 1, 0, 1},
		{"entry behind the end", entry(1, 1<<20), block.ErrCorrupt, block.ErrCorrupt, 1, 0, 1},
		{"cut short", cut(tailAt - 512), block.ErrCorrupt, block.ErrCorrupt, 1, 1, 1},
		// A power cut while a block is made leaves that, so it must not be refused.
		{"a footer in the middle", patched(0x1200, 0, tailAt+512, 0, bytes.Repeat([]byte{7}, 0x1200)...), nil, nil, 0, 2, 0},
		{"a block that nothing names", entry(2, ^uint32(0)), nil, nil, 0, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sample(t)
			c.spoil(t, f)
			opens(t, f, &vhd.OpenOptions{}, c.read)
			opens(t, f, &vhd.OpenOptions{Writable: true}, c.write)
			if c.corruptions < 0 {
				opens(t, f, &vhd.OpenOptions{Writable: true, Repair: true}, c.read)
				return
			}
			repairs(t, f, c.corruptions, c.leaks, c.left)
		})
	}
}

func opens(t *testing.T, f *storage.Memory, o *vhd.OpenOptions, want error) {
	t.Helper()
	img, err := vhd.Open(f.Reopen(), o)
	if (err == nil) != (want == nil) || !errors.Is(err, want) {
		t.Errorf("open %+v: %v, want %v", *o, err, want)
	}
	if err == nil && !o.Writable {
		img.Close()
	}
}

// repairs checks, mends, and checks again.
func repairs(t *testing.T, f *storage.Memory, corruptions, leaks, left int64) {
	t.Helper()
	img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true, Repair: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	k, _ := block.As[block.Checker](img)
	var found []string
	r, err := k.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true, Report: func(f block.Finding) { found = append(found, f.Text) }})
	if err != nil || r.Corruptions != corruptions || r.Leaks != leaks {
		t.Errorf("%d corruptions, %d leaks, %v, want %d and %d: %q", r.Corruptions, r.Leaks, err, corruptions, leaks, found)
	}
	r, err = k.Check(context.Background(), block.CheckOptions{})
	if err != nil || r.Corruptions != left || left == 0 && r.Leaks != 0 {
		t.Errorf("after the repair: %d corruptions, %d leaks, %v, want %d", r.Corruptions, r.Leaks, err, left)
	}
}
