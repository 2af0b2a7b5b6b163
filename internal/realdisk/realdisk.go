// Package realdisk makes disks with real content for tests and measurements:
// ext4 file systems filled with the files of this machine.
package realdisk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// fileBlock is the block of the file systems that are made. Each file takes up
// whole ones, and there is an inode for every two of them.
const fileBlock = 4 << 10

// SizeFor returns how large a file system has to be that takes all files below
// dir, at least least bytes.
func SizeFor(dir string, least int64) (int64, error) {
	s, err := choose(dir, 1<<62)
	if err != nil {
		return 0, err
	}
	return max(least, s.bytes/4*5+16<<20) &^ (fileBlock - 1), nil
}

// Make puts an ext4 file system of size bytes into a file at path, with as many
// of the files below dir as fit into eight tenths of it and as this user may
// read; the order is that of their names. A file that has the name already is
// replaced when the new one is complete.
func Make(path, dir string, size int64) error {
	s, err := choose(dir, size/10*8)
	if err != nil {
		return err
	}
	if s.all {
		return mke2fs(path, dir, size)
	}
	stage, err := os.MkdirTemp(filepath.Dir(path), "stage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	if err := s.copyTo(stage); err != nil {
		return err
	}
	return mke2fs(path, stage, size)
}

// mke2fs makes the file system under a name of its own first.
func mke2fs(path, dir string, size int64) error {
	program, err := lookUp("mke2fs")
	if err != nil {
		return err
	}
	unfinished := path + ".unfinished"
	defer os.Remove(unfinished)
	out, err := exec.Command(program, "-q", "-F", "-t", "ext4", "-b", fmt.Sprint(fileBlock), "-i", fmt.Sprint(2*fileBlock), "-m", "0",
		"-d", dir, unfinished, fmt.Sprintf("%dk", size>>10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs -d %s: %w\n%s", dir, err, out)
	}
	return os.Rename(unfinished, path)
}

// lookUp finds a program also where only root has it in the path.
func lookUp(program string) (string, error) {
	path, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, program))
	}
	if err != nil {
		return "", fmt.Errorf("%s is not installed; install it with: apt-get install e2fsprogs", program)
	}
	return path, nil
}

// selection is what is taken of a folder.
type selection struct {
	dir   string
	names []string // folders, files and symbolic links, relative to dir, parents first
	bytes int64    // in whole blocks
	all   bool     // everything below dir is in it
}

// choose takes from dir what is readable, up to limit bytes.
func choose(dir string, limit int64) (*selection, error) {
	s := &selection{dir: dir, all: true}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			s.all = false
			return nil
		}
		if err != nil || path == dir {
			return err
		}
		return s.consider(path, d, limit)
	})
	if err == nil && len(s.names) == 0 {
		err = fmt.Errorf("%s: no file that can be read", dir)
	}
	return s, err
}

func (s *selection) consider(path string, d fs.DirEntry, limit int64) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	n := (info.Size() + 2*fileBlock - 1) &^ (fileBlock - 1) // the data, and a block for all else
	if s.bytes+n > limit || !takes(path, info.Mode()) {
		s.all = false
		return nil
	}
	name, err := filepath.Rel(s.dir, path)
	s.names, s.bytes = append(s.names, name), s.bytes+n
	return err
}

// takes reports whether a file can be taken: regular ones only if they can be
// read, no devices, sockets and pipes.
func takes(path string, mode fs.FileMode) bool {
	if mode.IsRegular() {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		f.Close()
	}
	return mode.IsRegular() || mode.IsDir() || mode.Type() == fs.ModeSymlink
}

// copyTo copies the selection to a folder.
func (s *selection) copyTo(to string) error {
	for _, name := range s.names {
		if err := copyOne(filepath.Join(s.dir, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyOne(from, to string) error {
	// The folder that it lies in may have been beyond the limit by itself.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(from)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return os.MkdirAll(to, 0o755)
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
