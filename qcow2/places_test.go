package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/qcow2"
)

// What is written lies where QEMU puts it, tables too: after the same writes the
// files are the same behind the header.
func TestPlaces(t *testing.T) {
	eachSeed(t, 0, func(t *testing.T, r *rand.Rand) {
		cluster := []int64{512, 512, 1024, 4096, 65536}[r.IntN(5)]
		size := min(80<<20, cluster*[]int64{300, 2000, 6000}[r.IntN(3)])
		options := map[string]string{
			"cluster_size":  fmt.Sprint(cluster),
			"refcount_bits": []string{"1", "8", "16", "64"}[r.IntN(4)],
		}
		ours, theirs := twins(t, size, options)
		for range 1 + r.IntN(5) {
			writes := randomWrites(r, size, cluster)
			writeBoth(t, ours, theirs, writes)
			samePlaces(t, ours, theirs, cluster, false)
			if t.Failed() {
				t.Fatalf("with %v, size %d, after %v", options, size, writes)
			}
		}
	})
}

// Snapshots leave tables where they are, and put new ones where QEMU puts them.
func TestSnapshotPlaces(t *testing.T) {
	eachSeed(t, 1, func(t *testing.T, r *rand.Rand) {
		cluster := []int64{4096, 65536}[r.IntN(2)]
		size := min(40<<20, cluster*[]int64{300, 2000, 6000}[r.IntN(3)])
		options := []map[string]string{
			{"cluster_size": fmt.Sprint(cluster)},
			{"cluster_size": fmt.Sprint(cluster), "compat": "0.10"},
			{"cluster_size": fmt.Sprint(cluster), "refcount_bits": "64"},
		}[r.IntN(3)]
		ours, theirs := twins(t, size, options)
		var names, done []string
		for i := range 3 + r.IntN(6) {
			step := fmt.Sprint("write ", i)
			switch k := r.IntN(6); {
			case k == 0 || i == 1:
				names = append(names, fmt.Sprint("n", i))
				step = "create " + names[len(names)-1]
			case k == 1 && len(names) > 0:
				step = "apply " + names[r.IntN(len(names))]
			case k == 2 && len(names) > 0:
				at := r.IntN(len(names))
				step = "delete " + names[at]
				names = slices.Delete(names, at, at+1)
			default:
				for _, w := range randomWrites(r, size, cluster) {
					writeBoth(t, ours, theirs, []placedWrite{w})
				}
			}
			snapshotBoth(t, ours, theirs, step)
			done = append(done, step)
			samePlaces(t, ours, theirs, cluster, true)
			qemu.Check(t, ours, "qcow2")
			if t.Failed() {
				t.Fatalf("with %v, size %d, after %v", options, size, done)
			}
		}
	})
}

// eachSeed calls f for some seeds, in parallel; stream tells one test's from
// another's.
func eachSeed(t *testing.T, stream uint64, f func(t *testing.T, r *rand.Rand)) {
	qemu.Need(t, "qemu-img", "qemu-io")
	seeds := 12
	if model.Long() {
		seeds = 600
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f(t, rand.New(rand.NewPCG(uint64(seed), stream)))
		})
	}
}

// twins has QEMU make two images that are alike.
func twins(t *testing.T, size int64, options map[string]string) (ours, theirs string) {
	t.Helper()
	ours, theirs = filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	qemu.Create(t, ours, "qcow2", size, options)
	qemu.Create(t, theirs, "qcow2", size, options)
	return ours, theirs
}

// snapshotBoth does what the step says about snapshots, if it does.
func snapshotBoth(t *testing.T, ours, theirs, step string) {
	t.Helper()
	verb, name, _ := strings.Cut(step, " ")
	img := openFor(t, ours, qcow2.OpenOptions{Writable: true})
	maker, _ := block.As[block.Snapshotter](img)
	var err error
	switch verb {
	case "create":
		_, err = maker.CreateSnapshot(context.Background(), block.Snapshot{Name: name}, nil)
		qemu.Img(t, "snapshot", "-c", name, theirs)
	case "apply":
		err = maker.ApplySnapshot(context.Background(), name, nil)
		qemu.Img(t, "snapshot", "-a", name, theirs)
	case "delete":
		err = maker.DeleteSnapshot(context.Background(), name, nil)
		qemu.Img(t, "snapshot", "-d", name, theirs)
	}
	must(t, errors.Join(err, img.Close()))
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

func samePlaces(t *testing.T, ours, theirs string, cluster int64, snapshots bool) {
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
	skip := make(map[int64]bool)
	if snapshots {
		skip = snapshotClusters(a, cluster)
	}
	for at := cluster; at < int64(n); at += cluster {
		end := min(at+cluster, int64(n))
		if snapshots {
			clearCopied(a[at:end], b[at:end])
		}
		if !skip[at] && !bytes.Equal(a[at:end], b[at:end]) {
			t.Errorf("cluster %d differs", at/cluster)
			return
		}
	}
}

// clearCopied clears what may be COPIED flags: nobody asks for those that are in
// the tables of snapshots, and a check tells about the others.
func clearCopied(a, b []byte) {
	for i := 0; i < len(a); i += 8 {
		a[i], b[i] = a[i]&^0x80, b[i]&^0x80
	}
}

// snapshotClusters returns where QEMU and we write something else on purpose: the
// table of snapshots says when they were made. With snapshots, what is free may
// hold what such a table was.
func snapshotClusters(a []byte, cluster int64) map[int64]bool {
	be, skip := binary.BigEndian, make(map[int64]bool)
	skip[int64(be.Uint64(a[64:]))] = true
	counts := a[be.Uint64(a[be.Uint64(a[48:]):])&^511:] // in the first refcount block
	width := int64(2)
	if be.Uint32(a[4:]) > 2 {
		width = 1 << be.Uint32(a[96:]) / 8
	}
	for c := range min(cluster/width, int64(len(a))/cluster) {
		if zero.Is(counts[c*width:][:width]) {
			skip[c*cluster] = true
		}
	}
	return skip
}
