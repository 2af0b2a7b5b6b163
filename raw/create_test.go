package raw_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// What is created takes the space and the place of what qemu-img creates.
func TestCreateAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	dir := t.TempDir()
	for _, mode := range []block.Preallocation{block.PreallocOff, block.PreallocFalloc, block.PreallocFull} {
		for _, size := range []int64{0, 512, 1000, 1025, 4096, 5000, 1 << 20, 5<<20 + 512} {
			ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			qemu.Create(t, theirs, "raw", size, map[string]string{"preallocation": mode.String()})
			f, err := storage.CreateFile(ours, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Nothing of what was there stays.
			if _, err := f.WriteAt(pattern(3<<20), 0); err != nil {
				t.Fatal(err)
			}
			img, err := raw.Create(f, size, &raw.CreateOptions{Preallocation: mode})
			if err != nil {
				t.Fatal(err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			a, b := look(t, ours), look(t, theirs)
			if a != b {
				t.Errorf("%s, %d bytes: %+v, qemu-img makes %+v", mode, size, a, b)
			}
			qemu.Compare(t, ours, "raw", theirs, "raw")
		}
	}
}

type looks struct{ size, allocated, dataEnd int64 }

func look(t *testing.T, path string) looks {
	t.Helper()
	f, err := storage.OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	allocated, err2 := f.AllocatedSize()
	_, end, err3 := f.NextData(0)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	return looks{size, allocated, end}
}

func TestCreateRefused(t *testing.T) {
	for _, c := range []struct {
		size int64
		mode block.Preallocation
		want error
		text string
	}{
		{-1, 0, block.ErrInvalid, "size of -1 bytes"},
		{math.MaxInt64, 0, block.ErrInvalid, "size of 9223372036854775807 bytes"},
		{1 << 20, block.PreallocMetadata, block.ErrUnsupported, "Unsupported preallocation mode: metadata"},
	} {
		m := memory(t, []byte("precious"))
		_, err := raw.Create(m, c.size, &raw.CreateOptions{Path: "disk", Preallocation: c.mode})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%d, %s: error %v", c.size, c.mode, err)
		}
		if size, _ := m.Size(); size != 8 {
			t.Errorf("%d, %s: refused, and the file is now %d bytes long", c.size, c.mode, size)
		}
	}
}

// Files without the abilities, and those where they are of no use.
func TestPreallocateFallsBack(t *testing.T) {
	for name, wrap := range map[string]func(*storage.Memory) block.File{
		"none": func(m *storage.Memory) block.File { return plain{m} },
		"no":   func(m *storage.Memory) block.File { return reserver{m, block.ErrUnsupported} },
	} {
		m := storage.NewMemory()
		img, err := raw.Create(wrap(m), 3<<20+512, &raw.CreateOptions{Preallocation: block.PreallocFalloc})
		if err != nil {
			t.Fatal(name, err)
		}
		if n, _ := m.AllocatedSize(); n < img.Size() {
			t.Errorf("%s: %d bytes allocated, want %d", name, n, img.Size())
		}
	}
}

// A preallocation that fails leaves nothing behind.
func TestPreallocateFails(t *testing.T) {
	full := errors.New("full")
	for name, wrap := range map[string]func(*storage.Memory) block.File{
		"reserve": func(m *storage.Memory) block.File { return reserver{m, full} },
		"write":   func(m *storage.Memory) block.File { return &fullAfter{m, 2, full} },
	} {
		m := storage.NewMemory()
		_, err := raw.Create(wrap(m), 8<<20, &raw.CreateOptions{Preallocation: block.PreallocFalloc})
		if !errors.Is(err, full) {
			t.Errorf("%s: error %v", name, err)
		}
		if n, _ := m.AllocatedSize(); n != 0 {
			t.Errorf("%s: %d bytes left allocated", name, n)
		}
	}
}

type reserver struct {
	block.File
	err error
}

func (r reserver) Reserve(off, n int64) error { return r.err }

// fullAfter lets some writes pass.
type fullAfter struct {
	block.File
	writes int
	err    error
}

func (f *fullAfter) WriteAt(p []byte, off int64) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, f.err
	}
	return f.File.WriteAt(p, off)
}
