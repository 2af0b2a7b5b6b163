package qcow2_test

import (
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// counted is a file of a type that Go can't compare.
type counted struct {
	*storage.Memory
	count func()
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	c.count()
	return c.Memory.ReadAt(p, off)
}

// A file may be of any type, also of one that can't be compared.
func TestUncomparableFile(t *testing.T) {
	reads := 0
	f := counted{storage.NewMemory(), func() { reads++ }}
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 64 << 10, 512 << 10} {
		if _, err := img.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	data := int64(0)
	for e, err := range img.Extents(0, img.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == block.Data {
			data += e.Length
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if data != 3*64<<10 || reads == 0 {
		t.Errorf("%d bytes of data are there, want %d; %d reads", data, 3*64<<10, reads)
	}
}
