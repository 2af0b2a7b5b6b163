package job_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/job"
)

// The first difference of random disks, often only one byte, is found by
// whatever extents the two have.
func TestCompareProperties(t *testing.T) {
	noGoroutineLeft(t)
	found := map[job.Verdict]int{}
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := int64(r.IntN([]int{100, 1000, 8000}[r.IntN(3)])+1) * unit
		a, want := randomChain(r, size, r.IntN(3))
		b, other := twin(r, want)
		var last int64
		o := &job.CompareOptions{Workers: r.IntN(5), Progress: func(done, total int64) {
			if done < last || total != max(a.Size(), b.Size()) {
				t.Errorf("seed %d: progress %d after %d, of %d", seed, done, last, total)
			}
			last = done
		}}
		got, err := job.Compare(t.Context(), a, b, o)
		if err != nil {
			t.Fatal(err)
		}
		if expect := expectation(want, other); got != expect {
			t.Fatalf("seed %d: %+v, want %+v", seed, got, expect)
		}
		if got.Verdict == job.Identical && last != max(a.Size(), b.Size()) {
			t.Errorf("seed %d: progress ended at %d", seed, last)
		}
		found[got.Verdict]++
	}
	if found[job.Identical] < 20 || found[job.ContentDiffers] < 20 {
		t.Errorf("the test is lopsided: %v", found)
	}
}

// twin makes another disk, of other extents, with the content of p but perhaps
// for its size and a byte.
func twin(r *rand.Rand, p []byte) (*block.Image, []byte) {
	q := append([]byte(nil), p...)
	switch r.IntN(3) {
	case 0:
		q = append(q, make([]byte, r.IntN(4000)*unit)...)
	case 1:
		q = q[:(r.IntN(len(q)/unit)+1)*unit]
	}
	if r.IntN(2) == 0 {
		q[r.IntN(len(q))] ^= 1
	}
	f := newFake(int64(len(q)), nil)
	for off := int64(0); off < f.size; {
		n := min(f.size-off, randomLength(r))
		kind := []block.Kind{block.Data, block.Special, block.Zero}[r.IntN(3)]
		if kind == block.Zero && firstDifference(q[off:off+n], nil) >= 0 {
			kind = block.Data
		}
		f.put(kind, off, q[off:off+n])
		off += n
	}
	return f.image(), q
}

func expectation(a, b []byte) job.CompareResult {
	r := job.CompareResult{Longer: len(a) != len(b)}
	if at := firstDifference(a, b); at >= 0 {
		r.Verdict, r.Offset = job.ContentDiffers, at
		r.Longer = r.Longer && at >= int64(min(len(a), len(b)))
	}
	return r
}

func TestCompareStrict(t *testing.T) {
	disk := func(size int64, layout string) *block.Image {
		f := newFake(size, nil)
		for i, c := range layout {
			p := make([]byte, 4096)
			switch c {
			case 'd', 'D':
				f.put(block.Data, int64(i)*4096, append(p[:4095], 1))
			case 'z':
				f.put(block.Zero, int64(i)*4096, p)
			}
		}
		return f.image()
	}
	for _, c := range []struct {
		a, b         string
		sizeA, sizeB int64
		want         job.CompareResult
	}{
		{"dd", "dd", 8192, 8192, job.CompareResult{}},
		{"dd", "dd", 8192, 12288, job.CompareResult{Verdict: job.SizeDiffers, Offset: 8192}},
		{"d.", "dz", 8192, 8192, job.CompareResult{Verdict: job.StatusDiffers, Offset: 4096}},
		{".d", "zd", 8192, 8192, job.CompareResult{Verdict: job.StatusDiffers, Offset: 0}},
		// Of two alike runs one goes on to the end.
		{"d...", "d.z.", 16384, 16384, job.CompareResult{Verdict: job.StatusDiffers, Offset: 4096}},
	} {
		got, err := job.Compare(t.Context(), disk(c.sizeA, c.a), disk(c.sizeB, c.b), &job.CompareOptions{Strict: true})
		if err != nil || got != c.want {
			t.Errorf("%q and %q: %+v, %v, want %+v", c.a, c.b, got, err, c.want)
		}
	}
}

