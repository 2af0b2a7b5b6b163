package qcow2_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

func openFor(t *testing.T, path string, o qcow2.OpenOptions) *block.Image {
	t.Helper()
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: o.Writable})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &o)
	if err != nil {
		t.Fatal(errors.Join(err, f.Close()))
	}
	return img
}

func occupied(t *testing.T, path string) int64 {
	t.Helper()
	f, err := storage.OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.AllocatedSize()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The file of an image takes up less on disk after space was given up, as the
// options say.
func TestDiscardShrinksTheFile(t *testing.T) {
	const size, step = 8 << 20, 4 << 20
	discard := func(img *block.Image) error { return img.Discard(0, step) }
	unmap := func(img *block.Image) error { return img.WriteZeroes(0, step, block.MayUnmap) }
	remove := func(img *block.Image) error {
		s, _ := block.As[block.Snapshotter](img)
		return s.DeleteSnapshot(context.Background(), "one", nil)
	}
	for _, c := range []struct {
		name    string
		options qcow2.DiscardOptions
		do      func(*block.Image) error
		shrinks bool
	}{
		{"discard", qcow2.DiscardOptions{}, discard, true},
		{"discard ignored", qcow2.DiscardOptions{Ignore: true}, discard, false},
		{"discard kept", qcow2.DiscardOptions{KeepRequested: true}, discard, false},
		{"zeroes", qcow2.DiscardOptions{}, unmap, true},
		{"zeroes kept", qcow2.DiscardOptions{KeepRequested: true}, unmap, false},
		{"snapshot", qcow2.DiscardOptions{}, remove, true},
		{"snapshot kept", qcow2.DiscardOptions{KeepSnapshots: true}, remove, false},
		{"compressed over data", qcow2.DiscardOptions{PassOther: true}, func(img *block.Image) error {
			return img.WriteCompressed(make([]byte, step), 0)
		}, true},
		{"compressed over data kept", qcow2.DiscardOptions{}, func(img *block.Image) error {
			return img.WriteCompressed(make([]byte, step), 0)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir() + "/disk"
			qemu.Create(t, path, "qcow2", size, nil)
			qemu.IO(t, path, "qcow2", fmt.Sprintf("write -P 1 0 %d", size))
			if c.name == "snapshot" || c.name == "snapshot kept" {
				qemu.Img(t, "snapshot", "-c", "one", path)
				qemu.IO(t, path, "qcow2", fmt.Sprintf("write -P 2 0 %d", size))
			}
			before := occupied(t, path)
			img := openFor(t, path, qcow2.OpenOptions{Writable: true, Discard: c.options})
			if err := errors.Join(c.do(img), img.Close()); err != nil {
				t.Fatal(err)
			}
			if given := before - occupied(t, path); c.shrinks != (given > step*3/4) {
				t.Errorf("%d bytes were given back, shrinks: %v", given, c.shrinks)
			}
			qemu.Check(t, path, "qcow2")
			qemu.IO(t, path, "qcow2", fmt.Sprintf("read -P %d %d %d", map[bool]int{true: 2, false: 1}[c.name == "snapshot" || c.name == "snapshot kept"], step, step))
		})
	}
}

// holes notes what is punched.
type holes struct {
	*storage.Memory
	punched [][2]int64
}

func (h *holes) PunchHole(off, n int64) error {
	h.punched = append(h.punched, [2]int64{off, n})
	return h.Memory.PunchHole(off, n)
}

// Discards of neighbours, in any order, are one hole.
func TestDiscardsAreMerged(t *testing.T) {
	const cluster = 64 << 10
	f := &holes{Memory: storage.NewMemory()}
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 16 * cluster}); err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = img.WriteAt(make([]byte, 16*cluster), 0)
	for _, i := range []int64{5, 3, 4, 9, 2, 8} {
		err = errors.Join(err, img.Discard(i*cluster, cluster))
	}
	if len(f.punched) > 0 {
		t.Errorf("%d were punched before a flush", f.punched)
	}
	if err := errors.Join(err, img.Flush(), img.Close()); err != nil {
		t.Fatal(err)
	}
	if len(f.punched) != 2 || !slices.ContainsFunc(f.punched, func(p [2]int64) bool { return p[1] == 4*cluster }) {
		t.Errorf("punched were %d", f.punched)
	}
}

