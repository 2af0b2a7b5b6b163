package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// An image that is amended through all widths of refcounts and both versions and
// back holds what it held, snapshots too, and checks clean by our word and QEMU's.
func TestAmendedBack(t *testing.T) {
	path := t.TempDir() + "/disk"
	qemu.Create(t, path, "qcow2", 4<<20, nil)
	qemu.IO(t, path, "qcow2", "write -P 1 0 1M", "write -z 1M 1M", "write -P 2 3M 64k")
	qemu.Img(t, "snapshot", "-c", "one", path)
	qemu.IO(t, path, "qcow2", "write -P 3 64k 64k", "write -z 3M 64k")
	steps := []qcow2.AmendOptions{{Version: 2}, {Version: 3}}
	for _, width := range []int{2, 4, 8, 16, 32, 64, 2, 64, 16} {
		steps = append(steps, qcow2.AmendOptions{RefcountBits: width})
	}
	steps = append(steps, qcow2.AmendOptions{Version: 2}, qcow2.AmendOptions{Version: 3, RefcountBits: 64})
	for i, o := range steps {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(qcow2.Amend(context.Background(), img, &o), checkNoCorruption(img, true))
			if err := errors.Join(err, img.Close()); err != nil {
				t.Fatal(err)
			}
			qemu.Check(t, path, "qcow2")
			qemu.IO(t, path, "qcow2", "read -P 1 0 64k", "read -P 3 64k 64k", "read -P 0 1M 1M", "read -P 0 3M 1M")
		})
	}
	qemu.Img(t, "snapshot", "-a", "one", path)
	qemu.IO(t, path, "qcow2", "read -P 1 0 1M", "read -P 0 1M 1M", "read -P 2 3M 64k")
}

// A downgrade changes the L2 table of a snapshot where it is. The same table was
// the active one before and may be in the cache: it must not come back from there
// when the snapshot is applied.
func TestDowngradeThenApply(t *testing.T) {
	path := t.TempDir() + "/disk"
	qemu.Create(t, path, "qcow2", 4<<20, nil)
	img := openFor(t, path, qcow2.OpenOptions{Writable: true})
	snapshots, _ := block.As[block.Snapshotter](img)
	write := func(off int64) error {
		_, err := img.WriteAt(bytes.Repeat([]byte{7}, 64<<10), off)
		return err
	}
	zeroed := img.WriteZeroes(0, 1<<20, 0)
	_, err := snapshots.CreateSnapshot(context.Background(), block.Snapshot{Name: "one"}, nil)
	err = errors.Join(zeroed, err, write(2<<20), qcow2.Amend(context.Background(), img, &qcow2.AmendOptions{Version: 2}),
		snapshots.ApplySnapshot(context.Background(), "one", nil), write(3<<20), img.Close())
	if err != nil {
		t.Fatal(err)
	}
	qemu.Check(t, path, "qcow2")
	qemu.IO(t, path, "qcow2", "read -P 0 0 3M", "read -P 7 3M 64k")
}

// Another width of refcounts fails half way: what was written behind the end of the
// file is not taken for space that reads as zero.
func TestFailedWidthLeavesNoData(t *testing.T) {
	const cluster = 4 << 10
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 4 << 20, ClusterSize: cluster}))
	full, writes := errors.New("full"), 0
	armed := false
	hook := blocktest.Hook(func(op blocktest.IO, off, n int64) error {
		if armed && op == blocktest.Write {
			if writes++; writes > 1 {
				return full
			}
		}
		return nil
	})
	img, err := qcow2.Open(hook.Wrap(f.Reopen()), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	must(t, errors.Join(writeTo(img)(bytes.Repeat([]byte{1}, 16*cluster), 0), img.Flush()))
	armed = true
	if err := qcow2.Amend(context.Background(), img, &qcow2.AmendOptions{RefcountBits: 64}); !errors.Is(err, full) {
		t.Fatalf("amend: %v", err)
	}
	armed = false
	for off := int64(16 * cluster); off < 64*cluster; off += cluster {
		must(t, writeTo(img)([]byte{1}, off))
		got := make([]byte, cluster)
		if _, err := img.ReadAt(got, off); err != nil || bytes.Count(got, []byte{0}) != cluster-1 {
			t.Fatalf("old data shows at %#x: %v", off, err)
		}
	}
	must(t, img.Close())
}
