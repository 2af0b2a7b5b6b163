package raw_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

func wrapped(f *storage.File, wrap func(block.File) block.File) block.File {
	if wrap == nil {
		return f
	}
	return wrap(f)
}

func TestSuite(t *testing.T) {
	blocktest.TestImage(t, blocktest.Format{
		Name: "raw",
		Create: func(path string, o blocktest.CreateOptions) error {
			f, err := storage.CreateFile(path, nil)
			if err != nil {
				return err
			}
			img, err := raw.Create(wrapped(f, o.Wrap), o.Size, nil)
			if err != nil {
				return errors.Join(err, f.Close())
			}
			return img.Close()
		},
		Open: func(path string, o blocktest.OpenOptions) (*block.Image, error) {
			f, err := storage.OpenFile(path, &storage.FileOptions{Writable: o.Writable})
			if err != nil {
				return nil, err
			}
			img, err := raw.Open(wrapped(f, o.Wrap), &raw.OpenOptions{Path: path, Writable: o.Writable})
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return img, nil
		},
	})
}

// memory is a file that holds data.
func memory(t *testing.T, data []byte) *storage.Memory {
	t.Helper()
	m := storage.NewMemory()
	if _, err := m.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t *testing.T, f block.File, o *raw.OpenOptions) *block.Image {
	t.Helper()
	img, err := raw.Open(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// plain hides what a file can do besides what every file can.
type plain struct{ block.File }

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i%251) + 1
	}
	return p
}

// A file that ends within a sector reads as zero to the end of it, and a write
// there makes it whole.
func TestPartialSector(t *testing.T) {
	data := pattern(1000)
	m := memory(t, data)
	img := open(t, m, &raw.OpenOptions{Writable: true})
	if img.Size() != 1024 {
		t.Fatalf("size %d, want 1024", img.Size())
	}
	want := append(bytes.Clone(data), make([]byte, 24)...)
	got := make([]byte, 2000)
	if n, err := img.ReadAt(got, 0); n != 1024 || err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := img.WriteAt([]byte("x"), 1023); err != nil {
		t.Fatal(err)
	}
	want[1023] = 'x'
	if size, _ := m.Size(); size != 1024 {
		t.Errorf("file is %d bytes long after a write to its last sector, want 1024", size)
	}
	if _, err := img.ReadAt(got[:1024], 0); err != nil || !bytes.Equal(got[:1024], want) {
		t.Errorf("after the write: %v, or other content", err)
	}
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		file, offset, size, want int64
		err                      string
	}{
		{0, 0, 0, 0, ""},
		{1, 0, 0, 512, ""},
		{10240, 100, 0, 10240, ""},
		{10240, 512, 0, 9728, ""},
		{10240, 513, 0, 9728, ""},
		{10240, 512, 1024, 1024, ""},
		{10240, 513, 1024, 1024, ""},
		{10240, 10240, 0, 0, ""},
		{1000, 0, 1024, 1024, ""},
		{1000, 1010, 0, 512, ""},
		{10240, 512, 1000, 0, "Specified size is not multiple of 512"},
		{10240, 512, 10240, 0, "The sum of offset (512) and size (10240) has to be smaller or equal to the  actual size of the containing file (10240)"},
		{10240, 20480, 0, 0, "Offset (20480) cannot be greater than size of the containing file (10240)"},
		{1000, 1030, 0, 0, "Offset (1030) cannot be greater than size of the containing file (1024)"},
		{1000, 512, 1 << 62, 0, "The sum of offset (512)"},
		{1000, -512, 0, 0, "must not be negative"},
		{1000, 0, -512, 0, "must not be negative"},
	} {
		m := storage.NewMemory()
		if err := m.Truncate(c.file); err != nil {
			t.Fatal(err)
		}
		img, err := raw.Open(m, &raw.OpenOptions{Path: "disk", Offset: c.offset, Size: c.size})
		switch {
		case c.err != "":
			if !errors.Is(err, block.ErrInvalid) || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "disk") {
				t.Errorf("%+v: error %v", c, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", c, err)
		case img.Size() != c.want:
			t.Errorf("%+v: size %d", c, img.Size())
		}
	}
}

// All that changes a window stays in it.
func TestWindowContent(t *testing.T) {
	data := pattern(16 << 10)
	m := memory(t, data)
	img := open(t, m, &raw.OpenOptions{Writable: true, Offset: 4096, Size: 8192})
	got := make([]byte, 8192)
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, data[4096:12288]) {
		t.Errorf("read: %v, or other content", err)
	}
	for _, e := range []struct {
		name string
		do   func() error
		at   int
	}{
		{"zero", func() error { return img.WriteZeroes(0, 1024, 0) }, 0},
		{"zero and unmap", func() error { return img.WriteZeroes(4096, 1024, block.MayUnmap) }, 4096},
		{"discard", func() error { return img.Discard(6144, 1024) }, 6144},
	} {
		if err := e.do(); err != nil {
			t.Fatal(e.name, err)
		}
		clear(data[4096+e.at:][:1024])
	}
	if _, err := img.WriteAt([]byte("end"), 8189); err != nil {
		t.Fatal(err)
	}
	copy(data[4096+8189:], "end")
	if _, err := img.WriteAt([]byte("four"), 8189); !errors.Is(err, block.ErrBounds) {
		t.Errorf("write past the end of the window: %v", err)
	}
	whole := make([]byte, len(data))
	if _, err := m.ReadAt(whole, 0); err != nil || !bytes.Equal(whole, data) {
		t.Errorf("the file: %v, or other content", err)
	}
}

