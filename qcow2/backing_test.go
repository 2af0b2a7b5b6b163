package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// backingCases are pairs of names, with images that they are to be changed in.
var backingCases = []struct {
	o    qcow2.CreateOptions
	name string
	fmt  string
	err  error
}{
	{o: qcow2.CreateOptions{BackingFile: "base", BackingFormat: "raw"}, name: "other", fmt: "qcow2"},
	{o: qcow2.CreateOptions{BackingFile: "base", BackingFormat: "raw"}},
	{o: qcow2.CreateOptions{BackingFile: "base"}, name: "base", fmt: "raw"},
	{name: "base", fmt: "raw"},
	{o: qcow2.CreateOptions{Version: 2}, name: "base", fmt: "qcow2"},
	{o: qcow2.CreateOptions{Version: 2, ClusterSize: 512, BackingFile: "a", BackingFormat: "raw"}, name: strings.Repeat("n", 200), fmt: "qcow2"},
	{o: qcow2.CreateOptions{BackingFile: "b", BackingFormat: "raw"}, name: strings.Repeat("long/", 200), fmt: "qcow2"},
	{o: qcow2.CreateOptions{BackingFile: strings.Repeat("long/", 200), BackingFormat: "raw"}, name: strings.Repeat("more", 255), fmt: "qcow2"},
	{o: qcow2.CreateOptions{BackingFile: strings.Repeat("long/", 200), BackingFormat: "raw"}},
	{o: qcow2.CreateOptions{ClusterSize: 4096, BackingFile: strings.Repeat("long/", 100), BackingFormat: "raw"}, name: "x"},
	{o: qcow2.CreateOptions{ClusterSize: 4096, BackingFile: "b", BackingFormat: "raw", DataFile: "the data"}, name: strings.Repeat("x", 1000), fmt: "raw"},
	{o: qcow2.CreateOptions{ClusterSize: 512, BackingFile: "b", BackingFormat: "raw"}, name: strings.Repeat("x", 500), fmt: "raw", err: block.ErrNoSpace},
	{o: qcow2.CreateOptions{ClusterSize: 1024, BackingFile: strings.Repeat("x", 500)}, name: strings.Repeat("y", 700), err: block.ErrNoSpace},
	{o: qcow2.CreateOptions{BackingFile: "b"}, name: strings.Repeat("x", 1024), err: block.ErrInvalid},
	{o: qcow2.CreateOptions{BackingFile: "b"}, fmt: "raw", err: block.ErrInvalid},
	{o: qcow2.CreateOptions{DataFile: "d", DataFileRaw: true}, name: "b", err: block.ErrInvalid},
}

