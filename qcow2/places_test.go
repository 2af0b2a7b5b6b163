package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
)

// What is written lies where QEMU puts it, tables too: after the same writes the
// files are the same behind the header.
func TestPlaces(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	seeds := 12
	if model.Long() {
		seeds = 600
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(uint64(seed), 0))
			cluster := []int64{512, 512, 1024, 4096, 65536}[r.IntN(5)]
			size := min(80<<20, cluster*[]int64{300, 2000, 6000}[r.IntN(3)])
			options := map[string]string{
				"cluster_size":  fmt.Sprint(cluster),
				"refcount_bits": []string{"1", "8", "16", "64"}[r.IntN(4)],
			}
			ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
			qemu.Create(t, ours, "qcow2", size, options)
			qemu.Create(t, theirs, "qcow2", size, options)
			for range 1 + r.IntN(5) {
				writes := randomWrites(r, size, cluster)
				writeBoth(t, ours, theirs, writes)
				samePlaces(t, ours, theirs, cluster)
				if t.Failed() {
					t.Fatalf("with %v, size %d, after %v", options, size, writes)
				}
			}
		})
	}
}

// A write of n bytes of a pattern at off, or of zeros that an entry can say.
type placedWrite struct {
	off, n  int64
	pattern byte
}

func randomWrites(r *rand.Rand, size, cluster int64) (list []placedWrite) {
	for range 1 + r.IntN(5) {
		n := cluster * []int64{1, 3, 40, 200, 1000}[r.IntN(5)]
		w := placedWrite{r.Int64N(size/512) * 512, n, byte(1 + r.IntN(255))}
		if r.IntN(4) == 0 {
			w.off, w.pattern = w.off/cluster*cluster, byte(r.IntN(2))
		}
		w.n = min(n, size-w.off)
		list = append(list, w)
	}
	return list
}

func writeBoth(t *testing.T, ours, theirs string, writes []placedWrite) {
	t.Helper()
	img := openFor(t, ours, qcow2.OpenOptions{Writable: true})
	var commands []string
	for _, w := range writes {
		var err error
		if w.pattern == 0 {
			commands = append(commands, fmt.Sprintf("write -z %d %d", w.off, w.n))
			err = img.WriteZeroes(w.off, w.n, 0)
		} else {
			commands = append(commands, fmt.Sprintf("write -P %d %d %d", w.pattern, w.off, w.n))
			_, err = img.WriteAt(bytes.Repeat([]byte{w.pattern}, int(w.n)), w.off)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	qemu.IO(t, theirs, "qcow2", commands...)
}

func samePlaces(t *testing.T, ours, theirs string, cluster int64) {
	t.Helper()
	a, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	// Where the file ends within its last cluster, the rest is zero.
	n := max(len(a), len(b))
	a, b = append(a, make([]byte, n-len(a))...), append(b, make([]byte, n-len(b))...)
	for at := cluster; at < int64(n); at += cluster {
		end := min(at+cluster, int64(n))
		if !bytes.Equal(a[at:end], b[at:end]) {
			t.Errorf("cluster %d differs", at/cluster)
			return
		}
	}
}
