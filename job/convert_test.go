package job_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// Whatever the extents, the options and what the target held before: afterwards
// it reads as the sources do, and what lies behind them is as it was.
func TestConvertProperties(t *testing.T) {
	noGoroutineLeft(t)
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		var srcs []*block.Image
		var want []byte
		for range r.IntN(3) + 1 {
			src, p := randomChain(r, int64(r.IntN(3000)+1)*unit, r.IntN(3))
			srcs, want = append(srcs, src), append(want, p...)
		}
		o := randomOptions(r)
		dst, before := randomTarget(r, len(want), o)
		var done, total int64
		o.Progress = func(now, all int64) {
			if now <= done || now > all || all > int64(len(want)) || total != 0 && all != total {
				t.Errorf("seed %d: progress %d of %d after %d of %d", seed, now, all, done, total)
			}
			done, total = now, all
		}
		if err := job.Convert(t.Context(), dst, srcs, o); err != nil {
			t.Fatalf("seed %d, %+v: %v", seed, o, err)
		}
		if done != total {
			t.Errorf("seed %d: progress ended at %d of %d", seed, done, total)
		}
		copy(before, want)
		mustEqual(t, fmt.Sprintf("seed %d, %+v", seed, o), content(t, dst), before)
	}
}

func randomOptions(r *rand.Rand) *job.ConvertOptions {
	return &job.ConvertOptions{
		TargetIsZero: r.IntN(2) == 0,
		Compress:     r.IntN(3) == 0,
		Sparse:       []int64{0, 0, 0, -1, 512, 3000, 64 << 10, 16 << 20}[r.IntN(8)],
		Workers:      r.IntN(6),
		Unordered:    r.IntN(3) == 0,
	}
}

// randomTarget has room for n bytes and perhaps more, and is new if o says so.
func randomTarget(r *rand.Rand, n int, o *job.ConvertOptions) (*block.Image, []byte) {
	if r.IntN(3) == 0 {
		n += r.IntN(1000) * unit
	}
	f := newFake(int64(n), nil)
	p := make([]byte, n)
	if !o.TargetIsZero {
		scatter(r, p)
		f.put(block.Data, 0, p)
	}
	return packer{f}.image(), p
}

// A target above a copy of the source's backing image gets only what lies above
// that, and reads as the source does, even where an image between was shorter.
func TestConvertOntoBacking(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 2))
		src, want := randomChain(r, int64(r.IntN(2000)+1)*unit, r.IntN(3)+1)
		depth := r.IntN(3) + 1
		base := src
		for range depth {
			if base = base.Backing(); base == nil {
				break
			}
		}
		if base == nil {
			continue
		}
		f := newFake(src.Size(), base)
		o := &job.ConvertOptions{TargetIsZero: r.IntN(2) == 0, BackingDepth: depth, Compress: r.IntN(3) == 0}
		dst := packer{f}.image()
		if err := job.Convert(t.Context(), dst, []*block.Image{src}, o); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, fmt.Sprintf("seed %d, %+v", seed, o), content(t, dst), want)
		if !o.Compress {
			onlyAbove(t, seed, f, src, depth)
		}
	}
}

// onlyAbove demands that nothing was written that the backing image has.
func onlyAbove(t *testing.T, seed uint64, f *fake, src *block.Image, depth int) {
	t.Helper()
	for e, err := range src.Extents(0, src.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		for u := e.Start / unit; e.Depth >= depth && u < e.End()/unit; u++ {
			if f.kinds[u] != block.Below && u*unit < f.backing.Size() {
				t.Fatalf("seed %d: the target has its own %s at %#x, which lies at depth %d", seed, f.kinds[u], u*unit, e.Depth)
			}
		}
	}
}

// A backing image of the target that is shorter than the source's does not lose
// what lies past its end.
func TestConvertOntoShorterBacking(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	base, want := dataDisk(r, 1<<20)
	src := newFake(1<<20, base.image())
	shorter := newFake(512<<10, nil)
	shorter.put(block.Data, 0, want[:512<<10])
	dst := newFake(1<<20, shorter.image())
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{BackingDepth: 1}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "target", content(t, dst.image()), want)
	if dst.kinds[0] != block.Below {
		t.Error("what the backing image has was copied")
	}
}

// sparseDisk has data in the sectors at the given offsets and zeros elsewhere.
func sparseDisk(size int64, sectors ...int64) *fake {
	f := newFake(size, nil)
	p := make([]byte, size)
	for _, off := range sectors {
		p[off] = 1
	}
	f.put(block.Data, 0, p)
	if err := f.memory.Truncate(f.end); err != nil {
		panic(err)
	}
	return f
}

