package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// The marks in the header that say in which state an image was left: what they
// ask of who opens the image for writing.

func openPath(t *testing.T, path string, writable bool) *block.Image {
	t.Helper()
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Path: path, Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// An image with lazy refcounts, as QEMU leaves it when it is killed: it can be
// read as it is, and is put right before it is written.
func TestDirtyImageIsRepaired(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	qemu.Create(t, path, "qcow2", 8<<20, map[string]string{"lazy_refcounts": "on"})
	_, err := qemu.TryIO(qemu.Open(path, "qcow2"), "write -q -P 7 0 1M", "flush", "abort")
	if err == nil || !qemu.Info(t, path, "qcow2").Dirty {
		t.Fatalf("QEMU left the image clean, error %v", err)
	}
	want := bytes.Repeat([]byte{7}, 1<<20)
	for _, writable := range []bool{false, true} {
		img, got := openPath(t, path, writable), make([]byte, 1<<20)
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("writable %v: what was flushed does not read back, error %v", writable, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		if dirty := qemu.Info(t, path, "qcow2").Dirty; dirty == writable {
			t.Errorf("writable %v: dirty is %v afterwards", writable, dirty)
		}
	}
	qemu.Check(t, path, "qcow2")
}

// Who writes an image clears the bits of features that he does not keep up, and
// no others; who only reads it changes nothing.
func TestUnknownAutoclearBits(t *testing.T) {
	const at, unknown = 88, 1<<63 | 1<<40
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, unknown), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for writable, want := range map[bool]uint64{false: unknown, true: 0} {
		copied := path + ".copy"
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := openPath(t, copied, writable).Close(); err != nil {
			t.Fatal(err)
		}
		if b, err = os.ReadFile(copied); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint64(b[at:]); got != want {
			t.Errorf("writable %v: autoclear bits %#x, want %#x", writable, got, want)
		}
	}
}