// Whenever the power fails, the header names the old backing file or the new
// one, with its format, and all else in it stays.
func TestChangeBackingCrash(t *testing.T) {
	states := 0
	for _, c := range backingCases {
		g := crashfile.NewGroup()
		f, data := g.New(), storage.NewMemory()
		c.o.Size = 64 << 10
		if c.o.DataFile != "" {
			c.o.Data = data
		}
		if err := qcow2.Create(f, &c.o); err != nil {
			t.Fatal(err)
		}
		open := func(f block.File, writable bool) (*block.Image, error) {
			o := &qcow2.OpenOptions{Writable: writable, NoBacking: true}
			if c.o.DataFile != "" {
				o.Data = data.Reopen()
			}
			return qcow2.Open(f, o)
		}
		img, err := open(f.Reopen(), true)
		if err != nil {
			t.Fatal(err)
		}
		g.Checkpoint()
		changer, _ := block.As[block.BackingChanger](img)
		err = changer.ChangeBacking(c.name, c.fmt)
		if !errors.Is(err, c.err) {
			t.Fatalf("%.20q to %.20q: %v", c.o.BackingFile, c.name, err)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		before, after := [2]string{c.o.BackingFile, c.o.BackingFormat}, [2]string{c.name, c.fmt}
		if c.err != nil {
			after = before
		}
		for s := range g.States(crashfile.Options{Exhaustive: 8, Samples: 8, Seed: 1}) {
			states++
			if err := namesOne(s.Files[0], c.o.DataFile, before, after); err != nil {
				t.Fatalf("%.20q to %.20q: %v\n%v", c.o.BackingFile, c.name, err, s)
			}
		}
		if err := namesOne(f.Reopen(), c.o.DataFile, after, after); err != nil {
			t.Errorf("%.20q to %.20q: %v", c.o.BackingFile, c.name, err)
		}
	}
	if states < 100 {
		t.Errorf("only %d states", states)
	}
}

func namesOne(f block.File, dataFile string, may ...[2]string) error {
	d, err := qcow2.Inspect(f)
	if err != nil {
		return err
	}
	got := [2]string{d.BackingName, d.BackingFormat}
	if got != may[0] && got != may[1] || d.DataFile != dataFile {
		return fmt.Errorf("the header names %.30q %q, data file %q", got[0], got[1], d.DataFile)
	}
	return nil
}

// After the change the image takes no more writes; nor does one whose backing
// file was left closed.
func TestChangeBackingSeals(t *testing.T) {
	f := storage.NewMemory()
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20, BackingFile: "b", BackingFormat: "raw"}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []qcow2.OpenOptions{{Writable: true, NoBacking: true}, {Writable: true, Policy: newMemoryBacking(make([]byte, 1<<20))}} {
		img, err := qcow2.Open(f.Reopen(), &o)
		if err != nil {
			t.Fatal(err)
		}
		changer, _ := block.As[block.BackingChanger](img)
		if err := changer.ChangeBacking("c", "raw"); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"zeroes":     img.WriteZeroes(0, 1<<20, 0),
			"discard":    img.Discard(0, 1<<20),
			"compressed": img.WriteCompressed(make([]byte, 64<<10), 0),
		} {
			if !errors.Is(err, block.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("write: %v", err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// An image made empty shows its backing image again, is no larger than a new
// one, and is sound by qemu-img's word; its snapshots are what they were.
func TestMakeEmpty(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, options := range []string{
		"", "compat=0.10", "cluster_size=512", "extended_l2=on", "refcount_bits=1", "lazy_refcounts=on", "data_file=df", "snapshot",
	} {
		dir := t.TempDir()
		t.Chdir(dir)
		qemu.Img(t, "create", "-q", "-f", "raw", "base", "8M")
		qemu.IO(t, "base", "raw", "write -P 9 0 8M")
		args := []string{"create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw"}
		if strings.Contains(options, "=") {
			args = append(args, "-o", options)
		}
		qemu.Img(t, append(args, "disk")...)
		qemu.IO(t, "disk", "qcow2", "write -P 1 0 3M", "write -z 4M 1M")
		if options == "snapshot" {
			qemu.Img(t, "snapshot", "-c", "kept", "disk")
			qemu.IO(t, "disk", "qcow2", "write -P 2 1M 4M")
		}
		if options != "data_file=df" {
			qemu.IO(t, "disk", "qcow2", "write -c -P 3 6M 64k")
		}
		makeEmpty(t, filepath.Join(dir, "disk"))
		qemu.Check(t, "disk", "qcow2")
		qemu.Img(t, "compare", "-f", "qcow2", "-F", "raw", "disk", "base")
		if info := qemu.Img(t, "map", "-f", "qcow2", "disk"); strings.Contains(info, "disk") {
			t.Errorf("%s: something is left:\n%s", options, info)
		}
		if options == "snapshot" {
			qemu.Img(t, "snapshot", "-a", "kept", "disk")
			qemu.IO(t, "disk", "qcow2", "read -P 1 0 3M", "read -P 9 3M 1M", "read -P 0 4M 1M", "read -P 9 5M 3M")
		} else if n := fileSize(t, "disk"); n > 256<<10 {
			t.Errorf("%s: the file has %d bytes", options, n)
		}
	}
}

func makeEmpty(t *testing.T, path string) {
	t.Helper()
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	o := &qcow2.OpenOptions{Path: path, Writable: true, Policy: newMemoryBacking(bytes.Repeat([]byte{9}, 8<<20))}
	if df, err := storage.OpenFile("df", &storage.FileOptions{Writable: true}); err == nil {
		o.Data = df
	}
	img, err := qcow2.Open(f, o)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := block.As[block.Emptier](img)
	if err := e.MakeEmpty(); err != nil {
		t.Error(err)
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	f, err := storage.OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
