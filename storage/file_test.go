package storage_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/storage"
)

// newPath is the path of a file that does not exist yet.
func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "disk.img") }

// create makes an empty file that is closed with the test.
func create(t testing.TB, path string) *storage.File {
	t.Helper()
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func open(t testing.TB, path string, o *storage.FileOptions) *storage.File {
	t.Helper()
	f, err := storage.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	blocktest.TestFile(t, func(t *testing.T) block.File { return create(t, newPath(t)) })
}

// testFileIn runs the suite on files in dir.
func testFileIn(t *testing.T, dir string) {
	blocktest.TestFile(t, func(t *testing.T) block.File {
		f, err := os.CreateTemp(dir, "")
		must(t, err)
		must(t, f.Close())
		return create(t, f.Name())
	})
}

func TestFileSync(t *testing.T) {
	blocktest.TestFile(t, func(t *testing.T) block.File {
		return open(t, newPath(t), &storage.FileOptions{Create: true, Sync: true})
	})
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	must(t, os.WriteFile(full, []byte("content"), 0o600))
	for _, test := range []struct {
		path string
		o    storage.FileOptions
		kind error
		text string
	}{
		{filepath.Join(dir, "none"), storage.FileOptions{}, fs.ErrNotExist, ""},
		{filepath.Join(dir, "none"), storage.FileOptions{Writable: true}, fs.ErrNotExist, ""},
		{filepath.Join(dir, "no", "dir"), storage.FileOptions{Create: true}, fs.ErrNotExist, ""},
		{full, storage.FileOptions{Create: true, Exclusive: true}, fs.ErrExist, ""},
		{dir, storage.FileOptions{}, storage.ErrNotRegular, "is a directory"},
		{dir, storage.FileOptions{Writable: true}, storage.ErrNotRegular, "is a directory"},
		{dir, storage.FileOptions{Create: true, Truncate: true}, storage.ErrNotRegular, "is a directory"},
	} {
		_, err := storage.OpenFile(test.path, &test.o)
		if !errors.Is(err, test.kind) {
			t.Errorf("%s, %+v: %v, want %v", test.path, test.o, err, test.kind)
			continue
		}
		if want := "open " + test.path + ": " + test.text; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %q does not begin with %q", err, want)
		}
	}
	if b, err := os.ReadFile(full); err != nil || string(b) != "content" {
		t.Errorf("the file now holds %q, %v", b, err)
	}
}

func TestReadOnly(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	f := open(t, path, nil)
	_, err := f.WriteAt([]byte("x"), 0)
	for what, err := range map[string]error{
		"WriteAt": err, "Truncate": f.Truncate(0), "PunchHole": block.PunchHole(f, 0, 1),
		"WriteZeroes": block.WriteZeroes(f, 0, 1),
	} {
		if !errors.Is(err, block.ErrReadOnly) && !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, f.Sync())
	if b, _ := os.ReadFile(path); string(b) != "content" {
		t.Errorf("the file now holds %q", b)
	}
}

func TestCreateFileCuts(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	if size, err := create(t, path).Size(); size != 0 || err != nil {
		t.Errorf("size is %d, %v", size, err)
	}
}