// allData hides the holes of a file.
type allData struct{ block.File }

// What is written for a grain, as ranges: the same as qemu-img writes.
func TestConvertGrain(t *testing.T) {
	sectors := []int64{1000, 13000, 17000, 30000, 100000, 101000, 108000, 200000, 209000, 300000, 320000}
	for _, c := range []struct {
		sparse int64
		want   []write
	}{
		{0, []write{{"write", 0, 4096}, {"write", 12288, 8192}, {"write", 28672, 4096}, {"write", 98304, 4096}, {"write", 106496, 4096},
			{"write", 196608, 4096}, {"write", 208896, 4096}, {"write", 299008, 4096}, {"write", 319488, 4096}}},
		{1024, []write{{"write", 0, 1024}, {"write", 12288, 1024}, {"write", 16384, 1024}, {"write", 29696, 1024}, {"write", 99328, 2048},
			{"write", 107520, 1024}, {"write", 199680, 1024}, {"write", 208896, 1024}, {"write", 299008, 1024}, {"write", 319488, 1024}}},
		{12 << 10, []write{{"write", 0, 32768}, {"write", 98304, 16384}, {"write", 196608, 16384}, {"write", 294912, 8192}, {"write", 319488, 8192}}},
		{64 << 10, []write{{"write", 0, 131072}, {"write", 196608, 131072}}},
		{-1, []write{{"write", 0, 1 << 20}}},
	} {
		src := sparseDisk(1<<20, sectors...)
		src.file = allData{src.memory}
		dst := newFake(1<<20, nil)
		if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{TargetIsZero: true, Sparse: c.sparse}); err != nil {
			t.Fatal(err)
		}
		if got := joined(dst.writes); !slices.Equal(got, c.want) {
			t.Errorf("sparse %d: writes %v, want %v", c.sparse, got, c.want)
		}
	}
}

// joined makes one of writes that follow each other.
func joined(all []write) []write {
	var list []write
	for _, w := range all {
		if n := len(list); n > 0 && list[n-1].op == w.op && list[n-1].off+list[n-1].n == w.off {
			list[n-1].n += w.n
			continue
		}
		list = append(list, w)
	}
	return list
}

// Zeros are written where the target may hold something else, and in ascending
// order with the rest.
func TestConvertOrder(t *testing.T) {
	src := sparseDisk(40<<20, 0, 5<<20, 6<<20, 39<<20)
	dst := newFake(40<<20, nil)
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{Workers: 8}); err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for _, w := range dst.writes {
		if w.off != at || w.n <= 0 {
			t.Fatalf("%+v after a write that ended at %d", w, at)
		}
		at += w.n
	}
	if at != 40<<20 {
		t.Errorf("written up to %d", at)
	}
	dst = newFake(40<<20, nil)
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{TargetIsZero: true}); err != nil {
		t.Fatal(err)
	}
	if len(dst.writes) != 4 {
		t.Errorf("a new target: %v", dst.writes)
	}
}

// Clusters are compressed whole and in order, and holes are not.
func TestConvertCompressed(t *testing.T) {
	src := sparseDisk(40*cluster+512, 5, 3*cluster, 4*cluster+700, 40*cluster)
	dst := packer{newFake(src.size, nil)}
	o := &job.ConvertOptions{TargetIsZero: true, Compress: true, Workers: 4}
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, o); err != nil {
		t.Fatal(err)
	}
	want := []write{{"compress", 0, cluster}, {"compress", 3 * cluster, 2 * cluster}, {"compress", 40 * cluster, 512}}
	if !slices.Equal(dst.writes, want) {
		t.Errorf("writes %v, want %v", dst.writes, want)
	}
	mustEqual(t, "target", content(t, dst.image()), content(t, src.image()))
}

func TestConvertRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	small, _ := dataDisk(r, 4096)
	large, _ := dataDisk(r, 8192)
	for name, c := range map[string]struct {
		dst  *fake
		srcs []*block.Image
		o    job.ConvertOptions
		want error
	}{
		"too small":      {small, []*block.Image{large.image()}, job.ConvertOptions{}, block.ErrInvalid},
		"two too large":  {large, []*block.Image{large.image(), small.image()}, job.ConvertOptions{}, block.ErrInvalid},
		"no compression": {large, []*block.Image{small.image()}, job.ConvertOptions{Compress: true}, block.ErrUnsupported},
		"grain":          {large, []*block.Image{small.image()}, job.ConvertOptions{Sparse: 100}, block.ErrInvalid},
		"large grain":    {large, []*block.Image{small.image()}, job.ConvertOptions{Sparse: 32 << 20}, block.ErrInvalid},
		"backing of two": {large, []*block.Image{small.image(), small.image()}, job.ConvertOptions{BackingDepth: 1}, block.ErrInvalid},
		"workers":        {large, []*block.Image{small.image()}, job.ConvertOptions{Workers: -1}, block.ErrInvalid},
		"salvage in the kernel": {large, []*block.Image{small.image()},
			job.ConvertOptions{KernelCopy: true, Salvage: func(int64, error) {}}, block.ErrInvalid},
	} {
		if err := job.Convert(t.Context(), c.dst.image(), c.srcs, &c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", name, err)
		}
		if len(c.dst.writes) > 0 {
			t.Errorf("%s: refused, and wrote %v", name, c.dst.writes)
		}
	}
}

