package qcow2_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// What is written behind the disk reads back, after opening again and from
// snapshots too, and the disk is what it was.
func TestVMState(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		f := storage.NewMemory()
		o := qcow2.CreateOptions{Size: 512 * (1 + r.Int64N(4000)), ClusterSize: 512 << r.IntN(4), Version: 2 + r.IntN(2)}
		if err := qcow2.Create(f, &o); err != nil {
			t.Fatal(err)
		}
		img := openBitmaps(t, f, true)
		disk := bytes.Repeat([]byte{7}, int(o.Size))
		if _, err := img.WriteAt(disk, 0); err != nil {
			t.Fatal(err)
		}
		state, old := make([]byte, 300<<10), []byte(nil)
		write := func() {
			k, _ := block.As[block.VMStateKeeper](img)
			for range 10 {
				off := r.IntN(len(state))
				p := bytes.Repeat([]byte{byte(1 + r.IntN(200))}, 1+r.IntN(min(len(state)-off, 9000)))
				copy(state[off:], p)
				if err := k.WriteVMState(p, int64(off)); err != nil {
					t.Fatal(err)
				}
			}
		}
		write()
		old = bytes.Clone(state)
		s, _ := block.As[block.Snapshotter](img)
		if _, err := s.CreateSnapshot(block.Snapshot{Name: "with state", VMStateSize: int64(len(state))}); err != nil {
			t.Fatal(err)
		}
		write() // what the snapshot shares is copied
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		img = openBitmaps(t, f, true)
		sameState(t, img, state)
		opener, _ := block.As[block.SnapshotOpener](img)
		view, err := opener.OpenSnapshot("with state")
		if err != nil {
			t.Fatal(err)
		}
		sameState(t, view, old)
		if p := make([]byte, len(disk)); errors.Join(readDisk(img, p)) != nil || !bytes.Equal(p, disk) {
			t.Errorf("seed %d: the disk is another one", seed)
		}
		if err := errors.Join(checkNoCorruption(img, true), img.Close()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func readDisk(img *block.Image, p []byte) error {
	_, err := img.ReadAt(p, 0)
	return err
}

func sameState(t *testing.T, img *block.Image, want []byte) {
	t.Helper()
	k, _ := block.As[block.VMStateKeeper](img)
	p := make([]byte, len(want)+5000)
	if err := k.ReadVMState(p, 0); err != nil || !bytes.Equal(p[:len(want)], want) || len(bytes.Trim(p[len(want):], "\x00")) > 0 {
		t.Errorf("the state is another one (%v)", err)
	}
}

// State that can't be kept is refused.
func TestVMStateErrors(t *testing.T) {
	f, img := newBitmaps(t)
	k, _ := block.As[block.VMStateKeeper](img)
	if err := k.WriteVMState([]byte{1}, 1<<60); !errors.Is(err, syscall.EFBIG) {
		t.Error(err)
	}
	if err := k.WriteVMState([]byte{1}, -1); !errors.Is(err, block.ErrInvalid) {
		t.Error(err)
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	img = openBitmaps(t, f, false)
	defer img.Close()
	k, _ = block.As[block.VMStateKeeper](img)
	if err := k.WriteVMState([]byte{1}, 0); !errors.Is(err, block.ErrReadOnly) {
		t.Error(err)
	}
	if err := k.ReadVMState(make([]byte, 1), -1); !errors.Is(err, block.ErrInvalid) {
		t.Error(err)
	}
}
