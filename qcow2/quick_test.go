package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

type quickBacking struct{ img *block.Image }

func TestQuick(t *testing.T) {
	for i := 0; i < 60; i++ {
		seed := int64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { quick(t, seed) })
	}
}

func quick(t *testing.T, seed int64) {
	r := rand.New(rand.NewSource(seed))
	o := &qcow2.CreateOptions{
		Size:         int64(1+r.Intn(4<<11)) * 512,
		ClusterSize:  512 << r.Intn(8),
		RefcountBits: 1 << r.Intn(7),
	}
	switch r.Intn(4) {
	case 0:
		o.Version, o.RefcountBits = 2, 16
	case 1:
		o.ExtendedL2 = true
		o.ClusterSize = 1 << (14 + r.Intn(3))
	case 2:
		o.Compression = qcow2.Zstd
	}
	if r.Intn(6) == 0 {
		o.Preallocation = block.PreallocMetadata
	}
	t.Logf("%+v", *o)
	m := storage.NewMemory()
	if err := qcow2.Create(m, o); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, o.Size)
	open := func() *block.Image {
		img, err := qcow2.Open(m.Reopen(), &qcow2.OpenOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	img := open()
	check := func() {
		verify(t, m.Reopen())
	}
	for step := 0; step < 200; step++ {
		off := r.Int63n(o.Size)
		n := 1 + r.Int63n(min(o.Size-off, 4*o.ClusterSize))
		switch r.Intn(10) {
		case 0, 1, 2, 3:
			p := make([]byte, n)
			r.Read(p)
			if _, err := img.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], p)
		case 4:
			if err := img.WriteZeroes(off, n, block.ZeroFlags(r.Intn(2))); err != nil {
				t.Fatal(err)
			}
			clear(want[off : off+n])
		case 5:
			cs := o.ClusterSize
			off = off / cs * cs
			n = min((n+cs-1)/cs*cs, o.Size-off)
			p := bytes.Repeat([]byte(fmt.Sprint(step, "x")), int(n))[:n]
			if r.Intn(4) == 0 {
				r.Read(p)
			}
			if err := img.WriteCompressed(p, off); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], p)
		case 6:
			if err := img.Discard(off, n); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			img.ReadAt(got, off)
			for i := range got {
				if got[i] != want[off+int64(i)] && got[i] != 0 {
					t.Fatal("discard")
				}
			}
			copy(want[off:], got)
		case 7:
			if err := img.Flush(); err != nil {
				t.Fatal(err)
			}
		case 8:
			if r.Intn(4) == 0 {
				if err := img.Close(); err != nil {
					t.Fatal(err)
				}
				check()
				img = open()
			}
		}
		got := make([]byte, n)
		if _, err := img.ReadAt(got, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[off:off+n]) {
			t.Fatalf("step %d: mismatch", step)
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	check()
	qemuVerify(t, m.Reopen(), want)
}

func verify(t *testing.T, f block.File) {
	t.Helper()
	img, err := qcow2.Open(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := block.As[block.Checker](img)
	res, err := c.Check(block.CheckOptions{Report: func(f block.Finding) { t.Error(f.Text) }})
	if err != nil || res.Leaks+res.Corruptions+res.Errors > 0 {
		t.Fatalf("check: %+v %v", res, err)
	}
}

func qemuVerify(t *testing.T, f block.File, want []byte) {
	t.Helper()
	dir := t.TempDir()
	size, _ := f.Size()
	b := make([]byte, size)
	f.ReadAt(b, 0)
	path, raw := filepath.Join(dir, "a.qcow2"), filepath.Join(dir, "a.raw")
	os.WriteFile(path, b, 0o666)
	os.WriteFile(raw, want, 0o666)
	if out, err := exec.Command("qemu-img", "check", path).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if out, err := exec.Command("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
}