// An error counts only if there is no difference before it, and it names the
// image.
func TestCompareErrors(t *testing.T) {
	noGoroutineLeft(t)
	r := rand.New(rand.NewPCG(3, 3))
	for _, c := range []struct{ bad, differs int64 }{
		{3 << 20, -1}, {3 << 20, 100}, {3 << 20, 2<<20 + 7}, {100, 3 << 20},
	} {
		a, want := dataDisk(r, 4<<20)
		a.file = &badFile{a.memory, func(off, n int64) bool { return off <= c.bad && c.bad < off+n }}
		if c.differs >= 0 {
			want[c.differs] ^= 0xff
		}
		b := newFake(a.size, nil)
		b.put(block.Data, 0, want)
		got, err := job.Compare(t.Context(), a.image(), b.image(), nil)
		var e *block.Error
		switch {
		case c.differs >= 0 && c.differs < c.bad:
			if err != nil || got.Verdict != job.ContentDiffers || got.Offset != c.differs&^511 {
				t.Errorf("%+v: %+v, %v", c, got, err)
			}
		case !errors.Is(err, errDisk) || !errors.As(err, &e) || e.Path != "fake" || e.Op != "read":
			t.Errorf("%+v: %+v, error %v", c, got, err)
		}
	}
	a, _ := dataDisk(r, 1<<20)
	a.failResolve = func(int64) error { return errDisk }
	if _, err := job.Compare(t.Context(), newFake(1<<20, nil).image(), a.image(), nil); !errors.Is(err, errDisk) {
		t.Errorf("block status: error %v", err)
	}
}

func TestCompareCancelled(t *testing.T) {
	noGoroutineLeft(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	a, want := dataDisk(rand.New(rand.NewPCG(4, 4)), 32<<20)
	b := newFake(a.size, nil)
	b.put(block.Data, 0, want)
	var reads atomic.Int64
	a.file = &badFile{a.memory, func(off, n int64) bool {
		if reads.Add(1) == 4 {
			cancel(errDisk)
		}
		return false
	}}
	// One extent at a time, as the reader and the planner of another format.
	if _, err := job.Compare(ctx, a.image(), b.image(), &job.CompareOptions{Workers: 2}); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
	if n := reads.Load(); n > 12 {
		t.Errorf("%d reads, though cancelled at the fourth", n)
	}
}

// said is what qemu-img compare prints for a result.
func said(r job.CompareResult, strict bool) string {
	s := ""
	if r.Longer {
		s = "Warning: Image size mismatch!\n"
	}
	switch r.Verdict {
	case job.ContentDiffers:
		s += fmt.Sprintf("Content mismatch at offset %d!\n", r.Offset)
	case job.StatusDiffers:
		s += fmt.Sprintf("Strict mode: Offset %d block status mismatch!\n", r.Offset)
	case job.SizeDiffers:
		s += "Strict mode: Image size mismatch!\n"
	default:
		s += "Images are identical.\n"
	}
	return s
}

func compareAsQemu(t *testing.T, a, b string) {
	t.Helper()
	format := func(p string) string { return strings.TrimPrefix(filepath.Ext(p), ".") }
	for _, strict := range []bool{false, true} {
		args := []string{"compare", "-f", format(a), "-F", format(b), a, b}
		if strict {
			args = append(args, "-s")
		}
		want, stderr, _ := qemu.TryImg(args...)
		got, err := job.Compare(t.Context(), openImage(t, a, format(a), false), openImage(t, b, format(b), false),
			&job.CompareOptions{Strict: strict})
		if err != nil {
			t.Errorf("%s and %s: %v", filepath.Base(a), filepath.Base(b), err)
		} else if s := said(got, strict); s != want {
			t.Errorf("%s and %s, strict %t: %sqemu-img says: %s%s", filepath.Base(a), filepath.Base(b), strict, s, want, stderr)
		}
	}
}

func TestCompareRawAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 6))
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a.raw"), filepath.Join(dir, "b.raw")
		size := int64(r.IntN(4<<20) + 1)
		same := r.Uint64()
		randomRaw(t, rand.New(rand.NewPCG(same, 1)), a, size)
		if r.IntN(2) == 0 {
			size = int64(r.IntN(4<<20) + 1)
		}
		q := randomRaw(t, rand.New(rand.NewPCG(same, 1)), b, size)
		if r.IntN(2) == 0 {
			img := openImage(t, b, "raw", true)
			if _, err := img.WriteAt([]byte{q[size/2] ^ 1}, size/2); err != nil {
				t.Fatal(err)
			}
			img.Close()
		}
		compareAsQemu(t, a, b)
		compareAsQemu(t, b, a)
	}
}

