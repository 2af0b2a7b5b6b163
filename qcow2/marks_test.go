package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// The marks in the header that say in which state an image was left: what they
// ask of who opens the image for writing.

func openPath(t *testing.T, path string, writable bool) *block.Image {
	t.Helper()
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Path: path, Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// An image with lazy refcounts, as QEMU leaves it when it is killed: it can be
// read as it is, and is put right before it is written.
func TestDirtyImageIsRepaired(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	qemu.Create(t, path, "qcow2", 8<<20, map[string]string{"lazy_refcounts": "on"})
	_, err := qemu.TryIO(qemu.Open(path, "qcow2"), "write -q -P 7 0 1M", "flush", "abort")
	if err == nil || !qemu.Info(t, path, "qcow2").Dirty {
		t.Fatalf("QEMU left the image clean, error %v", err)
	}
	want := bytes.Repeat([]byte{7}, 1<<20)
	for _, writable := range []bool{false, true} {
		img, got := openPath(t, path, writable), make([]byte, 1<<20)
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("writable %v: what was flushed does not read back, error %v", writable, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		if dirty := qemu.Info(t, path, "qcow2").Dirty; dirty == writable {
			t.Errorf("writable %v: dirty is %v afterwards", writable, dirty)
		}
	}
	qemu.Check(t, path, "qcow2")
}

// Who writes an image clears the bits of features that he does not keep up, and
// no others; who only reads it changes nothing.
func TestUnknownAutoclearBits(t *testing.T) {
	const at, unknown = 88, 1<<63 | 1<<40
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, unknown), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for writable, want := range map[bool]uint64{false: unknown, true: 0} {
		copied := path + ".copy"
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := openPath(t, copied, writable).Close(); err != nil {
			t.Fatal(err)
		}
		if b, err = os.ReadFile(copied); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint64(b[at:]); got != want {
			t.Errorf("writable %v: autoclear bits %#x, want %#x", writable, got, want)
		}
	}
}

// A repair takes the corrupt mark off when nothing is wrong any more but leaks,
// and leaves it where something is; as QEMU's does.
func TestCorruptMarkIsTakenOff(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	const atBits, mark, refblock, l2 = 79, 2, 0x20000, 0x40000
	for name, c := range map[string]struct {
		off    int64
		data   []byte
		mended [2]bool // by -r leaks, by -r all
	}{
		"sound":     {atBits, []byte{mark}, [2]bool{true, true}},
		"a leak":    {refblock + 2*50, []byte{0, 1}, [2]bool{true, true}},
		"too low":   {refblock + 2*6, []byte{0, 0}, [2]bool{false, true}},
		"too high":  {refblock + 2*6, []byte{0, 7}, [2]bool{true, true}},
		"no COPIED": {l2, []byte{0}, [2]bool{true, true}},
		"unaligned": {l2 + 6, []byte{2}, [2]bool{false, false}},
	} {
		for i, o := range []block.CheckOptions{{FixLeaks: true}, {FixLeaks: true, FixCorruptions: true}} {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			qemu.Create(t, path, "qcow2", 4<<20, nil)
			qemu.IO(t, path, "qcow2", "write -P 7 0 256k", "write -P 7 3M 64k")
			f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(c.data, c.off)
			_, err2 := f.WriteAt([]byte{mark}, atBits)
			if err := errors.Join(err, err2, f.Close()); err != nil {
				t.Fatal(err)
			}
			copyImage(t, path, path+".twin")
			qemu.TryImg("check", "-r", []string{"leaks", "all"}[i], path+".twin")
			f, err = storage.OpenFile(path, &storage.FileOptions{Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true, Repair: true})
			if err != nil {
				t.Fatal(err)
			}
			k, _ := block.As[block.Checker](img)
			_, err = k.Check(context.Background(), o)
			if err := errors.Join(err, img.Close()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, twin := marked(t, path), marked(t, path+".twin"); got != twin || got == c.mended[i] {
				t.Errorf("%s, %+v: marked as corrupt is %v; QEMU's %v", name, o, got, twin)
			}
			if c.mended[i] {
				qemu.Check(t, path, "qcow2")
				qemu.IO(t, path, "qcow2", "read -P 7 0 256k", "read -P 7 3M 64k")
			}
		}
	}
}

// marked reports whether an image is marked as corrupt.
func marked(t *testing.T, path string) bool {
	t.Helper()
	img := openPath(t, path, false)
	defer img.Close()
	return isCorrupt(t, img)
}

func isCorrupt(t *testing.T, img *block.Image) bool {
	t.Helper()
	is, err := corruptMark(img)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func corruptMark(img *block.Image) (bool, error) {
	d, _ := block.As[block.Describer](img)
	is, err := d.Describe()
	for _, f := range is.Specific {
		if f.Name == "corrupt" {
			return f.Value.(bool), err
		}
	}
	return false, err
}

// The power fails while an image with wrong refcounts that is marked as corrupt is
// repaired: it is marked until nothing is wrong any more, holds what it did, and
// can be repaired to the end.
func TestRepairCrash(t *testing.T) {
	crashfile.Visit(t, *crashStates/100, func(seed uint64) (*crashfile.Scenario, error) {
		r := newCrashRun(t, seed)
		if err := r.Play(8); err != nil {
			return nil, err
		}
		want, err := wholeAgain(r, r.files)
		if err == nil {
			err = spoil(r.rand, r.files[0])
		}
		if err != nil {
			return nil, err
		}
		r.group.Checkpoint()
		o := crashfile.Options{Exhaustive: 3, Samples: 2, Instants: 30, Near: changesHeader}
		return &crashfile.Scenario{Group: r.group, Options: o, What: &r.options, Survives: func(s *crashfile.State, _ *stamp.Moment) error {
			return survivesRepair(r, s.Files, want)
		}}, repairAll(r, r.files)
	})
}

// survivesRepair checks what a power cut has left of a repair.
func survivesRepair(r *crashRun, files []*crashfile.File, want []byte) error {
	img, err := r.openFiles(files, false)
	if err != nil {
		return err
	}
	is, err := corruptMark(img)
	if err == nil && !is && r.options.Version != 2 {
		err = checkNoCorruption(img, false)
	}
	if err := errors.Join(err, img.Close(), reachesReftable(files[0])); err != nil {
		return err
	}
	got, err := wholeAgain(r, files)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("the disk holds something else")
	}
	return errors.Join(err, repairAll(r, files))
}

// reachesReftable checks that a file holds the refcount table that its header
// names, though a repair could do without.
func reachesReftable(f block.File) error {
	var header [60]byte
	err := block.ReadFull(f, header[:], 0)
	size, serr := f.Size()
	be := binary.BigEndian
	if end := int64(be.Uint64(header[48:])) + int64(be.Uint32(header[56:]))<<be.Uint32(header[20:]); err == nil && end > size {
		err = fmt.Errorf("the refcount table ends at %d, the file at %d", end, size)
	}
	return errors.Join(err, serr)
}

// spoil makes refcounts wrong and marks the image as corrupt.
func spoil(r *rand.Rand, f block.File) error {
	var header [104]byte
	var entry [8]byte
	err := block.ReadFull(f, header[:], 0)
	table := int64(binary.BigEndian.Uint64(header[48:]))
	err = errors.Join(err, block.ReadFull(f, entry[:], table))
	first := int64(binary.BigEndian.Uint64(entry[:]))
	for range 1 + r.IntN(4) {
		_, werr := f.WriteAt([]byte{byte(r.IntN(256))}, first+r.Int64N(32))
		err = errors.Join(err, werr)
	}
	if header[7] == 3 {
		_, werr := f.WriteAt([]byte{header[79] | 2}, 79)
		err = errors.Join(err, werr)
	}
	return err
}

// repairAll repairs an image and demands that nothing is left to be done.
func repairAll(r *crashRun, files []*crashfile.File) error {
	img, err := r.openWith(files, &qcow2.OpenOptions{Writable: true, Repair: true})
	if err != nil {
		return err
	}
	k, _ := block.As[block.Checker](img)
	_, err = k.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	if err := errors.Join(err, img.Close()); err != nil {
		return err
	}
	if img, err = r.openFiles(files, true); err != nil {
		return err
	}
	return errors.Join(checkNoCorruption(img, true), img.Close())
}

// wholeAgain opens an image and reads all of its disk.
func wholeAgain(r *crashRun, files []*crashfile.File) ([]byte, error) {
	img, err := r.openFiles(files, false)
	if err != nil {
		return nil, err
	}
	p := make([]byte, img.Size())
	err = block.ReadFull(img, p, 0)
	return p, errors.Join(err, img.Close())
}
