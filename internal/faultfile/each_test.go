package faultfile

import (
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/storage"
)

// Each of the operations of each scenario fails in each way, and each scenario is
// played without a fault as well.
func TestFailEach(t *testing.T) {
	var plays, hits atomic.Int64
	FailEach(t, 3, func(seed uint64, p *Plan) error {
		f := p.Wrap(storage.NewMemory())
		for range seed {
			_ = f.Sync()
		}
		plays.Add(1)
		hits.Add(int64(min(1, p.Hits())))
		return nil
	})
	ways := int64(len(Ways(1)))
	if n := 1 + 2 + 3; hits.Load() != int64(n)*ways || plays.Load() != int64(n)*ways+3 {
		t.Errorf("%d plays, %d of them with a fault", plays.Load(), hits.Load())
	}
}
