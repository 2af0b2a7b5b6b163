package storage

// This file is the locks on images. What a user of an image does and what it
// puts up with from others are sets of permissions, as in QEMU, whose locks
// on Linux these are: each permission is a byte of the file. What others do
// must be within what this user shares, and the reverse, or Lock fails; it
// never waits.

import (
	"errors"
	"fmt"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// Perm is a set of permissions.
type Perm uint

const (
	// ConsistentRead is to read, and rely on what is read.
	ConsistentRead Perm = 1 << iota
	// Write is to change what the image holds.
	Write
	// WriteUnchanged is to write what leaves the content as it is.
	WriteUnchanged
	// Resize is to change the length.
	Resize
)

const (
	// AllPerms are all permissions.
	AllPerms = ConsistentRead | Write | WriteUnchanged | Resize

	permCount = 4
	// unresized and readable are what is shared by who can't bear a new
	// length, and by who can't bear any change.
	unresized = AllPerms &^ Resize
	readable  = AllPerms &^ (Write | Resize)
)

var permNames = [permCount]string{"consistent read", "write", "write unchanged", "resize"}

// String names the permissions as QEMU's messages do.
func (p Perm) String() string {
	var names []string
	for i, name := range permNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// LockMode is what a user of an image does, and what others may do meanwhile.
type LockMode struct{ Use, Share Perm }

// What QEMU's programs hold on a file while they use it.
var (
	// LockReader is for reading an image of a format, and any image that is
	// converted from or that lies below another.
	LockReader = LockMode{ConsistentRead, readable}
	// LockWriter is for writing an image of a format.
	LockWriter = LockMode{ConsistentRead | Write | Resize, readable}
	// LockInfo is for reading the metadata of an image, not its content.
	LockInfo = LockMode{0, readable}
	// LockForceShared is for reading an image although others may write it.
	LockForceShared = LockMode{ConsistentRead, AllPerms}
	// LockNone takes part in no exclusion at all.
	LockNone = LockMode{0, AllPerms}
	// LockRawWriter is for writing a raw image.
	LockRawWriter = LockMode{ConsistentRead | Write, AllPerms}
	// LockRawResizer is for changing the length of a raw image.
	LockRawResizer = LockMode{ConsistentRead | Write | Resize, AllPerms}
	// LockRawServer is for serving a raw image for writing.
	LockRawServer = LockMode{ConsistentRead | Write, unresized}
	// LockRawReadServer is for serving a raw image for reading.
	LockRawReadServer = LockMode{ConsistentRead, unresized}
	// LockCreator is for making a new image in a file.
	LockCreator = LockMode{Write | Resize, unresized}
)

// LockError says which permission could not be had. It matches block.ErrLocked.
type LockError struct {
	Perm   Perm   // one permission
	Shared bool   // another process does it; otherwise another does not allow it
	Path   string // the file
}

// Sentence is what QEMU's programs say first.
func (e *LockError) Sentence() string {
	if e.Shared {
		return fmt.Sprintf("Failed to get shared %q lock", e.Perm)
	}
	return fmt.Sprintf("Failed to get %q lock", e.Perm)
}

// Hint is what QEMU's programs say on the next line.
func (e *LockError) Hint() string {
	return fmt.Sprintf("Is another process using the image [%s]?", e.Path)
}

func (e *LockError) Error() string { return e.Sentence() + ". " + e.Hint() }

// Is makes a LockError match block.ErrLocked.
func (e *LockError) Is(target error) bool { return target == block.ErrLocked }

// Lock announces that this File is used for use and that others may do what is
// in share at the same time. It replaces what an earlier Lock announced. If it
// fails, with a *LockError when another process is in the way, what was
// announced before holds on.
//
// On Linux the locks are QEMU's. Elsewhere they are kept among programs that
// use this package, and coarser: one that writes excludes all others.
func (f *File) Lock(use, share Perm) error {
	f.lockMu.Lock()
	defer f.lockMu.Unlock()
	mode := LockMode{use & AllPerms, share & AllPerms}
	if f.kind != sink {
		if err := f.changeLock(f.lock, mode); err != nil {
			return err
		}
	}
	f.lock = mode
	return nil
}

// lockForReplacing is for who throws away what the file holds: nobody may be
// writing it, and nobody rely on it. Where the file system has no locks there
// is nobody to be found.
func (f *File) lockForReplacing() error {
	if err := f.Lock(Write|Resize, readable); errors.Is(err, block.ErrLocked) {
		return err
	}
	return nil
}

// Unlock gives up all locks. To close the File does that as well.
func (f *File) Unlock() error { return f.Lock(LockNone.Use, LockNone.Share) }

// Locked returns what was last announced.
func (f *File) Locked() LockMode {
	f.lockMu.Lock()
	defer f.lockMu.Unlock()
	return f.lock
}