// Without holes and zero ranges, zeros are written and discards ignored.
func TestPlainFile(t *testing.T) {
	data := pattern(16 << 10)
	img := open(t, plain{memory(t, data)}, &raw.OpenOptions{Writable: true})
	if err := img.WriteZeroes(1024, 2048, block.MayUnmap); err != nil {
		t.Fatal(err)
	}
	clear(data[1024:3072])
	if err := img.Discard(4096, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, or other content", err)
	}
	if n, err := img.CopyFrom(storage.NewMemory(), 0, 0, 512); n != 0 || !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("copy in the kernel: %d, %v", n, err)
	}
	if err := blocktest.CheckExtents(img, data); err != nil {
		t.Error(err)
	}
}

func TestFailedSync(t *testing.T) {
	broken := errors.New("disk on fire")
	img := open(t, failingSync{storage.NewMemory(), broken}, &raw.OpenOptions{Writable: true})
	if err := img.Flush(); !errors.Is(err, block.ErrBroken) || !errors.Is(err, broken) {
		t.Errorf("flush: %v", err)
	}
	if _, err := img.WriteAt(nil, 0); !errors.Is(err, block.ErrBroken) {
		t.Errorf("write after a failed flush: %v", err)
	}
	if err := img.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
	img = open(t, failingSync{storage.NewMemory(), broken}, &raw.OpenOptions{Writable: true, NoSync: true})
	if err := errors.Join(img.Flush(), img.Close()); err != nil {
		t.Errorf("with NoSync: %v", err)
	}
	img = open(t, failingSync{storage.NewMemory(), broken}, &raw.OpenOptions{Writable: true})
	if err := img.Close(); err != nil {
		t.Errorf("close without a write: %v", err)
	}
}

type failingSync struct {
	*storage.Memory
	err error
}

func (f failingSync) Sync() error { return f.err }

func TestCopyFrom(t *testing.T) {
	dir := t.TempDir()
	src, err := storage.CreateFile(filepath.Join(dir, "src"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	data := pattern(64 << 10)
	if _, err := src.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	dst, err := storage.CreateFile(filepath.Join(dir, "dst"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := dst.Truncate(128 << 10); err != nil {
		t.Fatal(err)
	}
	img := open(t, dst, &raw.OpenOptions{Writable: true, Offset: 4096})
	defer img.Close()
	n, err := img.CopyFrom(src, 8192, 1024, 16<<10)
	if errors.Is(err, block.ErrUnsupported) {
		t.Skip("no copying in the kernel here")
	}
	got := make([]byte, 128<<10)
	if _, rerr := dst.ReadAt(got, 0); rerr != nil || err != nil {
		t.Fatal(rerr, err)
	}
	want := make([]byte, 128<<10)
	copy(want[4096+1024:][:n], data[8192:])
	if n == 0 || !bytes.Equal(got, want) {
		t.Errorf("%d bytes copied, or other content", n)
	}
	if _, err := img.CopyFrom(src, 0, img.Size()-512, 1024); !errors.Is(err, block.ErrBounds) {
		t.Errorf("copy past the end: %v", err)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	img := open(t, memory(t, pattern(64<<10)), nil)
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := img.ReadAt(p, 8192); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a read allocates %v times", n)
	}
}

// What qemu-img says of raw files is what is said here.
func TestSizesAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "disk")
	for _, n := range []int{0, 1, 511, 512, 513, 1000, 4096, 65537} {
		if err := os.WriteFile(path, pattern(n), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := storage.OpenFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		img := open(t, f, nil)
		if want := qemu.Info(t, path, "raw").VirtualSize; img.Size() != want {
			t.Errorf("%d bytes: size %d, qemu-img says %d", n, img.Size(), want)
		}
		img.Close()
	}
}

// A disk that another program has made longer or shorter is as long as its file,
// or as the window that was asked for if that is still there.
func TestInvalidate(t *testing.T) {
	for _, c := range []struct {
		window, file, want int64
		ok                 bool
	}{{0, 1 << 20, 1<<20 - 512, true}, {0, 4096, 4096 - 512, true}, {4096, 1 << 20, 4096, true}, {4096, 4096, 4096, false}} {
		f := storage.NewMemory()
		if err := f.Truncate(64 << 10); err != nil {
			t.Fatal(err)
		}
		img, err := raw.Open(f.Reopen(), &raw.OpenOptions{Offset: 512, Size: c.window})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(c.file); err != nil {
			t.Fatal(err)
		}
		if err := img.Invalidate(); err == nil != c.ok || img.Size() != c.want {
			t.Errorf("%+v: %d bytes, %v", c, img.Size(), err)
		}
	}
}

// A file that another program cuts off while it is open reads as zero where it
// was, and grows again where it is written.
func TestFileShrinks(t *testing.T) {
	m := memory(t, bytes.Repeat([]byte{7}, 8192))
	img := open(t, m.Reopen(), &raw.OpenOptions{Writable: true})
	if err := m.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8192)
	if n, err := img.ReadAt(got, 0); n != 8192 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if want := append(bytes.Repeat([]byte{7}, 1000), make([]byte, 7192)...); !bytes.Equal(got, want) {
		t.Error("the disk reads as something else")
	}
	if _, err := img.WriteAt([]byte{8}, 8191); err != nil {
		t.Fatal(err)
	}
	if size, err := m.Size(); size != 8192 || err != nil {
		t.Errorf("the file has %d bytes, %v", size, err)
	}
}
