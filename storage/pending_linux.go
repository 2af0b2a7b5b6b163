package storage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// rename gives from the name to, which only an existing file may have if
// replace is set.
func rename(from, to string, replace bool) error {
	if replace {
		return os.Rename(from, to)
	}
	err := retry(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return os.Rename(from, to)
	}
	return err
}

// isMountPoint reports whether something is mounted on path, as containers do
// with single files. Nothing can be renamed to there.
func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
