package storage_test

// These tests need a block device and small file systems, which only root can
// make; without them they are skipped.

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"golang.org/x/sys/unix"
)

// loopDevice makes a block device of size bytes that holds 0xEE.
func loopDevice(t *testing.T, size int) string {
	t.Helper()
	below := newPath(t)
	must(t, os.WriteFile(below, bytes.Repeat([]byte{0xEE}, size), 0o600))
	return attach(t, below)
}

// attach makes a block device of a file.
func attach(t *testing.T, below string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", below).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", path).Run() })
	return path
}

// tmpfs mounts an empty file system with room for size bytes.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestDevice(t *testing.T) {
	const size = 4 << 20
	path := loopDevice(t, size)
	f := open(t, path, &storage.FileOptions{Writable: true})
	if n, err := f.Size(); n != size || err != nil || !f.Device() {
		t.Fatalf("size %d, %v, device %v", n, err, f.Device())
	}
	if start, end, err := f.NextData(4096); start != 4096 || end != size || err != nil {
		t.Errorf("NextData: [%d, %d), %v", start, end, err)
	}
	want := bytes.Repeat([]byte{0xEE}, size)
	write := bytes.Repeat([]byte{0x11}, 10_000)
	if _, err := f.WriteAt(write, 12_345); err != nil {
		t.Fatal(err)
	}
	copy(want[12_345:], write)
	must(t, block.WriteZeroes(f, 1<<20, 1<<20))
	clear(want[1<<20 : 2<<20])
	must(t, block.WriteZeroes(f, 3<<20+17, 100)) // no sectors: written
	clear(want[3<<20+17 : 3<<20+117])
	if err := f.PunchHole(3<<20+4096, 8192); err == nil {
		clear(want[3<<20+4096 : 3<<20+4096+8192])
	} else if !errors.Is(err, block.ErrUnsupported) {
		t.Error(err)
	}
	must(t, f.Reserve(0, size))
	must(t, f.Truncate(size))
	must(t, f.Truncate(size/2))
	must(t, f.Sync())
	got := make([]byte, size)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("content differs, %v", err)
	}
	checkDeviceEnd(t, f, size)
}

// A device has no room behind its end, whoever asks for it.
func checkDeviceEnd(t *testing.T, f *storage.File, size int64) {
	t.Helper()
	n, err := f.WriteAt(make([]byte, 8192), size-4096)
	for what, err := range map[string]error{
		"WriteAt": err, "Truncate": f.Truncate(size + 1), "Reserve": f.Reserve(size-1, 2),
		"WriteZeroes": f.WriteZeroes(size-4096, 8192),
	} {
		if !errors.Is(err, block.ErrNoSpace) {
			t.Errorf("%s past the end of a device: %v", what, err)
		}
	}
	if n > 4096 {
		t.Errorf("WriteAt past the end wrote %d bytes", n)
	}
}

// All nodes of a device are the same, and locks work on it.
func TestDeviceIsOne(t *testing.T) {
	path := loopDevice(t, 1<<20)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	dir := t.TempDir()
	twin := filepath.Join(dir, "twin")
	if err := unix.Mknod(twin, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
		t.Skip(err)
	}
	f := open(t, path, &storage.FileOptions{Writable: true})
	g, err := storage.OpenFile(twin, nil)
	if err != nil {
		t.Skip(err) // a file system without devices
	}
	defer g.Close()
	if !f.SameFile(g) {
		t.Error("two nodes of a device are two files")
	}
	must(t, lock(f, storage.LockWriter))
	again := open(t, path, nil)
	if err := lock(again, storage.LockReader); !errors.Is(err, block.ErrLocked) {
		t.Errorf("Lock of a device that is locked: %v", err)
	}
}

func TestPendingDevice(t *testing.T) {
	const size = 1 << 20
	path := loopDevice(t, size)
	p, err := storage.NewPending(path)
	must(t, err)
	defer p.Discard()
	if !p.InPlace() {
		t.Fatal("a device is not written in place")
	}
	if n, err := p.File().Size(); n != size || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	if _, err := p.File().WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, p.File().Close())
	must(t, p.Commit(true))
	if got, err := os.ReadFile(path); err != nil || string(got[:4]) != "new\xEE" || len(got) != size {
		t.Errorf("device holds %q..., %v", got[:4], err)
	}
}

// A full file system is no room, in whatever way it is found out.
func TestNoSpace(t *testing.T) {
	dir := tmpfs(t, "64k")
	f := create(t, filepath.Join(dir, "disk.img"))
	p := make([]byte, 1<<20)
	n, err := f.WriteAt(p, 0)
	if !errors.Is(err, block.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) || n >= len(p) {
		t.Errorf("WriteAt of too much: %d, %v", n, err)
	}
	if want := "write " + f.Name() + ": no space left on device"; err != nil && err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if err := f.Reserve(0, 1<<20); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("Reserve of too much: %v", err)
	}
	if err := block.WriteZeroes(f, 0, 1<<20); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("WriteZeroes of too much: %v", err)
	}
	must(t, f.Truncate(0))
	if _, err := f.WriteAt(p[:4096], 0); err != nil {
		t.Errorf("a write when there is room again: %v", err)
	}
}

// After a Sync that failed the kernel would report success to the next one,
// though what was to be written is lost. The disk here has no room for what it
// promised: the writes go to the cache, the Sync finds out.
func TestFailedSyncStaysFailed(t *testing.T) {
	below := filepath.Join(tmpfs(t, "64k"), "disk.img")
	must(t, create(t, below).Truncate(4<<20))
	f := open(t, attach(t, below), &storage.FileOptions{Writable: true})
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	first := f.Sync()
	if first == nil {
		t.Fatal("Sync found room for 1 MiB in 64 KiB")
	}
	if again := f.Sync(); again != first {
		t.Errorf("the first Sync: %v; the second: %v", first, again)
	}
}

// File systems differ in what they can do: the same suite on another one.
func TestFileOnTmpfs(t *testing.T) {
	dir := tmpfs(t, "64m")
	testFileIn(t, dir)
}

// A copy between file systems works, or says that it can't.
func TestCopyAcross(t *testing.T) {
	src, dst := create(t, newPath(t)), create(t, filepath.Join(tmpfs(t, "1m"), "disk.img"))
	want := bytes.Repeat([]byte("content "), 1000)
	if _, err := src.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	n, err := dst.CopyFrom(src, 0, 0, int64(len(want)))
	if errors.Is(err, block.ErrUnsupported) && n == 0 {
		return
	}
	got := make([]byte, n)
	if _, rerr := dst.ReadAt(got, 0); err != nil || rerr != nil || !bytes.Equal(got, want[:n]) {
		t.Errorf("CopyFrom: %d, %v; then reading: %v", n, err, rerr)
	}
}