func TestCreateFileSparesALockedFile(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	must(t, open(t, path, nil).Lock(storage.LockReader.Use, storage.LockReader.Share))
	if _, err := storage.CreateFile(path, nil); !errors.Is(err, block.ErrLocked) {
		t.Errorf("CreateFile: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "content" {
		t.Errorf("the file now holds %q", b)
	}
}

func TestSameFile(t *testing.T) {
	a, b := newPath(t), newPath(t)
	fa, fb := create(t, a), create(t, b)
	link := a + "-link"
	must(t, os.Link(a, link))
	again := open(t, link, nil)
	if !fa.SameFile(again) || !again.SameFile(fa) || !fa.SameFile(fa) {
		t.Error("two names of one file are two files")
	}
	if fa.SameFile(fb) || fa.SameFile(nil) {
		t.Error("two files are one")
	}
	dev1, ino1 := fa.ID()
	if dev2, ino2 := again.ID(); dev1 != dev2 || ino1 != ino2 {
		t.Errorf("IDs %d:%d and %d:%d of one file", dev1, ino1, dev2, ino2)
	}
	if fa.Name() != a || again.Name() != link || fa.Device() || !fa.Writable() || again.Writable() {
		t.Error("name, device or writable is wrong")
	}
}

func TestFileHugeOffset(t *testing.T) {
	f := create(t, newPath(t))
	const far = 1 << 40
	if _, err := f.WriteAt([]byte("here"), far); err != nil {
		t.Skip(err) // a file system with shorter files
	}
	start, end, err := f.NextData(0)
	if err != nil || end != far+4 || start > far {
		t.Errorf("NextData: [%d, %d), %v", start, end, err)
	}
	if n, err := f.AllocatedSize(); err != nil || n > 1<<20 {
		t.Errorf("AllocatedSize of 4 bytes: %d, %v", n, err)
	}
}

// Reading and writing must cost what the system calls cost.
func TestIOAllocatesNothing(t *testing.T) {
	mem := storage.NewMemory()
	for name, f := range map[string]block.File{"File": create(t, newPath(t)), "Memory": mem} {
		p := make([]byte, 4096)
		must(t, block.WriteZeroes(f, 0, 1<<20))
		if _, err := f.WriteAt(p, 8192); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { f.ReadAt(p, 8192) }); n != 0 {
			t.Errorf("%s.ReadAt allocates %v times", name, n)
		}
		if n := testing.AllocsPerRun(100, func() { f.WriteAt(p, 8192) }); n != 0 {
			t.Errorf("%s.WriteAt allocates %v times", name, n)
		}
		if n := testing.AllocsPerRun(100, func() { f.Size() }); n != 0 {
			t.Errorf("%s.Size allocates %v times", name, n)
		}
	}
}

func TestMemory(t *testing.T) {
	blocktest.TestFile(t, func(t *testing.T) block.File { return storage.NewMemory() })
}

// A terabyte with nothing in it is free, and quick to look through.
func TestMemorySparse(t *testing.T) {
	m := storage.NewMemory()
	must(t, m.Truncate(1<<40))
	for _, off := range []int64{5 << 30, 1<<40 - 1} {
		if _, err := m.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	var runs [][2]int64
	for off := int64(0); off < 1<<40; {
		start, end, err := m.NextData(off)
		must(t, err)
		runs = append(runs, [2]int64{start, end})
		off = end
	}
	if len(runs) != 2 || runs[0] != [2]int64{5 << 30, 5<<30 + 4096} || runs[1] != [2]int64{1<<40 - 4096, 1 << 40} {
		t.Errorf("data is at %v", runs)
	}
	if n, err := m.AllocatedSize(); n != 2*4096 || err != nil {
		t.Errorf("AllocatedSize is %d, %v", n, err)
	}
	must(t, m.PunchHole(0, 1<<40))
	if n, err := m.AllocatedSize(); n != 0 || err != nil {
		t.Errorf("AllocatedSize after punching all: %d, %v", n, err)
	}
}

func TestMemoryAllocation(t *testing.T) {
	m := storage.NewMemory()
	must(t, m.Reserve(0, 1<<20))
	must(t, m.WriteZeroes(1<<20, 1<<20))
	if n, _ := m.AllocatedSize(); n != 2<<20 {
		t.Errorf("AllocatedSize of 2 MiB reserved: %d", n)
	}
	must(t, m.Truncate(4096))
	if n, _ := m.AllocatedSize(); n != 4096 {
		t.Errorf("AllocatedSize of 4 KiB: %d", n)
	}
	if err := m.Truncate(1 << 62); err != nil {
		t.Error(err)
	}
	if _, err := m.WriteAt([]byte{1}, 1<<62); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("a write beyond all memory: %v", err)
	}
}

func TestMemoryReopen(t *testing.T) {
	m := storage.NewMemory()
	if _, err := m.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, m.Close())
	again := m.Reopen()
	got := make([]byte, 8)
	if n, err := again.ReadAt(got, 0); err != io.EOF || !bytes.Equal(got[:n], []byte("content")) {
		t.Errorf("read %q, %v", got[:n], err)
	}
	if _, err := m.ReadAt(got, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("the closed file reads: %v", err)
	}
}
