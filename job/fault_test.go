package job_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/job"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Each I/O of a conversion fails, in turn, of the source and of the target. An
// error must come back, or nothing be missing; the target must check.

func TestConvertFaults(t *testing.T) {
	points := 0
	from, want := faultSource(t)
	for name, o := range map[string]job.ConvertOptions{
		"plain":      {TargetIsZero: true},
		"compressed": {TargetIsZero: true, Compress: true},
		"unordered":  {TargetIsZero: true, Unordered: true},
		"everything": {Sparse: -1},
	} {
		t.Run(name, func(t *testing.T) {
			plan := faultfile.NewPlan(faultfile.Fault{})
			if err := convertWithFault(t, from, want, o, plan); err != nil {
				t.Fatal(err)
			}
			n := plan.Count(faultfile.Any)
			points += n
			for i := 1; i <= n; i++ {
				for _, f := range []faultfile.Fault{{N: i, Err: faultfile.EIO}, {N: i, Err: faultfile.ENOSPC, Sticky: true, Partial: true}} {
					plan := faultfile.NewPlan(f)
					if err := convertWithFault(t, from, want, o, plan); err == nil && plan.Hits() == 0 && !o.Unordered {
						t.Errorf("%v: never happened", f)
					}
				}
			}
		})
	}
	t.Logf("%d I/Os failed in 2 ways", points)
}

const faultDisk = 3<<20 + 512

// faultSource is an image with data, compressed clusters, zeros and holes.
func faultSource(t *testing.T) (*storage.Memory, []byte) {
	want := make([]byte, faultDisk)
	stamp.Noise(want[:900<<10], 0, 1)
	stamp.Fill(want[1<<20:2<<20], 1<<20, 2)
	stamp.Fill(want[faultDisk-512:], faultDisk-512, 3)
	f := storage.NewMemory()
	must(t, qcow2.Create(f, &qcow2.CreateOptions{Size: faultDisk, ClusterSize: 32 << 10}))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	_, err = img.WriteAt(want[:1<<20], 0)
	must(t, err)
	must(t, img.WriteCompressed(want[1<<20:2<<20], 1<<20))
	must(t, img.WriteZeroes(2<<20, 512<<10, 0))
	_, err = img.WriteAt(want[faultDisk-512:], faultDisk-512)
	must(t, err)
	must(t, img.Close())
	return f, want
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// convertWithFault makes a target and converts to it, and looks at what is
// left. It returns the errors that came back.
func convertWithFault(t *testing.T, from *storage.Memory, want []byte, o job.ConvertOptions, plan *faultfile.Plan) error {
	to := storage.NewMemory()
	if err := qcow2.Create(plan.Wrap(to.Reopen()), &qcow2.CreateOptions{Size: faultDisk}); err != nil {
		return err
	}
	err := convertFiles(plan.Wrap(from.Reopen()), plan.Wrap(to.Reopen()), o)
	img, openErr := qcow2.Open(to.Reopen(), nil)
	must(t, openErr)
	defer img.Close()
	checker, _ := block.As[block.Checker](img)
	res, checkErr := checker.Check(context.Background(), block.CheckOptions{})
	if checkErr != nil || res.Corruptions > 0 {
		t.Errorf("after %v: %+v, %v", err, res, checkErr)
	}
	if err == nil {
		got := make([]byte, faultDisk)
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("no error came back, and the target differs: %v", err)
		}
	}
	return err
}

func convertFiles(from, to block.File, o job.ConvertOptions) error {
	src, err := qcow2.Open(from, nil)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := qcow2.Open(to, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		return err
	}
	err = job.Convert(context.Background(), dst, []*block.Image{src}, &o)
	return errors.Join(err, dst.Close())
}
