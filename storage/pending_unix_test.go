//go:build unix

package storage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"golang.org/x/sys/unix"
)

// A link stays a link; what it leads to is replaced or made.
func TestPendingThroughLinks(t *testing.T) {
	base := t.TempDir()
	links, files := filepath.Join(base, "links"), filepath.Join(base, "files")
	must(t, errors.Join(os.Mkdir(links, 0o700), os.Mkdir(files, 0o700)))
	must(t, os.WriteFile(filepath.Join(files, "old"), []byte("old"), 0o600))
	must(t, os.Symlink("../files/old", filepath.Join(links, "a")))
	must(t, os.Symlink("a", filepath.Join(links, "b")))
	must(t, os.Symlink("../files/none", filepath.Join(links, "dangling")))
	must(t, os.Symlink(files, filepath.Join(links, "dir")))

	must(t, begin(t, filepath.Join(links, "b"), "replaced").Commit(true))
	must(t, begin(t, filepath.Join(links, "dangling"), "made").Commit(true))
	must(t, begin(t, filepath.Join(links, "dir", "more"), "more").Commit(true))
	wantDir(t, files, map[string]string{"old": "replaced", "none": "made", "more": "more"})
	for name, to := range map[string]string{"a": "../files/old", "b": "a", "dangling": "../files/none"} {
		if got, err := os.Readlink(filepath.Join(links, name)); got != to {
			t.Errorf("link %s leads to %q, %v", name, got, err)
		}
	}
	must(t, os.Symlink("loop", filepath.Join(links, "loop")))
	if _, err := storage.NewPending(filepath.Join(links, "loop")); err == nil {
		t.Error("a link to itself can be replaced")
	}
}

func TestPendingOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := newPath(t)
	must(t, os.WriteFile(path, nil, 0o604))
	must(t, os.Chmod(path, 0o604))
	must(t, os.Chown(path, 1234, 2345))
	must(t, begin(t, path, "new").Commit(false))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Uid != 1234 || st.Gid != 2345 || st.Mode&0o777 != 0o604 {
		t.Errorf("owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode&0o777)
	}
}

func TestPendingCharacterDevices(t *testing.T) {
	p := begin(t, os.DevNull, "text")
	if !p.InPlace() {
		t.Error("/dev/null is not written in place")
	}
	must(t, p.File().Truncate(1<<20))
	if n, err := p.File().Size(); n != 1<<20 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	must(t, block.WriteZeroes(p.File(), 0, 4096))
	must(t, lock(p.File(), storage.LockWriter))
	must(t, p.Commit(true))
	if st, err := os.Stat(os.DevNull); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("/dev/null is now %v, %v", st.Mode(), err)
	}

	full, err := storage.NewPending("/dev/full")
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(t, err)
	defer full.Discard()
	if _, err := full.File().WriteAt([]byte("x"), 0); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("/dev/full takes a byte: %v", err)
	}
}

// An open file of the process is written itself: its name may be gone.
func TestPendingOpenFile(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("old content"), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	p := begin(t, fmt.Sprintf("/dev/fd/%d", f.Fd()), "new")
	if !p.InPlace() {
		t.Error("an open file is not written in place")
	}
	must(t, p.Commit(true))
	wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "new"})
	if after, err := f.Stat(); err != nil || after.Size() != 3 {
		t.Errorf("the open file has %d bytes, %v", after.Size(), err)
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	if _, err := storage.NewPending(fmt.Sprintf("/dev/fd/%d", w.Fd())); !errors.Is(err, storage.ErrNotRegular) {
		t.Errorf("a pipe: %v", err)
	}
}

// Where no file can be made beside it, an existing one is written in place.
func TestPendingInClosedDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("old content"), 0o600))
	dir := filepath.Dir(path)
	must(t, os.Chmod(dir, 0o500))
	defer os.Chmod(dir, 0o700)
	p := begin(t, path, "new")
	if !p.InPlace() {
		t.Error("not in place")
	}
	must(t, p.Commit(false))
	wantDir(t, dir, map[string]string{"disk.img": "new"})
	if _, err := storage.NewPending(filepath.Join(dir, "other")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a new file: %v", err)
	}
	must(t, os.Chmod(path, 0o400))
	if _, err := storage.NewPending(path); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that may not be written: %v", err)
	}
}
