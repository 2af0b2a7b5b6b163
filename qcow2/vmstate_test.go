package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// What is written behind the disk reads back, after opening again and from
// snapshots too: one made with the size of the state takes it along, another one
// shares it. The disk stays what it is.
func TestVMState(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		f := storage.NewMemory()
		o := qcow2.CreateOptions{Size: 512 * (1 + r.Int64N(4000)), ClusterSize: 512 << r.IntN(4), Version: 2 + r.IntN(2)}
		if err := qcow2.Create(f, &o); err != nil {
			t.Fatal(err)
		}
		m := &machine{t: t, rand: r, file: f, img: openBitmaps(t, f, true), state: make([]byte, 100<<10), kept: map[string][]byte{}}
		disk := bytes.Repeat([]byte{7}, int(o.Size))
		if _, err := m.img.WriteAt(disk, 0); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			m.step(fmt.Sprint("s", i))
		}
		if p := make([]byte, len(disk)); errors.Join(readDisk(m.img, p)) != nil || !bytes.Equal(p, disk) {
			t.Errorf("seed %d: the disk is another one", seed)
		}
		if err := errors.Join(checkNoCorruption(m.img, true), m.img.Close()); err != nil || t.Failed() {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// machine is an image with the state that it, and each of its snapshots, must hold.
type machine struct {
	t     *testing.T
	rand  *rand.Rand
	file  *storage.Memory
	img   *block.Image
	state []byte
	kept  map[string][]byte
}

func (m *machine) step(name string) {
	s, _ := block.As[block.Snapshotter](m.img)
	old := ""
	for old = range m.kept {
		break
	}
	var err error
	switch k := m.rand.IntN(6); {
	case k < 2:
		m.write()
	case k == 2 || old == "":
		m.kept[name] = bytes.Clone(m.state)
		size := int64(m.rand.IntN(2) * len(m.state))
		_, err = s.CreateSnapshot(context.Background(), block.Snapshot{Name: name, VMStateSize: size}, nil)
		if size > 0 {
			clear(m.state)
		}
	case k == 3:
		copy(m.state, m.kept[old])
		err = s.ApplySnapshot(context.Background(), old, nil)
	case k == 4:
		delete(m.kept, old)
		err = s.DeleteSnapshot(context.Background(), old, nil)
	case k == 5:
		err = m.img.Close()
		m.img = openBitmaps(m.t, m.file, true)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.look()
}

// write changes some of the state.
func (m *machine) write() {
	k, _ := block.As[block.VMStateKeeper](m.img)
	for range 5 {
		off := m.rand.IntN(len(m.state))
		p := bytes.Repeat([]byte{byte(1 + m.rand.IntN(200))}, 1+m.rand.IntN(min(len(m.state)-off, 9000)))
		copy(m.state[off:], p)
		if err := k.WriteVMState(p, int64(off)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *machine) look() {
	sameState(m.t, m.img, m.state)
	opener, _ := block.As[block.SnapshotOpener](m.img)
	for name, want := range m.kept {
		view, err := opener.OpenSnapshot(name)
		if err != nil {
			m.t.Fatal(err)
		}
		sameState(m.t, view, want)
	}
}

// QEMU finds nothing wrong with snapshots that took state along, goes to them and
// reads it, and deletes them; the state that it has written we take along.
func TestVMStateInTurns(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for name, options := range map[string]map[string]string{
		"Default": nil, "V2": {"compat": "0.10", "cluster_size": "4k"}, "Refcount2": {"cluster_size": "512", "refcount_bits": "2"},
		"Subclusters": {"cluster_size": "16k", "extended_l2": "on"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			qemu.Create(t, path, "qcow2", 1<<20, options)
			for i, write := range []func(id int){
				func(id int) { qemu.IO(t, path, "qcow2", fmt.Sprintf("write -b -P %d 1k 300k", id)) },
				func(id int) {
					img := openPath(t, path, true)
					k, _ := block.As[block.VMStateKeeper](img)
					if err := errors.Join(k.WriteVMState(bytes.Repeat([]byte{byte(id)}, 300<<10), 1<<10), img.Close()); err != nil {
						t.Fatal(err)
					}
				},
			} {
				write(i + 1)
				img := openPath(t, path, true)
				s, _ := block.As[block.Snapshotter](img)
				_, err := s.CreateSnapshot(context.Background(), block.Snapshot{Name: fmt.Sprint("s", i+1), VMStateSize: 301 << 10}, nil)
				if err := errors.Join(err, img.Close()); err != nil {
					t.Fatal(err)
				}
				qemu.Check(t, path, "qcow2")
				qemu.IO(t, path, "qcow2", "read -b -P 0 0 400k")
			}
			for i := 1; i <= 2; i++ {
				qemu.Img(t, "snapshot", "-a", fmt.Sprint("s", i), path)
				qemu.IO(t, path, "qcow2", fmt.Sprintf("read -b -P %d 1k 300k", i), "read -b -P 0 0 1k", "read -P 0 0 1M")
				qemu.Check(t, path, "qcow2")
				// Not applied any more, and then gone.
				img := openPath(t, path, true)
				s, _ := block.As[block.Snapshotter](img)
				_, err := s.CreateSnapshot(context.Background(), block.Snapshot{Name: "again", VMStateSize: 1}, nil)
				if err := errors.Join(err, s.DeleteSnapshot(context.Background(), "again", nil), s.DeleteSnapshot(context.Background(), fmt.Sprint("s", i), nil), img.Close()); err != nil {
					t.Fatal(err)
				}
				qemu.Check(t, path, "qcow2")
			}
		})
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
