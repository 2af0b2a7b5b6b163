package qcow2_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// An image is never larger than it was said to become: empty, with some data,
// with all of its disk written, and with its bitmaps.
func TestMeasure(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range []qcow2.CreateOptions{
		{Size: 0}, {Size: 1}, {Size: 3 << 20}, {Size: 9<<20 + 512, ClusterSize: 512}, {Size: 9 << 20, ClusterSize: 512, RefcountBits: 64},
		{Size: 5 << 20, ClusterSize: 4096, RefcountBits: 1}, {Size: 5 << 20, Version: 2}, {Size: 7 << 20, ExtendedL2: true, ClusterSize: 16 << 10},
		{Size: 20 << 20, ClusterSize: 2 << 20, ExtendedL2: true}, {Size: 3 << 20, Preallocation: block.PreallocMetadata}, {Size: 3 << 20, Preallocation: block.PreallocFull},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			cluster := max(o.ClusterSize, 512)
			if o.ClusterSize == 0 {
				cluster = 64 << 10
			}
			r := rand.New(rand.NewPCG(uint64(i), 1))
			f := storage.NewMemory()
			must(qcow2.Create(f, &o))
			var data int64
			fits := func(when string, most func(m block.Measurement) int64, bitmaps ...block.Bitmap) {
				t.Helper()
				m, err := qcow2.Measure(&o, data, bitmaps)
				must(err)
				// Clusters are left over where a refcount table had to grow.
				grown := 8 * (cluster & 512)
				if got, _ := f.Size(); got > most(m)+grown || m.Required > m.FullyAllocated {
					t.Errorf("%s, with %d bytes of data: the file has %d bytes, measured were %+v", when, data, got, m)
				}
			}
			write := func(all bool) {
				img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
				must(err)
				for off := int64(0); off < o.Size; off += cluster {
					if all || r.IntN(5) == 0 {
						n := min(cluster, img.Size()-off)
						_, err := img.WriteAt(make([]byte, n), off)
						must(err)
						data += cluster
					}
				}
				must(img.Close())
			}
			required := func(m block.Measurement) int64 { return m.Required }
			fits("empty", func(m block.Measurement) int64 {
				if o.Preallocation == block.PreallocMetadata {
					return m.FullyAllocated // a hole in the file, but in its length
				}
				return m.Required
			})
			if o.Preallocation != block.PreallocMetadata {
				write(false)
				fits("with data", required)
			}
			data = 0
			write(true)
			fits("full", required)
			if o.Version == 2 || o.Size < 2 {
				return
			}
			img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
			must(err)
			editor, _ := block.As[block.BitmapEditor](img)
			must(editor.EditBitmaps(context.Background(), []block.BitmapEdit{{Name: "one", Granularity: 512}, {Name: "another", Granularity: 64 << 10}}, nil))
			list, err := editor.Bitmaps()
			must(err)
			_, err = img.WriteAt(make([]byte, img.Size()), 0)
			must(err)
			must(img.Close())
			// Bitmaps are stored anew beside what they were, and counted too.
			fits("with bitmaps", func(m block.Measurement) int64 { return m.FullyAllocated + 3*m.Bitmaps }, list...)
		})
	}
}