const compareImages = `
truncate -s 1M hole.raw
head -c 1M /dev/zero > zeros.raw
qemu-img create -q -f qcow2 new.qcow2 1M
qemu-img create -q -f qcow2 z64.qcow2 1M
qemu-io -c 'write -q -z 64k 64k' z64.qcow2
qemu-img create -q -f qcow2 d64.qcow2 1M
qemu-io -c 'write -q -P 0 64k 64k' d64.qcow2
qemu-img create -q -f qcow2 big.qcow2 2M
qemu-io -c 'write -q -P 0 1500k 4k' big.qcow2
qemu-img create -q -f qcow2 big1.qcow2 2M
qemu-io -c 'write -q -P 1 1900k 4k' big1.qcow2
qemu-img create -q -f qcow2 x.qcow2 1M
qemu-io -c 'write -q -P 1 0 64k' -c 'write -q -P 1 64k 64k' x.qcow2
qemu-img create -q -f qcow2 y.qcow2 1M
qemu-io -c 'write -q -P 1 64k 64k' -c 'write -q -P 1 0k 64k' y.qcow2
qemu-img create -q -f qcow2 full.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' full.qcow2
qemu-img create -q -f qcow2 fuly.qcow2 1M
qemu-io -c 'write -q -P 1 512k 512k' -c 'write -q -P 1 0 512k' fuly.qcow2
qemu-img create -q -f qcow2 w.qcow2 1M
qemu-io -c 'write -q -z 0 1M' w.qcow2
qemu-img create -q -f qcow2 w2.qcow2 1M
qemu-io -c 'write -q -P 0 0 1M' w2.qcow2
qemu-img create -q -f qcow2 w3.qcow2 1M
qemu-io -c 'write -q -P 0 0 1M' -c 'write -q -z 0 1M' w3.qcow2
qemu-img create -q -f qcow2 k.qcow2 1M
qemu-io -c 'write -q -c -P 1 0 64k' -c 'write -q -c -P 1 64k 64k' k.qcow2
qemu-img create -q -f qcow2 -b x.qcow2 -F qcow2 ox.qcow2
qemu-img create -q -f qcow2 -b hole.raw -F raw oh.qcow2
qemu-img create -q -f qcow2 -b x.qcow2 -F qcow2 ox2.qcow2
qemu-io -c 'write -q -z 128k 64k' ox2.qcow2
qemu-img create -q -f qcow2 v.qcow2 1M
qemu-io -c 'write -q -P 1 0 64k' -c 'write -q -P 2 64k 64k' v.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata pm.qcow2 1M
qemu-img create -q -f qcow2 -o preallocation=full pf.qcow2 1M
`

// Pairs of images of all kinds: every third, and all with DISKIMG_LONG set.
func TestCompareAsQemu(t *testing.T) {
	dir := folder(t, compareImages)
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(all) < 20 {
		t.Fatalf("%d images, %v", len(all), err)
	}
	long := os.Getenv("DISKIMG_LONG") != ""
	for i, a := range all {
		for k, b := range all {
			if k >= i && (long || (i+k)%3 == 0) {
				compareAsQemu(t, a, b)
			}
		}
	}
}
