//go:build unix

package storage_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/storage"
	"golang.org/x/sys/unix"
)

// What is no image is refused by what it is, and without waiting for it.
func TestOpenSpecial(t *testing.T) {
	dir := t.TempDir()
	fifo, socket := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	must(t, unix.Mkfifo(fifo, 0o600))
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	loop := filepath.Join(dir, "loop")
	must(t, os.Symlink(loop, loop))

	for path, text := range map[string]string{
		fifo:        "is a pipe (FIFO), not a regular file or block device",
		socket:      "is a socket, not a regular file or block device",
		"/dev/null": "is a character device",
		"/dev/tty":  "is a character device",
	} {
		for _, o := range []storage.FileOptions{{}, {Writable: true}, {Create: true, Truncate: true}} {
			began := time.Now()
			_, err := storage.OpenFile(path, &o)
			if !errors.Is(err, storage.ErrNotRegular) || !strings.HasPrefix(err.Error(), "open "+path+": "+text) {
				t.Errorf("%s, %+v: %v", path, o, err)
			}
			if time.Since(began) > 5*time.Second {
				t.Errorf("%s: opening waited", path)
			}
		}
	}
	if _, err := storage.OpenFile(loop, nil); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

func TestNewFileMode(t *testing.T) {
	umask := unix.Umask(0o022)
	defer unix.Umask(umask)
	for mode, want := range map[os.FileMode]os.FileMode{0: 0o644, 0o600: 0o600, 0o666: 0o644} {
		path := newPath(t)
		open(t, path, &storage.FileOptions{Create: true, Mode: mode})
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("mode %v made %v, %v; want %v", mode, st.Mode(), err, want)
		}
	}
}
