package job_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// A range of a chain of random disks, wherever it begins and ends, is copied to
// the beginning of another.
func TestCopyRange(t *testing.T) {
	const size = 300 * unit
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		src, data := randomChain(r, size, r.IntN(3))
		off, n := r.Int64N(size+1), r.Int64N(size+2*unit)
		want := make([]byte, size)
		copy(want, data[off:min(off+n, size)])
		dst := newFake(size, nil)
		var last int64
		o := &job.ConvertOptions{TargetIsZero: true, Progress: func(done, total int64) { last = total - done }}
		must(t, job.CopyRange(t.Context(), dst.image(), src, off, n, o))
		mustEqual(t, "the copy", content(t, dst.image()), want)
		if last != 0 {
			t.Errorf("seed %d: %d bytes were not done", seed, last)
		}
	}
}

func TestCopyRangeRefuses(t *testing.T) {
	img := newFake(4*unit, nil).image()
	for _, at := range [][2]int64{{-1, 1}, {0, -1}} {
		if err := job.CopyRange(t.Context(), newFake(unit, nil).image(), img, at[0], at[1], nil); !errors.Is(err, block.ErrBounds) {
			t.Errorf("%d bytes at %d: %v", at[1], at[0], err)
		}
	}
	if err := job.CopyRange(t.Context(), newFake(unit, nil).image(), img, 100*unit, 1, nil); err != nil {
		t.Errorf("a range past the end is empty: %v", err)
	}
}
