package storage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/storage"
	"golang.org/x/sys/unix"
)

// A file that somebody else has made meanwhile is not lost.
func TestPendingSparesWhatAppears(t *testing.T) {
	path := newPath(t)
	p := begin(t, path, "mine")
	must(t, os.WriteFile(path, []byte("theirs"), 0o600))
	if err := p.Commit(true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Commit: %v", err)
	}
	must(t, p.Discard())
	wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "theirs"})
}

// Containers mount single files. To such a name nothing can be renamed.
func TestPendingMountPoint(t *testing.T) {
	path, below := newPath(t), newPath(t)
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.WriteFile(below, []byte("old content"), 0o600))
	if err := unix.Mount(below, path, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("no bind mount: %v", err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	p := begin(t, path, "new")
	if !p.InPlace() {
		t.Error("not in place")
	}
	must(t, p.Commit(true))
	wantDir(t, filepath.Dir(below), map[string]string{"disk.img": "new"})
}

// An image that a QEMU program uses is not replaced, in whatever way it is
// used; after that it is.
func TestPendingAgainstQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, h := range holders[:2] {
		path := newPath(t)
		qemu.Create(t, path, h.format, 1<<20, nil)
		release := hold(t, h, path)
		if _, err := storage.NewPending(path); !errors.Is(err, block.ErrLocked) {
			t.Errorf("%s: %v", h.name, err)
		}
		release()
		must(t, begin(t, path, "new").Commit(false))
		wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "new"})
	}
}
