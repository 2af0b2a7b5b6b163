package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Every long operation, stopped at each point at which it can be: the disk holds
// what it held, has its size and its snapshots, and nothing has leaked. It also tells
// how far it is.
func TestCancel(t *testing.T) {
	for name, c := range cancellables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			points := 0
			for ; cancelAt(t, c, points); points++ {
			}
			if points < c.least {
				t.Errorf("it can be stopped at %d points, not %d", points, c.least)
			}
			t.Logf("stopped at %d points", points)
		})
	}
}

type cancellable struct {
	do      func(l following, img *block.Image) error
	bitmaps bool // what there has to be
	least   int  // at how many points it can be stopped
}

// following is what all of them are given.
type following struct {
	ctx      context.Context
	progress func(done, total int64)
}

var cancellables = map[string]cancellable{
	"CreateSnapshot": {do: func(l following, img *block.Image) error {
		s, _ := block.As[block.Snapshotter](img)
		_, err := s.CreateSnapshot(l.ctx, block.Snapshot{Name: "new"}, l.progress)
		return err
	}, least: 16},
	"ApplySnapshot": {do: func(l following, img *block.Image) error {
		s, _ := block.As[block.Snapshotter](img)
		return s.ApplySnapshot(l.ctx, "old", l.progress)
	}, least: 8},
	"DeleteSnapshot": {do: func(l following, img *block.Image) error {
		s, _ := block.As[block.Snapshotter](img)
		return s.DeleteSnapshot(l.ctx, "old", l.progress)
	}, least: 1},
	"Grow":      {do: resizing(300<<10, block.ResizeOptions{}), least: 4},
	"GrowWith":  {do: resizing(300<<10, block.ResizeOptions{Preallocation: block.PreallocFull}), least: 8},
	"Shrink":    {do: resizing(10<<10, block.ResizeOptions{Shrink: true}), least: 1},
	"Widen":     {do: amending(qcow2.AmendOptions{RefcountBits: 64}), least: 2},
	"Downgrade": {do: amending(qcow2.AmendOptions{Version: 2}), least: 8},
	"Merge": {do: func(l following, img *block.Image) error {
		e, _ := block.As[block.BitmapEditor](img)
		return e.EditBitmaps(l.ctx, []block.BitmapEdit{{Name: "new"}, {Op: block.MergeBitmap, Name: "new", Source: "old"}}, l.progress)
	}, bitmaps: true, least: 4},
	"Check": {do: func(l following, img *block.Image) error {
		c, _ := block.As[block.Checker](img)
		_, err := c.Check(l.ctx, block.CheckOptions{Progress: l.progress})
		return err
	}, least: 2},
}

func resizing(size int64, o block.ResizeOptions) func(l following, img *block.Image) error {
	return func(l following, img *block.Image) error {
		r, _ := block.As[block.Resizer](img)
		o := o
		o.Progress = l.progress
		return r.Resize(l.ctx, size, o)
	}
}

func amending(o qcow2.AmendOptions) func(l following, img *block.Image) error {
	return func(l following, img *block.Image) error {
		o := o
		o.Progress = l.progress
		return qcow2.Amend(l.ctx, img, &o)
	}
}

// limited is a context that has been cancelled once it was asked a number of times.
type limited struct {
	context.Context
	left int
}

func (p *limited) Err() error {
	if p.left--; p.left < 0 {
		return context.Canceled
	}
	return nil
}

// cancelAt stops an operation at one of its points, and reports whether it has that.
func cancelAt(t *testing.T, c cancellable, point int) bool {
	t.Helper()
	f := storage.NewMemory()
	img := cancelImage(t, f, c.bitmaps)
	disk, snapshots, length := wholeDisk(t, img), snapshotsOf(t, img), len(contentOf(t, f))
	told, total := int64(0), int64(0)
	err := c.do(following{&limited{t.Context(), point}, func(done, of int64) {
		if done < told || of < total || done > of {
			t.Errorf("%d of %d done, after %d of %d", done, of, told, total)
		}
		if told > 0 && told == total && done > told {
			t.Errorf("%d of %d done, after all were", done, of)
		}
		told, total = done, of
	}}, img)
	if err == nil {
		if told == 0 || told < total {
			t.Errorf("it told that %d of %d are done", told, total)
		}
		must(t, errors.Join(checkNoCorruption(img, true), img.Close()))
		return false
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped at point %d: %v", point, err)
	}
	img = again(t, f, img)
	if !bytes.Equal(wholeDisk(t, img), disk) {
		t.Errorf("stopped at point %d, it has changed the disk", point)
	}
	if now := snapshotsOf(t, img); !reflect.DeepEqual(now, snapshots) {
		t.Errorf("stopped at point %d, it has changed the snapshots to %v", point, now)
	}
	must(t, errors.Join(checkNoCorruption(img, true), img.Close()))
	// Tables may have moved.
	if now := len(contentOf(t, f)); now > length+40<<10 {
		t.Errorf("stopped at point %d, it has made the file %d bytes longer", point, now-length)
	}
	return true
}

