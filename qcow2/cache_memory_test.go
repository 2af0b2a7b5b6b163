package qcow2_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// What tables take up in memory: what the options allow, and not much more for
// keeping them in order.

// largeDisk is a disk with an L2 table for all of it; the tables are holes.
const (
	largeDisk   = 1 << 40
	largeTables = largeDisk >> 16 * 8 // bytes of L2 tables
)

func largeImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = qcow2.Create(f, &qcow2.CreateOptions{Size: largeDisk})
	const l1, first = 0x30000, 1 << 20
	table := make([]byte, 0, largeTables>>13)
	for off := int64(first); off < first+largeTables; off += 64 << 10 {
		table = binary.BigEndian.AppendUint64(table, uint64(off))
	}
	_, werr := f.WriteAt(table, l1)
	if err := errors.Join(err, werr, f.Truncate(first+largeTables), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestL2CacheMemory(t *testing.T) {
	path := largeImage(t)
	for _, c := range []struct {
		name       string
		o          qcow2.OpenOptions
		least, max int64 // KiB
	}{
		{"default", qcow2.OpenOptions{}, 32 << 10, 34 << 10},
		{"1 MiB", qcow2.OpenOptions{L2CacheSize: 1 << 20}, 1 << 10, 1200},
		{"1 MiB in whole tables", qcow2.OpenOptions{L2CacheSize: 1 << 20, L2CacheEntrySize: 64 << 10}, 1 << 10, 1200},
		{"4 MiB in sectors", qcow2.OpenOptions{L2CacheSize: 4 << 20, L2CacheEntrySize: 512}, 4 << 10, 6 << 10},
		{"cleaned", qcow2.OpenOptions{CacheCleanInterval: 1}, 0, 200},
		{"never cleaned", qcow2.OpenOptions{CacheCleanInterval: -1}, 32 << 10, 34 << 10},
		{"all", qcow2.OpenOptions{L2CacheSize: 1 << 30}, 64 << 10, 140 << 10},
	} {
		before := heap()
		img := openFor(t, path, c.o)
		r := rand.New(rand.NewPCG(1, 1))
		p := make([]byte, 512)
		for range 30_000 {
			if _, err := img.ReadAt(p, r.Int64N(largeDisk-512)); err != nil {
				t.Fatal(err)
			}
		}
		used := (heap() - before) >> 10
		t.Logf("%s: %d KiB", c.name, used)
		if used < c.least || used > c.max {
			t.Errorf("%s: tables take %d KiB, want %d to %d", c.name, used, c.least, c.max)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Refcounts of clusters all over a file: 1 MiB of them.
func TestRefcountCacheMemory(t *testing.T) {
	const size, cluster = 32 << 20, 512
	path := filepath.Join(t.TempDir(), "disk")
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &qcow2.CreateOptions{Size: size, ClusterSize: cluster, RefcountBits: 64, Preallocation: block.PreallocMetadata, NoSync: true}
	if err := errors.Join(qcow2.Create(f, o), f.Close()); err != nil {
		t.Fatal(err)
	}
	var used [2]int64
	for i, limit := range []int{1 << 20, 64 << 10} {
		before := heap()
		img := openFor(t, path, qcow2.OpenOptions{Writable: true, NoSync: true, L2CacheSize: 64 << 10, RefcountCacheSize: limit, CacheCleanInterval: time.Hour})
		r := rand.New(rand.NewPCG(1, 1))
		for range 20_000 {
			off := r.Int64N(size/cluster) * cluster
			if err := img.Discard(off, cluster); err != nil {
				t.Fatal(err)
			}
		}
		if err := img.Flush(); err != nil {
			t.Fatal(err)
		}
		used[i] = (heap() - before) >> 10
		t.Logf("%d KiB allowed: %d KiB", limit>>10, used[i])
		if err := errors.Join(checkNoCorruption(img, false), img.Close()); err != nil {
			t.Error(err)
		}
	}
	if less := used[0] - used[1]; less < 400 || used[1] > 600 {
		t.Errorf("with 1 MiB of refcounts %d KiB, with 64 KiB %d KiB", used[0], used[1])
	}
}
