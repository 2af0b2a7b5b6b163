package job

import (
	"context"

	"github.com/diskimg/diskimg/block"
)

// MeasureOptions say for what a disk is measured.
type MeasureOptions struct {
	// ClusterSize is that of the copy, in bytes; 0 is 1.
	ClusterSize int64
	// Progress, if not nil, is told how many bytes of the disk are done.
	Progress func(done, total int64)
}

// Measure returns how many bytes of clusters a copy of img needs for the guest
// data: all those in which something is not known to be zero. No data is read.
func Measure(ctx context.Context, img *block.Image, o *MeasureOptions) (int64, error) {
	if o == nil {
		o = &MeasureOptions{}
	}
	if o.ClusterSize < 0 {
		return 0, block.Invalidf("a cluster can't have %d bytes", o.ClusterSize)
	}
	cluster, needed, counted := max(1, o.ClusterSize), int64(0), int64(0)
	for e, err := range entries(ctx, img, 0, img.Size(), allFiles) {
		if err != nil {
			return 0, err
		}
		if first := max(counted, e.Start/cluster*cluster); !e.Zero && first < e.End() {
			counted = (e.End() + cluster - 1) / cluster * cluster
			needed += counted - first
		}
		if o.Progress != nil {
			o.Progress(e.End(), img.Size())
		}
	}
	return needed, nil
}
