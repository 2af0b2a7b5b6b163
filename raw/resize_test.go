package raw

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// device keeps its length.
type device struct{ block.File }

func (device) Truncate(int64) error { return nil }

// What has a length of its own is left as it is.
func TestResizeDevice(t *testing.T) {
	f := storage.NewMemory()
	if err := f.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	img, err := Open(device{f}, &OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := block.As[block.Resizer](img)
	for size, want := range map[int64]error{8192: nil, 4096: block.ErrUnsupported, 16384: block.ErrUnsupported} {
		if err := r.Resize(context.Background(), size, block.ResizeOptions{Shrink: true}); !errors.Is(err, want) || img.Size() != 8192 {
			t.Errorf("to %d bytes: %v, the disk has %d", size, err, img.Size())
		}
	}
}

func TestResize(t *testing.T) {
	for _, c := range []struct {
		size  int64
		o     block.ResizeOptions
		fails error
	}{
		{size: 2048}, {size: 1 << 20}, {size: 1024, o: block.ResizeOptions{Shrink: true}}, {size: 0, o: block.ResizeOptions{Shrink: true}},
		{size: 1 << 20, o: block.ResizeOptions{Preallocation: block.PreallocFalloc}},
		{size: 2 << 20, o: block.ResizeOptions{Preallocation: block.PreallocFull}},
		{size: 1024, fails: block.ErrInvalid}, {size: -512, fails: block.ErrInvalid},
		{size: 1024, o: block.ResizeOptions{Shrink: true, Preallocation: block.PreallocFull}, fails: block.ErrInvalid},
		{size: 4096, o: block.ResizeOptions{Preallocation: block.PreallocMetadata}, fails: block.ErrUnsupported},
	} {
		f := storage.NewMemory()
		old := bytes.Repeat([]byte{7}, 1900) // a disk of 2048 bytes
		if _, err := f.WriteAt(old, 0); err != nil {
			t.Fatal(err)
		}
		img, err := Open(f.Reopen(), &OpenOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := block.As[block.Resizer](img)
		if err := r.Resize(context.Background(), c.size, c.o); !errors.Is(err, c.fails) {
			t.Errorf("%+v: %v", c, err)
		}
		want := append(old, make([]byte, 2<<20)...)[:2048]
		if c.fails == nil {
			want = append(want, make([]byte, 2<<20)...)[:c.size]
		}
		got := make([]byte, img.Size())
		if err := img.ReadZeroFilled(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: a disk of %d bytes, %v", c, len(got), err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}