// Everything before what can't be read is written, and nothing after it; the
// error names the image and the place.
func TestConvertReadError(t *testing.T) {
	noGoroutineLeft(t)
	for _, unordered := range []bool{false, true} {
		src, want := dataDisk(rand.New(rand.NewPCG(5, 5)), 24<<20)
		const bad = 17<<20 + 5000
		src.file = &badFile{src.memory, func(off, n int64) bool { return off <= bad && bad < off+n }}
		dst := newFake(src.size, nil)
		err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{Unordered: unordered})
		var e *block.Error
		if !errors.Is(err, errDisk) || !errors.As(err, &e) || e.Path != "fake" || e.Op != "read" || e.Offset != 17<<20 {
			t.Errorf("error %v", err)
		}
		if unordered {
			continue
		}
		got := content(t, dst.image())
		mustEqual(t, "before", got[:17<<20], want[:17<<20])
		if firstDifference(got[17<<20:], nil) >= 0 {
			t.Error("something was written after what could not be read")
		}
	}
}

func TestConvertStatusError(t *testing.T) {
	noGoroutineLeft(t)
	src, want := dataDisk(rand.New(rand.NewPCG(5, 6)), 4<<20)
	src.step = 128 << 10
	src.failResolve = func(off int64) error {
		if off >= 3<<20 && off < 3<<20+4096 {
			return errDisk
		}
		return nil
	}
	dst := newFake(src.size, nil)
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, nil); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
	mustEqual(t, "before", content(t, dst.image())[:3<<20], want[:3<<20])
	lost := 0
	o := &job.ConvertOptions{Salvage: func(off int64, err error) {
		if lost++; off < 3<<20 || off >= 3<<20+4096 {
			t.Errorf("salvage at %#x: %v", off, err)
		}
	}}
	dst = newFake(src.size, nil)
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, o); err != nil {
		t.Fatal(err)
	}
	clear(want[3<<20 : 3<<20+4096])
	mustEqual(t, "salvaged", content(t, dst.image()), want)
	if lost != 8 {
		t.Errorf("%d sectors lost, want 8", lost)
	}
}

// Each sector that can't be read becomes zeros and is told, and no other.
func TestConvertSalvage(t *testing.T) {
	for _, compress := range []bool{false, true} {
		src, want := dataDisk(rand.New(rand.NewPCG(6, 6)), 5<<20)
		bad := []int64{0, 1<<20 - 512, 1 << 20, 3<<20 + 70000/512*512, src.size - 512}
		src.file = &badFile{src.memory, func(off, n int64) bool {
			return slices.ContainsFunc(bad, func(b int64) bool { return off < b+512 && b < off+n })
		}}
		for _, b := range bad {
			clear(want[b : b+512])
		}
		var lost []int64
		dst := packer{newFake(src.size, nil)}
		o := &job.ConvertOptions{Compress: compress, Salvage: func(off int64, err error) {
			if !errors.Is(err, errDisk) {
				t.Errorf("sector %#x: %v", off, err)
			}
			lost = append(lost, off)
		}}
		if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, o); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "salvaged", content(t, dst.image()), want)
		if slices.Sort(lost); !slices.Equal(lost, bad) {
			t.Errorf("lost %v, want %v", lost, bad)
		}
	}
}

// A target that fails at its n-th write ends the conversion with that error.
func TestConvertWriteError(t *testing.T) {
	noGoroutineLeft(t)
	for _, o := range []job.ConvertOptions{{}, {Unordered: true}, {Compress: true}, {Sparse: -1}} {
		for nth := range int64(12) {
			src := sparseDisk(12<<20, 0, 2<<20, 3<<20, 5<<20, 8<<20, 11<<20)
			dst := packer{newFake(src.size, nil)}
			var n atomic.Int64
			dst.failWrite = func(off, _ int64) error {
				if n.Add(1) == nth+1 {
					return errDisk
				}
				return nil
			}
			err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &o)
			if failed := n.Load() > nth; failed != errors.Is(err, errDisk) {
				t.Errorf("%+v, write %d: error %v", o, nth, err)
			}
		}
	}
}

