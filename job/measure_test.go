package job_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// What is counted is the clusters in which the map of the disk has something
// that is not zero.
func TestMeasure(t *testing.T) {
	const size = 301*unit - 7
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		img, _ := randomChain(r, size, r.IntN(3))
		for _, cluster := range []int64{100, 512, 3000, 64 << 10} {
			used := map[int64]bool{}
			for e, err := range job.Map(t.Context(), img, 0, size) {
				must(t, err)
				for at := e.Start / cluster; !e.Zero && at <= (e.End()-1)/cluster; at++ {
					used[at] = true
				}
			}
			var last int64
			got, err := job.Measure(t.Context(), img, &job.MeasureOptions{ClusterSize: cluster, Progress: func(done, total int64) { last = total - done }})
			if want := int64(len(used)) * cluster; err != nil || got != want || last != 0 {
				t.Errorf("seed %d, clusters of %d: %d bytes, want %d; %d not done, error %v", seed, cluster, got, want, last, err)
			}
		}
	}
}

func TestMeasureFails(t *testing.T) {
	f := newFake(4*unit, nil)
	if _, err := job.Measure(t.Context(), f.image(), &job.MeasureOptions{ClusterSize: -1}); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("negative clusters: %v", err)
	}
	f.failResolve = func(int64) error { return errDisk }
	if _, err := job.Measure(t.Context(), f.image(), nil); !errors.Is(err, errDisk) {
		t.Errorf("a map that can't be read: %v", err)
	}
}
