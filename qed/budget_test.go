package qed

import (
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
)

// A hostile header is refused before memory is taken by what it says, or has
// its image opened in no more than a bound.
func TestHostileMemory(t *testing.T) {
	field := func(off int64, value []byte) func(block.File) {
		return func(f block.File) { put(t, f, off, value) }
	}
	fields := func(list ...func(block.File)) func(block.File) {
		return func(f block.File) {
			for _, set := range list {
				set(f)
			}
		}
	}
	tables := func(clusterSize, clusters uint32) func(block.File) {
		return fields(field(4, le32(clusterSize)), field(8, le32(clusters)), field(atSize, le64(0)))
	}
	backing := func(off, n uint32) func(block.File) {
		return fields(field(atFeatures, le64(featureBacking)), field(56, append(le32(off), le32(n)...)))
	}
	for _, c := range []struct {
		name    string
		set     func(block.File)
		inspect error // nil: is described
		open    error
		heap    int64 // what opening may take; 0 for the usual
	}{
		{"clusters of 64 MiB, tables of 16", tables(1<<26, 16), block.ErrUnsupported, block.ErrUnsupported, 0},
		{"clusters of 64 MiB, tables of 1", tables(1<<26, 1), block.ErrUnsupported, block.ErrUnsupported, 0},
		{"tables of 16 MiB that are not there", tables(1<<20, 16), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"tables of 16 MiB that are one hole", fields(tables(1<<20, 16), field(40, le64(1<<20)), field(1<<30, []byte{1})), nil, nil, 40 << 20},
		{"a header of 4 GiB", field(12, le32(1<<20)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a header of almost 4 GiB", field(12, le32(1<<20-1)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a backing name of 4 GiB", backing(64, 1<<32-1), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a backing name at 4 GiB", backing(1<<32-1, 1000), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a backing name behind the end", fields(field(12, le32(1<<20-1)), backing(1<<31, 1000)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"a disk of 2^64 bytes", field(atSize, le64(1<<64-512)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"an L1 table at 2^63", field(40, le64(1<<63)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"an L1 table at the end", field(40, le64(1<<63-4096)), block.ErrCorrupt, block.ErrCorrupt, 0},
		{"an L2 table far away", field(4096, le64(1<<62)), nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := made(t, CreateOptions{})
			c.set(f)
			var err error
			cost := blocktest.CostOf(f, func(f block.File) { _, err = Inspect(f) })
			if !errors.Is(err, c.inspect) || cost.Reads > blocktest.InspectReads || cost.Heap > blocktest.InspectHeap {
				t.Errorf("inspecting: %v, want %v; it takes %+v", err, c.inspect, cost)
			}
			limit := max(c.heap, blocktest.OpenHeap)
			for _, writable := range []bool{false, true} {
				var img *block.Image
				cost = blocktest.CostOf(f.Reopen(), func(f block.File) { img, err = Open(f, &OpenOptions{Writable: writable}) })
				if !errors.Is(err, c.open) || cost.Heap > limit {
					t.Errorf("opening, writable %v: %v, want %v; it takes %+v", writable, err, c.open, cost)
				}
				if err == nil {
					img.Close()
				}
			}
		})
	}
}
