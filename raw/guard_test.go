package raw_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// looksLike knows a magic at the start, one further in, one that needs zeros,
// and one at the end of disks of a size.
func looksLike(head, end []byte, size int64) string {
	switch {
	case size == 64<<10 && bytes.HasPrefix(end, []byte("END")):
		return "ended"
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return "qcow2"
	case len(head) >= 68 && bytes.Equal(head[64:68], []byte{0x7f, 0x10, 0xda, 0xbe}):
		return "vdi"
	case bytes.HasPrefix(head, []byte("MAGIC\x00\x00\x00")):
		return "zeros"
	}
	return ""
}

func probed(t *testing.T, size int64) *block.Image {
	t.Helper()
	m := storage.NewMemory()
	if err := m.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return open(t, m, &raw.OpenOptions{Writable: true, LooksLike: looksLike})
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  string // at 0
		do      func(img *block.Image) error
		refused string
	}{
		{"magic", "", write("QFI\xfb\x00\x00\x00\x03", 0), "qcow2"},
		{"in a long write", "", write("QFI\xfb"+strings.Repeat("x", 9000), 0), "qcow2"},
		{"last byte of a magic", "QFI", write("\xfb", 3), "qcow2"},
		{"first byte of a magic", "xFI\xfb", write("Q", 0), "qcow2"},
		{"further in", "", write("\x7f\x10\xda\xbe", 64), "vdi"},
		{"zeros complete it", "MAGICxyz", func(img *block.Image) error { return img.WriteZeroes(5, 3, 0) }, "zeros"},
		{"unmapped zeros complete it", "MAGICxyz", func(img *block.Image) error { return img.WriteZeroes(4, 5000, block.MayUnmap) }, ""},
		{"a discard completes it", "MAGICxyz", func(img *block.Image) error { return img.Discard(5, 3) }, "zeros"},
		{"data", "QF", write("X\xfb", 2), ""},
		{"elsewhere", "", write("QFI\xfb", 512), ""},
		{"behind the head", "", write("QFI\xfb", 8192), ""},
		{"end", "", write("END", 64<<10-512), "ended"},
		{"end of a long write", "", write(strings.Repeat("x", 9000-512)+"END"+strings.Repeat("x", 509), 64<<10-9000), "ended"},
		{"not at the end", "", write("END", 64<<10-1024), ""},
	} {
		img := probed(t, 64<<10)
		if err := write(c.before, 0)(img); err != nil {
			t.Fatal(c.name, err)
		}
		before, after := make([]byte, img.Size()), make([]byte, img.Size())
		if _, err := img.ReadAt(before, 0); err != nil {
			t.Fatal(err)
		}
		err := c.do(img)
		if _, rerr := img.ReadAt(after, 0); rerr != nil {
			t.Fatal(rerr)
		}
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refused != "" && (!errors.Is(err, block.ErrRefused) || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: error %v, want a refusal that names %s", c.name, err, c.refused)
		case c.refused != "" && !bytes.Equal(before, after):
			t.Errorf("%s: refused, and changed the disk", c.name)
		}
	}
}

func write(s string, off int64) func(*block.Image) error {
	return func(img *block.Image) error {
		_, err := img.WriteAt([]byte(s), off)
		return err
	}
}

// What is in the middle of a disk must not become an end that tells a format.
func TestGuardShrink(t *testing.T) {
	img := probed(t, 96<<10)
	if err := write("END", 64<<10-512)(img); err != nil {
		t.Fatal(err)
	}
	r, _ := block.As[block.Resizer](img)
	if err := r.Resize(context.Background(), 64<<10, block.ResizeOptions{Shrink: true}); !errors.Is(err, block.ErrRefused) || img.Size() != 96<<10 {
		t.Errorf("shrunk to an end: %v, %d bytes", err, img.Size())
	}
	if err := r.Resize(context.Background(), 60<<10, block.ResizeOptions{Shrink: true}); err != nil || img.Size() != 60<<10 {
		t.Errorf("shrunk: %v, %d bytes", err, img.Size())
	}
}

// A disk smaller than the head is guarded as well, and an image that was named
// as raw is not.
func TestGuardEnds(t *testing.T) {
	img := probed(t, 512)
	if err := write("QFI\xfb", 0)(img); !errors.Is(err, block.ErrRefused) {
		t.Errorf("small disk: %v", err)
	}
	img = open(t, memory(t, make([]byte, 512)), &raw.OpenOptions{Writable: true})
	if err := write("QFI\xfb", 0)(img); err != nil {
		t.Errorf("named as raw: %v", err)
	}
	img = probed(t, 64<<10)
	if n, err := img.CopyFrom(memory(t, []byte("QFI\xfb")), 0, 0, 4); n != 0 || !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("copy to the head: %d, %v", n, err)
	}
	if n, err := img.CopyFrom(memory(t, []byte("END")), 0, 64<<10-512, 3); n != 0 || !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("copy to the end: %d, %v", n, err)
	}
}

// Writes that run at the same time don't make together what none of them may
// make alone.
func TestGuardConcurrent(t *testing.T) {
	for range 200 {
		img := probed(t, 4096)
		var wg sync.WaitGroup
		for i, s := range []string{"Q", "F", "I", "\xfb"} {
			wg.Go(func() { _ = write(s, int64(i))(img) })
		}
		wg.Wait()
		head := make([]byte, 512)
		if _, err := img.ReadAt(head, 0); err != nil {
			t.Fatal(err)
		}
		if format := looksLike(head, nil, 0); format != "" {
			t.Fatalf("the disk looks like %s", format)
		}
	}
}
