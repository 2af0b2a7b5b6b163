package vhd_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// Hostile footers and headers are refused before memory is taken by what they
// say, or have their image opened in no more than a bound.
func TestHostileMemory(t *testing.T) {
	type spoil = func(*testing.T, *storage.Memory)
	all := func(list ...spoil) spoil {
		return func(t *testing.T, f *storage.Memory) {
			for _, s := range list {
				s(t, f)
			}
		}
	}
	disk := func(size uint64) spoil {
		b := binary.BigEndian.AppendUint64(nil, size)
		return all(inFooter(footerAt, 48, b...), inFooter(tailAt, 48, b...))
	}
	locator := func(length, offset uint64) spoil {
		b := append([]byte("W2ru"), 0, 0, 0, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(length))
		b = binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 0), offset)
		return all(inFooter(footerAt, 63, 4), inFooter(tailAt, 63, 4), inHeader(576, b...))
	}
	for _, c := range []struct {
		name          string
		spoil         spoil
		inspect, open error
		heap          int64 // what opening may take; 0 for the usual
	}{
		{"2^29 entries", inHeader(28, 0x1f, 0xff, 0xff, 0xff), nil, nil, 0},
		{"2^32 entries", inHeader(28, 0xff, 0xff, 0xff, 0xff), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"2^29 entries, and a disk for them", all(inHeader(28, 0x1f, 0xff, 0xff, 0xff), disk(2040<<30)), block.ErrUnsupported, block.ErrUnsupported, 0},
		{"a table of 16 MiB that is not there", all(inHeader(28, 0, 0x40, 0, 0), disk(16<<30)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a table of 16 MiB that is one hole", all(inHeader(28, 0, 0x40, 0, 0), inHeader(16, 0, 0, 0, 0, 1), disk(16<<30), longer), nil, nil, 64 << 20},
		{"blocks of 256 MiB", inHeader(32, 0x10, 0, 0, 0), nil, block.ErrCorrupt, 0},
		{"blocks of 2 GiB", inHeader(32, 0x80, 0, 0, 0), block.ErrUnsupported, block.ErrUnsupported, 0},
		{"a disk of 2^63 bytes", disk(1 << 63), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a header at 2^63", all(inFooter(footerAt, 16, 0x80), inFooter(tailAt, 16, 0x80)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a table at 2^63", inHeader(16, 0x80), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"nothing but zeros at the end", func(t *testing.T, f *storage.Memory) { longer(t, f); patched(1, 0, footerAt, 0, 'x')(t, f) }, block.ErrFormat, block.ErrFormat, 0},
		{"a parent's name of 4 GiB", locator(1<<32-1, 0), nil, block.ErrCorrupt, 0},
		{"a parent's name at 2^63", locator(100, 1<<63), nil, block.ErrCorrupt, 0},
		{"a parent's name in front of 2^64", locator(100, 1<<64-50), nil, block.ErrCorrupt, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sample(t)
			c.spoil(t, f)
			var err error
			cost := blocktest.CostOf(f, func(f block.File) { _, err = vhd.Inspect(f) })
			if !errors.Is(err, c.inspect) || cost.Reads > blocktest.InspectReads || cost.Heap > blocktest.InspectHeap {
				t.Errorf("inspecting: %v, want %v; it takes %+v", err, c.inspect, cost)
			}
			var img *block.Image
			cost = blocktest.CostOf(f.Reopen(), func(f block.File) { img, err = vhd.Open(f, nil) })
			if !errors.Is(err, c.open) || cost.Heap > max(c.heap, blocktest.OpenHeap) {
				t.Errorf("opening: %v, want %v; it takes %+v", err, c.open, cost)
			}
			if err == nil {
				img.Close()
			}
		})
	}
}

// longer has the file go on for 8 GiB of nothing.
func longer(t *testing.T, f *storage.Memory) {
	if err := f.Truncate(8 << 30); err != nil {
		t.Fatal(err)
	}
}
