package storage

// This file opens files that must lie within a directory.

import (
	"os"
	"path/filepath"
	"syscall"
)

// OpenIn is OpenFile for a name relative to root that must not lead out of it:
// not by "..", not as an absolute name, not through a symbolic link.
func OpenIn(root *os.Root, name string, writable bool) (*File, error) {
	shown := filepath.Join(root.Name(), name)
	// Before opening: to open a device can be to do something.
	st, err := root.Stat(name)
	if err == nil {
		_, err = kindOf(st.Mode(), false)
	}
	if err != nil {
		return nil, openError(shown, err)
	}
	flags := os.O_RDONLY | syscall.O_NONBLOCK
	if writable {
		flags = os.O_RDWR | syscall.O_NONBLOCK
	}
	osf, err := root.OpenFile(name, flags, 0)
	if err != nil {
		return nil, openError(shown, err)
	}
	f, err := newFile(osf, shown, FileOptions{Writable: writable})
	if err != nil {
		osf.Close()
		return nil, openError(shown, err)
	}
	return f, nil
}
