package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Caches so small that tables are read again all the time. A read that fails
// once, anywhere, loses and breaks nothing: what was not done is done later.

const smallDisk = 200 << 10

// smallCaches opens the image in f with four pieces of each kind of table.
func smallCaches(f block.File) (*block.Image, error) {
	return qcow2.Open(f, &qcow2.OpenOptions{Writable: true, L2CacheSize: 1, RefcountCacheSize: 1})
}

func smallImage(t *testing.T) *storage.Memory {
	t.Helper()
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: smallDisk, ClusterSize: 512, RefcountBits: 64}))
	return f
}

func TestReadFaultsWithSmallCaches(t *testing.T) {
	points := 0
	for n := 1; ; n++ {
		plan := faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Read, N: n})
		if err := readFaultRun(t, plan); err != nil {
			t.Fatalf("read %d fails: %v", n, err)
		}
		if plan.Hits() == 0 {
			break
		}
		points++
	}
	t.Logf("%d reads failed, one at a time", points)
}

// readFaultRun changes a full disk here and there, going on after an error.
// Reads fail as planned, from the opening on.
func readFaultRun(t *testing.T, plan *faultfile.Plan) error {
	f := smallImage(t)
	img, err := smallCaches(f.Reopen())
	must(t, err)
	data, unknown := make([]byte, smallDisk), make([]bool, smallDisk)
	stamp.Noise(data, 0, 1)
	_, err = img.WriteAt(data, 0)
	must(t, errors.Join(err, img.Close()))

	img, err = smallCaches(plan.Wrap(f.Reopen()))
	if err != nil {
		return nil // told
	}
	r := rand.New(rand.NewPCG(1, 0))
	for id := range uint32(80) {
		off := r.Int64N(smallDisk/512) * 512
		n := min(smallDisk-off, 512*(1+r.Int64N(20)))
		p := make([]byte, n)
		if id%2 == 0 {
			err = img.WriteZeroes(off, n, block.MayUnmap)
		} else {
			stamp.Noise(p, off, 2+id)
			_, err = img.WriteAt(p, off)
		}
		copy(data[off:], p)
		for i := range p {
			unknown[off+int64(i)] = err != nil
		}
		if id%5 == 0 {
			_ = img.Flush() // it may fail, and what it did not do is done by the next
		}
	}
	if err := closeAndCheck(img, f); err != nil {
		return err
	}
	return sameDisk(f, data, unknown)
}

// closeAndCheck closes an image, which may fail, and finds nothing worse than
// leaks in it.
func closeAndCheck(img *block.Image, f *storage.Memory) error {
	_ = img.Close()
	left, err := qcow2.Open(f.Reopen(), nil)
	if err != nil {
		return err
	}
	return errors.Join(checkNoCorruption(left, false), left.Close())
}

func sameDisk(f *storage.Memory, want []byte, unknown []bool) error {
	img, err := qcow2.Open(f.Reopen(), nil)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := img.ReadAt(got, 0); err != nil {
		return err
	}
	for at := range want {
		if got[at] != want[at] && !unknown[at] {
			return fmt.Errorf("byte %d is %#x, want %#x", at, got[at], want[at])
		}
	}
	return nil
}

// A check, and a repair, while others read and write: it finds nothing, since
// nothing is wrong, and does no harm.
func TestCheckWhileWriting(t *testing.T) {
	f := smallImage(t)
	img, err := smallCaches(slowFile{f.Reopen()})
	must(t, err)
	var done sync.WaitGroup
	stopped := make(chan struct{})
	for id := range uint64(4) {
		done.Go(func() {
			r := rand.New(rand.NewPCG(id, 0))
			for {
				select {
				case <-stopped:
					return
				default:
				}
				if err := randomChange(img, r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	c, _ := block.As[block.Checker](img)
	for range 30 {
		var found []string
		_, err := c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true, Report: func(f block.Finding) { found = append(found, f.Text) }})
		if err != nil || len(found) > 0 {
			t.Errorf("check: %v %q", err, found)
			break
		}
	}
	close(stopped)
	done.Wait()
	must(t, img.Close())
	left, err := qcow2.Open(f.Reopen(), nil)
	must(t, err)
	must(t, checkNoCorruption(left, true))
}

// slowFile lets others run within each request.
type slowFile struct{ block.File }

func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	runtime.Gosched()
	return f.File.ReadAt(p, off)
}

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	runtime.Gosched()
	return f.File.WriteAt(p, off)
}

func randomChange(img *block.Image, r *rand.Rand) error {
	off := r.Int64N(smallDisk)
	n := 1 + r.Int64N(min(smallDisk-off, 3000))
	switch r.IntN(6) {
	case 0:
		return img.Discard(off, n)
	case 1:
		return img.WriteZeroes(off, n, block.MayUnmap)
	case 2:
		_, err := img.ReadAt(make([]byte, n), off)
		return err
	case 3:
		return img.Flush()
	}
	_, err := img.WriteAt(make([]byte, n), off)
	return err
}

// What can be written in place goes on, in another slice of the L2 table than it
// began in, in space that has to be filled: the write ends.
func TestWriteGoesOnInNextSlice(t *testing.T) {
	const cluster = 4 << 10
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: cluster}))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true, L2CacheEntrySize: 512})
	must(t, err)
	p := bytes.Repeat([]byte{1}, 128*cluster)
	must(t, errors.Join(writeTo(img)(p, 0), img.WriteZeroes(96*cluster, cluster, 0)))
	done := make(chan error, 1)
	go func() { done <- writeTo(img)(bytes.Repeat([]byte{2}, 100*cluster), 0) }()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("the write does not end")
	}
	got := make([]byte, 100*cluster)
	_, err = img.ReadAt(got, 0)
	must(t, errors.Join(err, img.Close()))
	if bytes.Count(got, []byte{2}) != len(got) {
		t.Error("not all was written")
	}
}
