package vhd_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// Geometries that the algorithm of the specification comes to.
func TestGeometry(t *testing.T) {
	for sectors, want := range map[int64]vhd.Geometry{
		68: {Cylinders: 1, Heads: 4, Sectors: 17}, 204816: {Cylinders: 1004, Heads: 12, Sectors: 17},
		2097648: {Cylinders: 2081, Heads: 16, Sectors: 63}, 65535 * 16 * 63: {Cylinders: 16191, Heads: 16, Sectors: 255},
		65535 * 16 * 255: {Cylinders: 65535, Heads: 16, Sectors: 255}, 1 << 40: {Cylinders: 65535, Heads: 16, Sectors: 255},
	} {
		if got := vhd.GeometryFor(sectors); got != want {
			t.Errorf("%d sectors: %v, want %v", sectors, got, want)
		}
	}
}

// Sizes of new disks are those that qemu-img gives its own.
func TestSizesAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	const largest = 65535 * 16 * 255 * 512
	path := filepath.Join(t.TempDir(), "disk")
	for _, size := range []int64{0, 1, 512, 34816, 34817, 1 << 20, 1 << 30, 10 << 30, 65535 * 16 * 63 * 512, 1<<35 + 512,
		largest - 4081*512, largest - 4080*512, largest - 4079*512, largest - 512, largest, largest + 512, 2040 << 30} {
		for _, exact := range []string{"off", "on"} {
			qemu.Create(t, path, "vpc", size, map[string]string{"force_size": exact})
			f := storage.NewMemory()
			if err := vhd.Create(f, &vhd.CreateOptions{Size: size, RoundToGeometry: exact == "off"}); err != nil {
				t.Fatal(err)
			}
			d, err := vhd.Inspect(f)
			if want := qemu.Info(t, path, "vpc").VirtualSize; err != nil || d.VirtualSize != want {
				t.Errorf("%d bytes, force_size=%s: %d, %v; qemu-img has %d", size, exact, d.VirtualSize, err, want)
			}
		}
	}
}

// The size of a disk that is there comes from the geometry or from the footer,
// by who made it, as in QEMU.
func TestSizeByCreator(t *testing.T) {
	const named, byGeometry = 10 << 20, 34816
	for creator, want := range map[string]int64{
		"win ": named, "qem2": named, "d2v ": named, "tap\x00": named, "CTXS": named,
		"qemu": byGeometry, "vpc ": byGeometry, "vs  ": byGeometry, "abcd": byGeometry,
	} {
		f := storage.NewMemory()
		if err := vhd.Create(f, &vhd.CreateOptions{Size: named, Type: vhd.Fixed}); err != nil {
			t.Fatal(err)
		}
		inFooter(named, 28, []byte(creator)...)(t, f)
		inFooter(named, 56, 0, 1, 4, 17)(t, f)
		if d, err := vhd.Inspect(f); err != nil || d.VirtualSize != want {
			t.Errorf("%q: %d, %v, want %d", creator, d.VirtualSize, err, want)
		}
	}
}

// What is given makes the file, to the byte.
func TestReproducible(t *testing.T) {
	at, id := time.Unix(1e9, 0), vhd.UUID{1, 2, 3}
	var files [][]byte
	for range 2 {
		f := storage.NewMemory()
		if err := vhd.Create(f, &vhd.CreateOptions{Size: 1 << 20, Creator: "win ", UUID: &id, Time: &at}); err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		b := make([]byte, size)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
	}
	if !bytes.Equal(files[0], files[1]) || string(files[0][28:32]) != "win " || !bytes.Equal(files[0][68:84], id[:]) {
		t.Errorf("% x", files[0][:96])
	}
}

// chain makes a disk and a child of a child of it, and returns their paths.
func chain(t *testing.T) (base, middle, top string) {
	t.Helper()
	dir := t.TempDir()
	base, middle, top = filepath.Join(dir, "base"), filepath.Join(dir, "middle"), filepath.Join(dir, "top")
	f, err := diskimg.FindFormat("vpc")
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range []string{base, middle, top} {
		o := &diskimg.CreateOptions{Format: f.Name, Size: 6 << 20, Options: map[string]string{"force_size": "on"}}
		if i > 0 {
			below := filepath.Base([]string{base, middle}[i-1])
			o.Size, o.BackingFile, o.BackingFormat = 0, below, f.Name
		}
		if err := diskimg.Create(path, o); err != nil {
			t.Fatal(err)
		}
		img, err := diskimg.Open(path, &diskimg.OpenOptions{Format: f.Name, Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 1<<20), int64(i)<<20-int64(min(i, 1))*700); err != nil {
			t.Fatal(err)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return base, middle, top
}

// A parent is followed if it is the right one, and nothing is read without it.
func TestParent(t *testing.T) {
	base, middle, top := chain(t)
	open := func() error {
		img, err := diskimg.Open(top, &diskimg.OpenOptions{Format: "vpc"})
		if err == nil {
			err = img.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	change := func(path string, at int64, b ...byte) (undo func()) {
		f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		was := make([]byte, 512)
		if _, err := f.ReadAt(was, 0); err != nil {
			t.Fatal(err)
		}
		now := sum(append(append(bytes.Clone(was[:at]), b...), was[at+int64(len(b)):]...), 64)
		put := func(b []byte) {
			for _, off := range []int64{0, size - 512} {
				if _, err := f.WriteAt(b, off); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(now)
		return func() { put(was); f.Close() }
	}
	undo := change(middle, 68, 9, 9, 9)
	if err := open(); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), "is not the parent") {
		t.Errorf("another UUID: %v", err)
	}
	undo()
	undo = change(base, 24, 9, 9)
	must(t, os.Chtimes(base, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	if err := open(); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), "has been changed") {
		t.Errorf("another time: %v", err)
	}
	undo()
	f, err := storage.OpenFile(top, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := vhd.Open(f, &vhd.OpenOptions{Path: top}); !errors.Is(err, block.ErrRefused) {
		t.Errorf("without a policy: %v", err)
	}
}