// An image with lazy refcounts is marked before its refcounts are behind, by us as
// by QEMU, and the mark is gone when it is closed. Who finds it mends the image.
func TestLazyRefcounts(t *testing.T) {
	path := t.TempDir() + "/disk"
	qemu.Create(t, path, "qcow2", 4<<20, map[string]string{"lazy_refcounts": "on"})
	if marked := func() bool {
		img := openFor(t, path, qcow2.OpenOptions{Writable: true})
		defer img.Close()
		return isDirty(img)
	}(); marked {
		t.Error("marked before anything was written")
	}
	img := openFor(t, path, qcow2.OpenOptions{Writable: true})
	_, err := img.WriteAt(make([]byte, 1<<20), 0)
	if err := errors.Join(err, img.Flush()); err != nil {
		t.Fatal(err)
	}
	lost := path + ".lost"
	copyImage(t, path, lost)
	if !isDirty(img) {
		t.Error("not marked after a flush")
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	qemu.Check(t, path, "qcow2")
	if dirty := openFor(t, lost, qcow2.OpenOptions{}); !isDirty(dirty) {
		t.Error("the mark is not on disk")
	} else if err := dirty.Close(); err != nil {
		t.Error(err)
	}
	theirs := lost + ".theirs"
	copyImage(t, lost, theirs)
	qemu.IO(t, theirs, "qcow2", "write -P 3 2M 64k") // repairs it
	qemu.Check(t, theirs, "qcow2")
	mended := openFor(t, lost, qcow2.OpenOptions{Writable: true})
	if err := errors.Join(checkNoCorruption(mended, true), mended.Close()); err != nil {
		t.Error(err)
	}
	qemu.Check(t, lost, "qcow2")
	off := false
	exact := openFor(t, path, qcow2.OpenOptions{Writable: true, LazyRefcounts: &off})
	defer exact.Close()
	if _, err := exact.WriteAt(make([]byte, 1<<20), 2<<20); err != nil || isDirty(exact) {
		t.Errorf("%v, marked although refcounts are to be exact: %v", err, isDirty(exact))
	}
}

func copyImage(t *testing.T, from, to string) {
	t.Helper()
	src, err := storage.OpenFile(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	n, err := src.Size()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n)
	if err := block.ReadFull(src, p, 0); err != nil {
		t.Fatal(err)
	}
	dst, err := storage.CreateFile(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dst.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

// Checks that are switched off let a write through that others refuse.
func TestOverlapChecksCanBeSkipped(t *testing.T) {
	for _, names := range [][]string{nil, {"active-l2"}, {"main-header"}} {
		path := t.TempDir() + "/disk"
		qemu.Create(t, path, "qcow2", 4<<20, nil)
		qemu.IO(t, path, "qcow2", "write -P 1 0 64k")
		f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		// The first entry of the L2 table at 0x40000 names the table itself.
		_, err = f.WriteAt([]byte{0x80, 0, 0, 0, 0, 4, 0, 0}, 0x40000)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		img := openFor(t, path, qcow2.OpenOptions{Writable: true, SkipOverlaps: names})
		_, err = img.WriteAt(make([]byte, 512), 32<<10)
		if skipped := len(names) > 0 && names[0] == "active-l2"; skipped != (err == nil) {
			t.Errorf("without %q: %v", names, err)
		}
		img.Close()
	}
}

// Who asks for it has writes checked against the tables of snapshots as well, as
// QEMU has.
func TestInactiveL2Overlap(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	const entries, table = 0x40000, 0x8000000000000000 | 0x40000 // L2 table of the disk, later of the snapshot
	for _, all := range []bool{false, true} {
		path := t.TempDir() + "/disk"
		qemu.Create(t, path, "qcow2", 4<<20, nil)
		qemu.IO(t, path, "qcow2", "write -P 1 0 64k")
		qemu.Img(t, "snapshot", "-c", "s", path)
		qemu.IO(t, path, "qcow2", "write -P 2 0 64k", "write -P 2 1M 64k")
		f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		// Where the L2 table of now is, and in it the entry for 1 MiB.
		var l1 [8]byte
		if err := block.ReadFull(f, l1[:], 0x30000); err != nil {
			t.Fatal(err)
		}
		now := int64(binary.BigEndian.Uint64(l1[:]) & 0x00fffffffffffe00)
		if now == entries {
			t.Fatal("the snapshot has no L2 table of its own")
		}
		_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, table), now+16*8)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		copyImage(t, path, path+".twin")
		_, err = qemu.TryIO("open -o driver=qcow2,overlap-check.inactive-l2="+map[bool]string{false: "off", true: "on"}[all]+" "+path+".twin", "write -P 3 1M 64k")
		if all != (err != nil) {
			t.Errorf("QEMU, inactive tables checked: %v, %v", all, err)
		}
		img := openFor(t, path, qcow2.OpenOptions{Writable: true, InactiveL2: all})
		_, err = img.WriteAt(make([]byte, 64<<10), 1<<20)
		if all != (err != nil) || all && !strings.Contains(err.Error(), "overlaps with inactive L2 table") {
			t.Errorf("inactive tables checked: %v, %v", all, err)
		}
		img.Close()
	}
}

// What is discarded, or zeroed and may be unmapped, goes out of an external data
// file as with QEMU, and the disk stays the same.
func TestDataFileShrinks(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, c := range []struct {
		name    string
		off, n  int64
		discard bool
		flags   block.ZeroFlags
		o       qcow2.DiscardOptions
		command string
	}{
		{"discard", 64 << 10, 128 << 10, true, 0, qcow2.DiscardOptions{}, "discard 64k 128k"},
		{"across clusters", 100 << 10, 300 << 10, true, 0, qcow2.DiscardOptions{}, "discard 100k 300k"},
		{"up to the end", 3 << 20, 1 << 20, true, 0, qcow2.DiscardOptions{}, "discard 3M 1048064"},
		{"ignored", 0, 1 << 20, true, 0, qcow2.DiscardOptions{Ignore: true}, "length"},
		{"unmap", 70 << 10, 200 << 10, false, block.MayUnmap, qcow2.DiscardOptions{}, "write -zu 70k 200k"},
		{"zero", 0, 1 << 20, false, 0, qcow2.DiscardOptions{}, "write -z 0 1M"},
	} {
		for _, raw := range []string{"off", "on"} {
			path := t.TempDir() + "/disk"
			twin := path + ".twin"
			for _, name := range []string{path, twin} {
				qemu.Create(t, name, "qcow2", 4<<20-512, map[string]string{"data_file": name + ".data", "data_file_raw": raw})
				qemu.IO(t, name, "qcow2", "write -P 1 0 4193792")
			}
			qemu.IO(t, twin, "qcow2", c.command)
			f, err := storage.OpenFile(path+".data", &storage.FileOptions{Writable: true})
			must(t, err)
			img := openFor(t, path, qcow2.OpenOptions{Writable: true, Data: f, Discard: c.o})
			if c.discard {
				err = img.Discard(c.off, min(c.n, img.Size()-c.off))
			} else {
				err = img.WriteZeroes(c.off, c.n, c.flags)
			}
			must(t, errors.Join(err, checkNoCorruption(img, true), img.Close()))
			// A file system counts what it needs itself too: some blocks, and no whole cluster.
			if got, want := space(t, path+".data"), space(t, twin+".data"); max(got-want, want-got) >= 64<<10 {
				t.Errorf("%s, raw %s: the data file takes up %d bytes, QEMU's %d", c.name, raw, got, want)
			}
			qemu.Check(t, path, "qcow2")
			qemu.Compare(t, path, "qcow2", twin, "qcow2")
			if raw == "on" {
				qemu.Compare(t, path, "qcow2", path+".data", "raw")
			}
		}
	}
}

// space returns what a file takes up on disk.
func space(t *testing.T, path string) int64 {
	t.Helper()
	f, err := storage.OpenFile(path, nil)
	must(t, err)
	defer f.Close()
	n, err := f.AllocatedSize()
	must(t, err)
	return n
}
