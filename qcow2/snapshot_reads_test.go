package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// slowRead is a file whose first read at an offset has its bytes long before it
// returns.
type slowRead struct {
	block.File
	off     int64
	once    sync.Once
	reached chan struct{}
	release chan struct{}
}

func (f *slowRead) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if off == f.off {
		f.once.Do(func() {
			close(f.reached)
			<-f.release
		})
	}
	return n, err
}

// A snapshot rewrites an L2 table where it lies while a guest read has the table as
// it was before: that must not stay in memory, or writes go where a snapshot is.
func TestSnapshotBesideRead(t *testing.T) {
	const cluster, n = 4 << 10, 16 << 10
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: cluster}))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	must(t, writeTo(img)(bytes.Repeat([]byte{1}, n), 0))
	must(t, img.Close())

	slow := &slowRead{File: f.Reopen(), off: activeL2(t, f), reached: make(chan struct{}), release: make(chan struct{})}
	img, err = qcow2.Open(slow, &qcow2.OpenOptions{Writable: true})
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := img.ReadAt(make([]byte, cluster), 0); err != nil {
			t.Error(err)
		}
	})
	<-slow.reached
	wg.Go(func() {
		s, _ := block.As[block.Snapshotter](img)
		if err := createNamed(s, "new"); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(50 * time.Millisecond) // it is made, and waits for the read to free what it replaced
	close(slow.release)
	wg.Wait()
	must(t, writeTo(img)(bytes.Repeat([]byte{2}, n), 0))
	must(t, errors.Join(checkNoCorruption(img, true), img.Close()))
}

func createNamed(s block.Snapshotter, name string) error {
	_, err := s.CreateSnapshot(context.Background(), block.Snapshot{Name: name}, nil)
	return err
}

// activeL2 returns where the first active L2 table lies.
func activeL2(t *testing.T, f *storage.Memory) int64 {
	p := make([]byte, 8)
	_, err := f.ReadAt(p, 40)
	must(t, err)
	_, err = f.ReadAt(p, int64(be.Uint64(p)))
	must(t, err)
	return int64(be.Uint64(p) & 0x00ff_ffff_ffff_fe00)
}

// An image that is open for reading stays as it is, also where its file could be
// written.
func TestSnapshotsReadOnly(t *testing.T) {
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: 4 << 10}))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	must(t, writeTo(img)(bytes.Repeat([]byte{1}, 64<<10), 0))
	s, _ := block.As[block.Snapshotter](img)
	must(t, createNamed(s, "old"))
	must(t, img.Close())
	before := contentOf(t, f)

	img, err = qcow2.Open(f.Reopen(), &qcow2.OpenOptions{})
	must(t, err)
	s, _ = block.As[block.Snapshotter](img)
	for i, err := range []error{createNamed(s, "new"), s.ApplySnapshot(context.Background(), "old", nil), s.DeleteSnapshot(context.Background(), "old", nil), img.Close()} {
		if i < 3 && !errors.Is(err, block.ErrReadOnly) || i == 3 && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if !bytes.Equal(contentOf(t, f), before) {
		t.Error("the file has changed")
	}
}
