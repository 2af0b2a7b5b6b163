package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// A snapshot that QEMU made is read without going there, by id and by name,
// also after the disk was written and grown by us.
func TestOpenSnapshot(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	qemu.Img(t, "create", "-q", "-f", "qcow2", path, "1M")
	qemu.IO(t, path, "qcow2", "write -P 1 0 1M")
	qemu.Img(t, "snapshot", "-c", "first", path)
	qemu.IO(t, path, "qcow2", "write -P 2 64k 128k")

	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.WriteAt(bytes.Repeat([]byte{3}, 70<<10), 500<<10); err != nil {
		t.Fatal(err)
	}
	resizer, _ := block.As[block.Resizer](img)
	if err := resizer.Resize(context.Background(), 2<<20, block.ResizeOptions{}); err != nil {
		t.Fatal(err)
	}
	opener, _ := block.As[block.SnapshotOpener](img)
	for _, name := range []string{"1", "first"} {
		snapshot, err := opener.OpenSnapshot(name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<20)
		if _, err := snapshot.ReadAt(got, 0); err != nil || snapshot.Size() != 1<<20 {
			t.Fatalf("snapshot %q of %d bytes: %v", name, snapshot.Size(), err)
		}
		if !bytes.Equal(got, bytes.Repeat([]byte{1}, 1<<20)) {
			t.Errorf("snapshot %q does not hold what it was made of", name)
		}
		if err := snapshot.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := opener.OpenSnapshot("second"); err == nil {
		t.Error("a snapshot that is not there was opened")
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	qemu.Check(t, path, "qcow2")
}

// Snapshots made, applied and deleted by QEMU and by us in turns, on one image.
func TestSnapshotsInTurns(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for name, options := range map[string]map[string]string{
		"Default": nil, "V2": {"compat": "0.10", "cluster_size": "4k"}, "Refcount4": {"cluster_size": "512", "refcount_bits": "4"},
		"Subclusters": {"cluster_size": "16k", "extended_l2": "on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			qemu.Create(t, path, "qcow2", turnSize, options)
			s := &turns{t: t, path: path, rand: rand.New(rand.NewPCG(1, 2)), disk: make([]byte, turnSize), kept: map[string][]byte{}}
			for i := range 40 {
				s.step(i, i%2 == 0)
			}
			for name := range s.kept {
				s.snapshot("-d", name, false)
			}
			clear(s.kept)
			s.check()
		})
	}
}

const turnSize = 256 << 10

// turns is a disk with what it, and each of its snapshots, must hold.
type turns struct {
	t    *testing.T
	path string
	rand *rand.Rand
	disk []byte
	kept map[string][]byte
}

func (s *turns) step(i int, ours bool) {
	off := s.rand.IntN(turnSize/512) * 512
	n := min(512*(1+s.rand.IntN(64)), turnSize-off)
	copy(s.disk[off:], bytes.Repeat([]byte{byte(i + 1)}, n))
	if ours {
		s.do(func(img *block.Image) error {
			_, err := img.WriteAt(s.disk[off:off+n], int64(off))
			return err
		})
	} else {
		qemu.IO(s.t, s.path, "qcow2", fmt.Sprintf("write -P %d %d %d", i+1, off, n))
	}
	name := ""
	for name = range s.kept {
		break
	}
	switch k := s.rand.IntN(3); {
	case k == 0 && len(s.kept) < 4 || name == "":
		name = fmt.Sprint("snapshot ", i)
		s.kept[name] = bytes.Clone(s.disk)
		s.snapshot("-c", name, s.rand.IntN(2) == 0)
	case k == 1:
		copy(s.disk, s.kept[name])
		s.snapshot("-a", name, s.rand.IntN(2) == 0)
	default:
		delete(s.kept, name)
		s.snapshot("-d", name, s.rand.IntN(2) == 0)
	}
	s.check()
}

// snapshot does one thing with a snapshot.
func (s *turns) snapshot(action, name string, ours bool) {
	if !ours {
		qemu.Img(s.t, "snapshot", action, name, s.path)
		return
	}
	s.do(func(img *block.Image) error {
		maker, _ := block.As[block.Snapshotter](img)
		switch action {
		case "-c":
			_, err := maker.CreateSnapshot(context.Background(), block.Snapshot{Name: name}, nil)
			return err
		case "-a":
			return maker.ApplySnapshot(context.Background(), name, nil)
		}
		return maker.DeleteSnapshot(context.Background(), name, nil)
	})
}

func (s *turns) do(f func(img *block.Image) error) {
	s.t.Helper()
	file, err := storage.OpenFile(s.path, &storage.FileOptions{Writable: true})
	if err != nil {
		s.t.Fatal(err)
	}
	img, err := qcow2.Open(file, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(f(img), img.Close()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *turns) check() {
	s.t.Helper()
	qemu.Check(s.t, s.path, "qcow2")
	s.do(func(img *block.Image) error {
		if err := checkNoCorruption(img, true); err != nil {
			return err
		}
		if got := wholeDisk(s.t, img); !bytes.Equal(got, s.disk) {
			return errors.New("the disk does not hold what it should")
		}
		opener, _ := block.As[block.SnapshotOpener](img)
		for name, want := range s.kept {
			view, err := opener.OpenSnapshot(name)
			if err != nil {
				return err
			}
			if !bytes.Equal(wholeDisk(s.t, view), want) {
				return fmt.Errorf("%s does not hold what it should", name)
			}
		}
		return nil
	})
}

func wholeDisk(t *testing.T, img *block.Image) []byte {
	t.Helper()
	p := make([]byte, img.Size())
	if _, err := img.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// What the caller says of a snapshot is kept, names that can't be are refused,
// and extra data that is not known stays.
func TestSnapshotRecords(t *testing.T) {
	f := storage.NewMemory()
	if err := qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	maker, _ := block.As[block.Snapshotter](img)
	want := block.Snapshot{
		ID: "seven", Name: "a", Date: time.Unix(1000000000, 123456789), VMClock: 90 * time.Minute, VMStateSize: 0, ICount: 77, DiskSize: 1 << 20,
	}
	for _, s := range []block.Snapshot{want, {Name: "a"}, {Name: "b"}} {
		if _, err := maker.CreateSnapshot(context.Background(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
	lister, _ := block.As[block.SnapshotLister](img)
	list, err := lister.Snapshots()
	if err != nil || len(list) != 3 || list[0] != want || list[1].ID != "1" || list[2].ID != "2" {
		t.Fatalf("%+v, %v", list, err)
	}
	_, again := maker.CreateSnapshot(context.Background(), block.Snapshot{ID: "2"}, nil)
	for what, c := range map[string]struct{ err, want error }{
		"an id twice":   {again, fs.ErrExist},
		"an old name":   {maker.ApplySnapshot(context.Background(), "nope", nil), fs.ErrNotExist},
		"no such name":  {maker.DeleteSnapshot(context.Background(), "nope", nil), fs.ErrNotExist},
		"two of a name": {maker.DeleteSnapshot(context.Background(), "a", nil), block.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
}
