package storage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// begin begins a file and writes text into it.
func begin(t *testing.T, path, text string) *storage.Pending {
	t.Helper()
	p, err := storage.NewPending(path)
	must(t, err)
	t.Cleanup(func() { p.Discard() })
	if _, err := p.File().WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// wantDir demands that these files, and no others, are in dir: name, content.
func wantDir(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if text, ok := want[e.Name()]; !ok || err != nil || string(content) != text {
			t.Errorf("%s holds %q, %v; want %q", e.Name(), content, err, text)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, want %d", len(entries), len(want))
	}
}

func TestPendingNew(t *testing.T) {
	for _, sync := range []bool{false, true} {
		for _, closeFirst := range []bool{false, true} {
			path := newPath(t)
			p := begin(t, path, "new")
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before Commit the name exists: %v", err)
			}
			if p.InPlace() || p.File().Name() != path {
				t.Errorf("in place %v, name %s", p.InPlace(), p.File().Name())
			}
			if closeFirst {
				must(t, p.File().Close())
			}
			must(t, p.Commit(sync))
			must(t, p.Discard())
			wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "new"})
			if err := p.Commit(sync); err == nil {
				t.Error("a second Commit works")
			}
		}
	}
}

func TestPendingReplaces(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("old content"), 0o640))
	must(t, os.Chmod(path, 0o640))
	p := begin(t, path, "new")
	if content, _ := os.ReadFile(path); string(content) != "old content" {
		t.Errorf("before Commit the name holds %q", content)
	}
	must(t, p.Commit(true))
	wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "new"})
	if st, _ := os.Stat(path); st.Mode() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := lock(open(t, path, nil), storage.LockWriter); err != nil {
		t.Errorf("after Commit: %v", err)
	}
}

func TestPendingDiscard(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600))
	for _, name := range []string{"old", "new"} {
		p := begin(t, filepath.Join(dir, name), "text")
		must(t, p.Discard())
		must(t, p.Discard())
		if err := p.Commit(false); err == nil {
			t.Error("Commit after Discard works")
		}
		wantDir(t, dir, map[string]string{"old": "old"})
	}
	if err := lock(open(t, filepath.Join(dir, "old"), nil), storage.LockWriter); err != nil {
		t.Errorf("after Discard: %v", err)
	}
}

// What a crash leaves can be known by its name.
func TestPendingLeavesAKnownName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("ü", 120))
	begin(t, path, "text")
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), ".ü") || !strings.HasSuffix(entries[0].Name(), storage.PendingSuffix) {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestPendingErrors(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	must(t, os.WriteFile(locked, []byte("content"), 0o600))
	must(t, lock(open(t, locked, nil), storage.LockReader))
	for path, kind := range map[string]error{
		dir:                                 storage.ErrNotRegular,
		dir + "/":                           storage.ErrNotRegular,
		dir + "/name/":                      storage.ErrNotRegular,
		"":                                  storage.ErrNotRegular,
		filepath.Join(dir, "none", "disk"):  fs.ErrNotExist,
		filepath.Join(locked, "not-a-dir"):  nil,
		filepath.Join(dir, "locked"):        block.ErrLocked,
		filepath.Join(dir, "nul\x00inside"): nil,
	} {
		_, err := storage.NewPending(path)
		if err == nil || kind != nil && !errors.Is(err, kind) {
			t.Errorf("%q: error %v, want %v", path, err, kind)
			continue
		}
		if !strings.HasPrefix(err.Error(), "create "+path+": ") {
			t.Errorf("error %q does not say what could not be created", err)
		}
	}
	wantDir(t, dir, map[string]string{"locked": "content"})
}

// While a file is being replaced nobody else may begin to use it.
func TestPendingHoldsTheOld(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	p := begin(t, path, "new")
	if _, err := storage.NewPending(path); !errors.Is(err, block.ErrLocked) {
		t.Errorf("a second one begins: %v", err)
	}
	if err := lock(open(t, path, nil), storage.LockReader); !errors.Is(err, block.ErrLocked) {
		t.Errorf("a reader begins: %v", err)
	}
	must(t, p.Commit(false))
	wantDir(t, filepath.Dir(path), map[string]string{"disk.img": "new"})
}
