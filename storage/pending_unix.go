//go:build unix

package storage

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const oldMustClose = false

// inherit gives f the owner and the permissions of old, as far as the process
// may and the file system can. If f can't be of old's group, its group may do
// no more than everybody.
func inherit(f *os.File, old fs.FileInfo) {
	s := old.Sys().(*syscall.Stat_t)
	mode := old.Mode().Perm()
	if f.Chown(int(s.Uid), int(s.Gid)) != nil && f.Chown(-1, int(s.Gid)) != nil {
		mode = mode&^0o070 | mode&0o007<<3
	}
	_ = f.Chmod(mode)
}

// syncDir makes the names in dir durable, where the file system has a way to.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
