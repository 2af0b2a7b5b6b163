package qcow2_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// A check on all cores finds what one core does, and tells of it in the same
// order, whatever is wrong and in however many of the tables.
func TestCheckOnAllCores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := storage.CreateFile(path, nil)
	must(t, err)
	const size, cluster = 32 << 30, 64 << 10
	must(t, qcow2.Create(f, &qcow2.CreateOptions{Size: size, Preallocation: block.PreallocMetadata, NoSync: true}))
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true, NoSync: true})
	must(t, err)
	maker, _ := block.As[block.Snapshotter](img)
	_, err = maker.CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil)
	must(t, err)
	for off := int64(0); off < size; off += 3 << 30 { // some tables are not shared
		_, err = img.WriteAt([]byte{1}, off)
		must(t, err)
	}
	must(t, img.Close())
	sameOnAllCores(t, path, false)

	r := rand.New(rand.NewPCG(1, 1))
	f, err = storage.OpenFile(path, &storage.FileOptions{Writable: true})
	must(t, err)
	defer f.Close()
	for range 4 {
		for range 20 {
			at := tableOf(t, f, r.Int64N(size)) + 8*r.Int64N(cluster/8)
			var entry [8]byte
			must(t, block.ReadFull(f, entry[:], at))
			e := binary.BigEndian.Uint64(entry[:])
			e = []uint64{e ^ 1<<63, e ^ 512, 0, e | 1<<60, e + cluster, 1<<62 | e, e | 1<<50}[r.IntN(7)]
			_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, e), at)
			must(t, err)
		}
		sameOnAllCores(t, path, true)
	}
}

// tableOf returns where the L2 table for an offset of the disk is.
func tableOf(t *testing.T, f block.File, off int64) int64 {
	var b [8]byte
	must(t, block.ReadFull(f, b[:], 40))
	l1 := int64(binary.BigEndian.Uint64(b[:]))
	must(t, block.ReadFull(f, b[:], l1+off>>29*8))
	return int64(binary.BigEndian.Uint64(b[:]) & 0x00fffffffffffe00)
}

// sameOnAllCores checks an image on one core and on several. It says whether
// something is wrong.
func sameOnAllCores(t *testing.T, path string, wrong bool) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var results []block.CheckResult
	var texts [][]string
	for _, cores := range []int{1, 4} {
		runtime.GOMAXPROCS(cores)
		img := openPath(t, path, false)
		c, _ := block.As[block.Checker](img)
		var found []string
		last := int64(0)
		res, err := c.Check(context.Background(), block.CheckOptions{
			Report: func(f block.Finding) { found = append(found, f.Text) },
			Progress: func(done, total int64) {
				if done < last || done > total {
					t.Errorf("progress %d after %d, of %d", done, last, total)
				}
				last = done
			},
		})
		must(t, errors.Join(err, img.Close()))
		results, texts = append(results, res), append(texts, found)
	}
	if wrong != (len(texts[0]) > 0) || results[0] != results[1] || !slices.Equal(texts[0], texts[1]) {
		t.Errorf("on one core %+v and %d findings, on several %+v and %d", results[0], len(texts[0]), results[1], len(texts[1]))
	}
}
