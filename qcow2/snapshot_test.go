package qcow2_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// A snapshot that QEMU made is read without going there, by id and by name,
// also after the disk was written and grown by us.
func TestOpenSnapshot(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	qemu.Img(t, "create", "-q", "-f", "qcow2", path, "1M")
	qemu.IO(t, path, "qcow2", "write -P 1 0 1M")
	qemu.Img(t, "snapshot", "-c", "first", path)
	qemu.IO(t, path, "qcow2", "write -P 2 64k 128k")

	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.WriteAt(bytes.Repeat([]byte{3}, 70<<10), 500<<10); err != nil {
		t.Fatal(err)
	}
	resizer, _ := block.As[block.Resizer](img)
	if err := resizer.Resize(2<<20, block.ResizeOptions{}); err != nil {
		t.Fatal(err)
	}
	opener, _ := block.As[block.SnapshotOpener](img)
	for _, name := range []string{"1", "first"} {
		snapshot, err := opener.OpenSnapshot(name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<20)
		if _, err := snapshot.ReadAt(got, 0); err != nil || snapshot.Size() != 1<<20 {
			t.Fatalf("snapshot %q of %d bytes: %v", name, snapshot.Size(), err)
		}
		if !bytes.Equal(got, bytes.Repeat([]byte{1}, 1<<20)) {
			t.Errorf("snapshot %q does not hold what it was made of", name)
		}
		if err := snapshot.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := opener.OpenSnapshot("second"); err == nil {
		t.Error("a snapshot that is not there was opened")
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	qemu.Check(t, path, "qcow2")
}
