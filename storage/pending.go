package storage

// This file is output that appears under its name only when it is complete. It
// is written to a hidden file in the same directory, which is then renamed: at
// any instant, the name stands for the old content or for all of the new.

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// PendingSuffix is what the names of unfinished files end with. After a crash
// they may be deleted.
const PendingSuffix = ".diskimg-unfinished"

// Pending is a file on its way to its name. It is for one goroutine.
type Pending struct {
	path    string // as the caller named it
	target  string // the name it gets, no symbolic link
	temp    string // the name it has; empty if it is written in place
	file    *File
	old     *File // what is there now, nil if nothing
	settled bool
}

// NewPending begins a new file at path. What a symbolic link at path points to
// is what will be replaced; other hard links to it keep the old content. An
// existing file passes on its permissions and, where possible, its owner. It
// must be writable and is locked until the end: if another process uses it,
// the error matches block.ErrLocked.
//
// Devices, files in /dev/fd, mount points and files in directories in which no
// file can be made are written in place, see InPlace; a regular file is cut to
// length 0 at once then.
func NewPending(path string) (*Pending, error) {
	p := &Pending{path: path}
	if err := p.open(); err != nil {
		p.Discard()
		return nil, wrap("create", path, bare(err))
	}
	return p, nil
}

func (p *Pending) open() error {
	target, special, err := resolve(p.path)
	if err != nil {
		return err
	}
	p.target = target
	st, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p.create(nil)
	case err != nil:
		return err
	case special || !st.Mode().IsRegular() || isMountPoint(target):
		return p.openInPlace()
	}
	if p.old, err = openFile(target, p.path, FileOptions{Writable: true}); err != nil {
		return err
	}
	if err := p.old.lockForReplacing(); err != nil {
		return err
	}
	err = p.create(st)
	if errors.Is(err, fs.ErrPermission) {
		return p.openInPlace()
	}
	return err
}

// bare returns what an fs.PathError wraps.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// openInPlace opens the target itself.
func (p *Pending) openInPlace() (err error) {
	if p.old != nil {
		// Before the target is opened again: these locks exclude us too.
		p.old.Close()
		p.old = nil
	}
	p.file, err = openFile(p.target, p.path, FileOptions{Writable: true, Truncate: true, sink: true})
	return err
}

// create makes the hidden file, as open to others as old is.
func (p *Pending) create(old fs.FileInfo) error {
	mode := fs.FileMode(0o644)
	if old != nil {
		mode = 0o600
	}
	for {
		temp := p.tempName()
		f, err := openFile(temp, p.path, FileOptions{Create: true, Exclusive: true, Mode: mode})
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("making a file in %s: %w", filepath.Dir(p.target), bare(err))
		}
		p.temp, p.file = temp, f
		if old != nil {
			inherit(f.f, old)
		}
		return nil
	}
}

// tempName keeps within the 255 bytes that names have in most file systems.
func (p *Pending) tempName() string {
	dir, base := filepath.Split(p.target)
	base = base[:min(len(base), 200)]
	return fmt.Sprintf("%s.%s.%016x%s", dir, strings.ToValidUTF8(base, ""), rand.Uint64(), PendingSuffix)
}

// resolve follows symbolic links, the last of which may lead to nothing. It
// reports as special what stands for an open file of a process.
func resolve(path string) (target string, special bool, err error) {
	for range 40 {
		if path, err = realDir(path); err != nil {
			return "", false, err
		}
		if isOpenFile(path) {
			return path, true, nil
		}
		link, err := os.Readlink(path)
		if err != nil {
			return path, false, nil // not a link
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", false, errors.New("too many levels of symbolic links")
}

// realDir makes path absolute, without a symbolic link in its directory.
func realDir(path string) (string, error) {
	if path == "" || os.IsPathSeparator(path[len(path)-1]) {
		return "", block.Errorf(ErrNotRegular, "is not the name of a file")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", bare(err)
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// isOpenFile knows the directories that hold the open files of a process.
func isOpenFile(path string) bool {
	dir := filepath.ToSlash(filepath.Dir(path))
	return dir == "/dev/fd" || strings.HasPrefix(dir, "/proc/") && strings.HasSuffix(dir, "/fd")
}

// File returns the file to write. It belongs to the caller, who may close it
// before or after Commit. Messages call it by its final name.
func (p *Pending) File() *File { return p.file }

// InPlace reports whether the target itself is written, so that Discard can't
// bring back what it held.
func (p *Pending) InPlace() bool { return p.temp == "" }

// Commit gives the file its name. With sync, file and name survive a power cut
// when it returns; without, one or the other may be lost, but a name is never
// seen by others without its content. A file that has come into being under
// the name since NewPending is not replaced. After an error the file has not
// got its name, except when that alone could not be made durable.
func (p *Pending) Commit(sync bool) error {
	if p.settled {
		return wrap("create", p.path, fs.ErrClosed)
	}
	if sync {
		if err := p.sync(); err != nil {
			return err
		}
	}
	if p.temp == "" {
		p.settle()
		return nil
	}
	if oldMustClose && p.old != nil {
		p.old.Close()
	}
	if err := rename(p.temp, p.target, p.old != nil); err != nil {
		return wrap("create", p.path, bare(err))
	}
	p.settle()
	if !sync {
		return nil
	}
	if err := syncDir(filepath.Dir(p.target)); err != nil {
		return wrap("sync", filepath.Dir(p.target), bare(err))
	}
	return nil
}

// sync makes the file durable, also if its user has closed it.
func (p *Pending) sync() error {
	err := p.file.Sync()
	if !errors.Is(err, fs.ErrClosed) {
		return err
	}
	f, err := openFile(cmp.Or(p.temp, p.target), p.path, FileOptions{Writable: true, sink: true})
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// settle ends the matter and lets go of what was replaced.
func (p *Pending) settle() {
	p.settled = true
	if p.old != nil {
		p.old.Close()
	}
}

// Discard closes the file and removes it. After Commit it does nothing, so
// that it can be deferred.
func (p *Pending) Discard() error {
	if p.settled {
		return nil
	}
	p.settle()
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	if p.temp != "" {
		err = errors.Join(err, os.Remove(p.temp))
	}
	return err
}
