package storage_test

import (
	"errors"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

func lock(f *storage.File, m storage.LockMode) error { return f.Lock(m.Use, m.Share) }

// The rule that all file systems and operating systems keep: a writer that
// shares nothing is alone.
func TestLockWriterIsAlone(t *testing.T) {
	path := newPath(t)
	a, b := create(t, path), open(t, path, &storage.FileOptions{Writable: true})
	must(t, lock(a, storage.LockWriter))
	for _, m := range []storage.LockMode{storage.LockWriter, storage.LockReader} {
		if err := lock(b, m); !errors.Is(err, block.ErrLocked) {
			t.Errorf("lock %v next to a writer: %v", m, err)
		}
	}
	must(t, a.Unlock())
	must(t, lock(b, storage.LockReader))
	must(t, lock(a, storage.LockReader))
	if err := lock(a, storage.LockWriter); !errors.Is(err, block.ErrLocked) {
		t.Errorf("a reader next to another becomes writer: %v", err)
	}
	must(t, b.Close())
	must(t, lock(a, storage.LockWriter))
}

func TestLockError(t *testing.T) {
	for _, test := range []struct {
		err  storage.LockError
		text string
	}{
		{storage.LockError{Perm: storage.Write, Path: "a b.qcow2"}, `Failed to get "write" lock`},
		{storage.LockError{Perm: storage.Write, Shared: true, Path: "a b.qcow2"}, `Failed to get shared "write" lock`},
		{storage.LockError{Perm: storage.ConsistentRead, Path: "a b.qcow2"}, `Failed to get "consistent read" lock`},
		{storage.LockError{Perm: storage.Resize, Shared: true, Path: "a b.qcow2"}, `Failed to get shared "resize" lock`},
	} {
		if got := test.err.Sentence(); got != test.text {
			t.Errorf("%q, want %q", got, test.text)
		}
		if got := test.err.Hint(); got != "Is another process using the image [a b.qcow2]?" {
			t.Errorf("hint %q", got)
		}
		if !errors.Is(&test.err, block.ErrLocked) {
			t.Errorf("%v does not match block.ErrLocked", &test.err)
		}
	}
}
