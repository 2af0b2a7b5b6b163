package job_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// Requests follow each other by the step, begin anew at the end of the disk,
// and a flush comes when all writes before it have ended.
func TestBenchRequests(t *testing.T) {
	const size = 64 << 10
	for _, test := range []struct {
		name    string
		o       job.BenchOptions
		offsets []int64
		flushes int
	}{
		{"nothing", job.BenchOptions{Write: true, Size: 512}, nil, 0},
		{"one by one", job.BenchOptions{Write: true, Requests: 3, Size: 512}, []int64{0, 512, 1024}, 0},
		{"at a place", job.BenchOptions{Write: true, Requests: 3, Depth: 2, Size: 512, Offset: 4096, Step: 8192}, []int64{4096, 12288, 20480}, 0},
		{"around", job.BenchOptions{Write: true, Requests: 4, Depth: 9, Size: 4096, Step: 40 << 10}, []int64{0, 40 << 10, 16 << 10, 56 << 10}, 0},
		{"flushed", job.BenchOptions{Write: true, Requests: 7, Depth: 3, Size: 512, FlushInterval: 3}, []int64{0, 512, 1024, 1536, 2048, 2560, 3072}, 2},
		{"not drained", job.BenchOptions{Write: true, Requests: 6, Depth: 3, Size: 512, FlushInterval: 3, NoDrain: true}, []int64{0, 512, 1024, 1536, 2048, 2560}, 2},
		{"read", job.BenchOptions{Requests: 5, Depth: 2, Size: 4096, FlushInterval: 1}, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			noGoroutineLeft(t)
			f := newFake(size, nil)
			test.o.Pattern = 7
			var last int64
			test.o.Progress = func(done, total int64) { last = done }
			took, err := job.Bench(t.Context(), f.image(), &test.o)
			if err != nil || took <= 0 || last != int64(test.o.Requests) {
				t.Errorf("took %v, %d requests done, error %v", took, last, err)
			}
			var offsets []int64
			flushes := 0
			want := make([]byte, size)
			for _, w := range f.writes {
				if w.op == "flush" {
					flushes++
					continue
				}
				offsets = append(offsets, w.off)
				copy(want[w.off:], bytes.Repeat([]byte{7}, int(test.o.Size)))
			}
			slices.Sort(offsets)
			slices.Sort(test.offsets)
			if !slices.Equal(offsets, test.offsets) || flushes != test.flushes {
				t.Errorf("written at %v, want %v; %d flushes, want %d", offsets, test.offsets, flushes, test.flushes)
			}
			mustEqual(t, "the disk", content(t, f.image()), want)
		})
	}
}

func TestBenchFails(t *testing.T) {
	noGoroutineLeft(t)
	f := newFake(64<<10, nil)
	f.put(block.Data, 0, make([]byte, 64<<10))
	f.failWrite = func(off, n int64) error {
		if off >= 4096 {
			return errDisk
		}
		return nil
	}
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errDisk)
	for _, test := range []struct {
		name string
		ctx  context.Context
		size int64
		o    job.BenchOptions
		want error
	}{
		{"write", t.Context(), 0, job.BenchOptions{Write: true, Requests: 100, Depth: 4, Size: 512}, errDisk},
		{"cancelled", cancelled, 0, job.BenchOptions{Requests: 100, Size: 512}, errDisk},
		{"beyond the end", t.Context(), 0, job.BenchOptions{Requests: 1, Size: 512, Offset: 64<<10 - 1}, block.ErrBounds},
		{"empty disk", t.Context(), -1, job.BenchOptions{Requests: 1, Size: 512}, block.ErrInvalid},
		{"negative", t.Context(), 0, job.BenchOptions{Requests: 1, Size: 512, Step: -1}, block.ErrInvalid},
		{"memory", t.Context(), 0, job.BenchOptions{Requests: 1 << 30, Depth: 1 << 30, Size: 1 << 30}, block.ErrInvalid},
	} {
		img := f.image()
		if test.size < 0 {
			img = newFake(0, nil).image()
		}
		if _, err := job.Bench(test.ctx, img, &test.o); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
	}
}