// cancelImage makes an overlay with many small tables, that lies above a longer
// disk, with a snapshot, or with a bitmap.
func cancelImage(t *testing.T, f *storage.Memory, bitmaps bool) *block.Image {
	t.Helper()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{
		Size: 200 << 10, ClusterSize: 512, BackingFile: "base", BackingFormat: "raw",
	}))
	img := again(t, f, nil)
	if bitmaps {
		e, _ := block.As[block.BitmapEditor](img)
		must(t, e.EditBitmaps(t.Context(), []block.BitmapEdit{{Name: "old", Granularity: 512}}, nil))
	}
	for off := int64(0); off < img.Size(); off += 20 << 10 {
		must(t, writeAndFlush(img, bytes.Repeat([]byte{1}, 3000), off))
		must(t, img.WriteZeroes(off+8<<10, 2<<10, block.MayUnmap))
	}
	if !bitmaps {
		s, _ := block.As[block.Snapshotter](img)
		must(t, createNamed(s, "old"))
		must(t, writeAndFlush(img, bytes.Repeat([]byte{2}, 50<<10), 10<<10))
	}
	return again(t, f, img)
}

// again closes the image, if there is one, and opens it.
func again(t *testing.T, f *storage.Memory, img *block.Image) *block.Image {
	t.Helper()
	if img != nil {
		must(t, img.Close())
	}
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true, Policy: newMemoryBacking(bytes.Repeat([]byte{0xba}, 400<<10))})
	must(t, err)
	return img
}

func snapshotsOf(t *testing.T, img *block.Image) []block.Snapshot {
	t.Helper()
	l, _ := block.As[block.SnapshotLister](img)
	list, err := l.Snapshots()
	must(t, err)
	return list
}

// A disk that has not grown has the state of a machine behind its end that it had,
// and its data file is as long as it was.
func TestGrowCancelled(t *testing.T) {
	for _, external := range []bool{false, true} {
		points := 0
		for ; growCancelled(t, external, points); points++ {
		}
		if points < 3 {
			t.Errorf("external %t: it can be stopped at %d points", external, points)
		}
	}
}

// growCancelled stops growing a disk at one of its points, and reports whether it has
// that.
func growCancelled(t *testing.T, external bool, point int) bool {
	t.Helper()
	f, data := storage.NewMemory(), storage.NewMemory()
	o := &qcow2.CreateOptions{Size: 1 << 20}
	if external {
		o.DataFile, o.Data = "data", data.Reopen()
	}
	must(t, qcow2.Create(f.Reopen(), o))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true, Policy: memoryData{data}})
	must(t, err)
	state, want := make([]byte, 1000), bytes.Repeat([]byte{7}, 1000)
	keeper, _ := block.As[block.VMStateKeeper](img)
	if !external {
		must(t, keeper.WriteVMState(want, 0))
	}
	length := len(contentOf(t, data))
	stopped := resizing(5<<20, block.ResizeOptions{Preallocation: block.PreallocFull})(following{ctx: &limited{t.Context(), point}}, img)
	if stopped != nil && !errors.Is(stopped, context.Canceled) {
		t.Fatal(stopped)
	}
	if !external {
		must(t, keeper.ReadVMState(state, 0))
	}
	if !external && !bytes.Equal(state, want) {
		t.Errorf("stopped at point %d (%v), the state is lost", point, stopped)
	}
	must(t, errors.Join(checkNoCorruption(img, true), img.Close()))
	if now := len(contentOf(t, data)); stopped != nil && now != length {
		t.Errorf("stopped at point %d, it has left %d bytes of data, not %d", point, now, length)
	}
	return stopped != nil
}

// memoryData opens a data file.
type memoryData struct{ file *storage.Memory }

func (m memoryData) OpenImage(ref block.Ref) (*block.Image, error) {
	return block.Deny{}.OpenImage(ref)
}

func (m memoryData) OpenFile(block.Ref) (block.File, error) { return m.file.Reopen(), nil }