// Wherever it is when it is cancelled, a conversion ends soon, with the cause.
func TestConvertCancelled(t *testing.T) {
	noGoroutineLeft(t)
	for _, o := range []job.ConvertOptions{{}, {Unordered: true}, {Compress: true}, {Sparse: -1}, {RateLimit: 1 << 20}} {
		for _, at := range []string{"before", "resolve", "read", "write", "progress", "later"} {
			src, _ := dataDisk(rand.New(rand.NewPCG(7, 7)), 24<<20)
			src.step = 64 << 10
			dst := packer{newFake(src.size, nil)}
			ctx, cancel := context.WithCancelCause(t.Context())
			var count atomic.Int64
			here := func(place string) {
				if place == at && count.Add(1) == 5 {
					cancel(errDisk)
				}
			}
			src.failResolve = func(int64) error { here("resolve"); return nil }
			src.file = &badFile{src.memory, func(int64, int64) bool { here("read"); return false }}
			var writes atomic.Int64
			dst.failWrite = func(int64, int64) error { writes.Add(1); here("write"); return nil }
			o.Progress = func(int64, int64) { here("progress") }
			if at == "before" {
				cancel(errDisk)
			}
			if at == "later" || o.RateLimit > 0 {
				time.AfterFunc(5*time.Millisecond, func() { cancel(errDisk) })
			}
			start := time.Now()
			if err := job.Convert(ctx, dst.image(), []*block.Image{src.image()}, &o); !errors.Is(err, errDisk) {
				t.Errorf("%+v cancelled at %s: error %v", o, at, err)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("%+v cancelled at %s: ended after %v", o, at, d)
			}
			if n := writes.Load(); at != "later" && n > 40 {
				t.Errorf("%+v cancelled at %s: %d writes", o, at, n)
			}
			cancel(nil)
		}
	}
}

func TestConvertRate(t *testing.T) {
	src, want := dataDisk(rand.New(rand.NewPCG(8, 8)), 4<<20)
	dst := newFake(src.size, nil)
	start := time.Now()
	if err := job.Convert(t.Context(), dst.image(), []*block.Image{src.image()}, &job.ConvertOptions{RateLimit: 10 << 20}); err != nil {
		t.Fatal(err)
	}
	// The last chunk is not waited for.
	if d := time.Since(start); d < 290*time.Millisecond {
		t.Errorf("4 MiB at 10 MiB/s took %v", d)
	}
	mustEqual(t, "target", content(t, dst.image()), want)
}

func TestConvertNothing(t *testing.T) {
	for _, srcs := range [][]*block.Image{nil, {newFake(0, nil).image()}} {
		dst := newFake(0, nil)
		if err := job.Convert(t.Context(), dst.image(), srcs, nil); err != nil || len(dst.writes) > 0 {
			t.Errorf("%v, %v", err, dst.writes)
		}
	}
}

// copier is a fake into which data can be copied, at most so much at a time.
type copier struct {
	*fake
	most   int64
	copies *atomic.Int64
}

func (c copier) CopyFrom(src block.File, srcOff, off, n int64) (int64, error) {
	if c.copies.Add(1) > 20 || c.most == 0 {
		return 0, block.ErrUnsupported
	}
	p := make([]byte, min(n, c.most))
	if err := block.ReadFull(src, p, srcOff); err != nil {
		return 0, err
	}
	return int64(len(p)), c.change("copy", block.Data, p, off)
}

// Copies in the kernel that stop early, or are refused from some time on, are
// completed.
func TestConvertKernelCopy(t *testing.T) {
	all := int64(0)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 10))
		src, want := randomChain(r, int64(r.IntN(9000)+1)*unit, r.IntN(2))
		var copies atomic.Int64
		dst := copier{newFake(src.Size(), nil), []int64{0, 700, 64 << 10, 1 << 30}[r.IntN(4)], &copies}
		o := &job.ConvertOptions{KernelCopy: true, TargetIsZero: true}
		if r.IntN(2) == 0 {
			o = &job.ConvertOptions{Sparse: -1, Unordered: r.IntN(2) == 0}
		}
		img := block.NewImage(dst, block.ImageOptions{Writable: true})
		if err := job.Convert(t.Context(), img, []*block.Image{src}, o); err != nil {
			t.Fatal(err)
		}
		mustEqual(t, fmt.Sprintf("seed %d, %+v", seed, o), content(t, img), want)
		all += copies.Load()
	}
	if all < 100 {
		t.Errorf("only %d copies by the kernel", all)
	}
}
