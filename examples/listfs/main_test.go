package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskimg/diskimg"
)

// The files of each test disk. The largest lies in many clusters.
func files() map[string]string {
	return map[string]string{
		"hello.txt":            "hello from inside\n",
		"etc/hostname":         "guest\n",
		"usr/share/large.data": strings.Repeat("0123456789abcdef", 1<<16),
	}
}

func TestExt4(t *testing.T) {
	dir, raw := t.TempDir(), filepath.Join(t.TempDir(), "disk.raw")
	for name, content := range files() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mke2fs(t, "-q", "-t", "ext4", "-d", dir, raw, "32M")
	check(t, raw)
}

// mke2fs makes file systems. It lies where only root has it in the path.
func mke2fs(t *testing.T, args ...string) {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := exec.LookPath("mke2fs"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mke2fs is not installed; install it with: apt-get install e2fsprogs")
		}
		t.Skip("mke2fs is not installed; install it with: apt-get install e2fsprogs")
	}
	if out, err := exec.Command("mke2fs", args...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
}

func TestFAT32(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	d, err := diskfs.Create(raw, 64<<20, diskfs.SectorSizeDefault)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := d.CreateFilesystem(disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "guest"})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files() {
		if err := fsys.Mkdir(filepath.ToSlash(filepath.Dir(name))); err != nil {
			t.Fatal(err)
		}
		f, err := fsys.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, content); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, raw)
}

// check copies a raw disk into qcow2 images of several kinds and demands that
// run finds all files in each.
func check(t *testing.T, raw string) {
	t.Helper()
	for name, options := range map[string]map[string]string{
		"v2": {"compat": "0.10"}, "v3": nil, "4k": {"cluster_size": "4k"}, "subclusters": {"extended_l2": "on"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			copyInto(t, path, raw, options)
			listed := output(t, path, "")
			for name, content := range files() {
				if line := fmt.Sprintf(" %12d %s\n", len(content), name); !strings.Contains(listed, line) {
					t.Errorf("%q is not listed:\n%s", line, listed)
				}
				if output(t, path, name) != content {
					t.Errorf("%s does not read as it was written", name)
				}
			}
		})
	}
}

// copyInto makes a qcow2 image of a raw disk.
func copyInto(t *testing.T, path, raw string, options map[string]string) {
	t.Helper()
	src, err := diskimg.Open(raw, &diskimg.OpenOptions{Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := diskimg.Create(path, &diskimg.CreateOptions{Format: "qcow2", Size: src.Size(), Options: options}); err != nil {
		t.Fatal(err)
	}
	dst, err := diskimg.Open(path, &diskimg.OpenOptions{Format: "qcow2", Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.NewOffsetWriter(dst, 0), io.NewSectionReader(src, 0, src.Size())); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, path, name string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(&out, path, name); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestErrors(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.qcow2")
	if err := diskimg.Create(empty, &diskimg.CreateOptions{Format: "qcow2", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, empty + ".missing", t.TempDir()} {
		if err := run(io.Discard, path, ""); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}
