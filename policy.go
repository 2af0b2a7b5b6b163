package diskimg

// This file is the policy on what an image may refer to: which names lead to a
// file, and that chains of images end. Nothing that an image names is opened
// but through here.

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/storage"
)

// DefaultMaxDepth is how many images a backing chain may have.
const DefaultMaxDepth = 64

// Strict is the policy for images from anybody, and the default. What an image
// refers to must be a plain relative name that stays within the directory of
// that image, also if symbolic links are followed, and a backing file must have
// its format stated. Protocol prefixes such as nbd: or json: are refused.
type Strict struct {
	MaxDepth int // images in a chain; 0 is DefaultMaxDepth
	// Passphrase is asked for those of encrypted images where the options of
	// Open have none.
	Passphrase Passphrase
}

// Permissive is the policy of the QEMU tools, for images from people one
// trusts: whoever wrote the image chooses files of this machine that are read.
// Any path is allowed, relative ones start at the image that names them, those
// of data files in the current directory if there is such a file; file: and
// json: are understood; a format that is not stated is probed.
type Permissive struct {
	MaxDepth int // images in a chain; 0 is DefaultMaxDepth
	// Passphrase is asked for those of encrypted images where the options of
	// Open have none.
	Passphrase Passphrase
}

// rules decide what a name leads to.
type rules interface {
	// find returns where ref leads to and how to open it.
	find(ref block.Ref) (Target, opener, error)
	maxDepth() int
	ask() Passphrase
}

// opener opens the file of a target.
type opener func(path string, writable bool) (*storage.File, error)

// OpenImage implements block.Policy.
func (s Strict) OpenImage(ref block.Ref) (*Image, error) { return startChain(s, ref).OpenImage(ref) }

// OpenFile implements block.Policy.
func (s Strict) OpenFile(ref block.Ref) (block.File, error) { return startChain(s, ref).OpenFile(ref) }

func (s Strict) maxDepth() int { return s.MaxDepth }

func (s Strict) ask() Passphrase { return s.Passphrase }

func (s Strict) find(ref block.Ref) (Target, opener, error) {
	protocol, _ := cutProtocol(ref.Name)
	switch {
	case ref.From == "":
		return Target{}, nil, refused(ref, "an image without a path may not refer to files")
	case protocol != "":
		return Target{}, nil, refused(ref, "names that begin with \""+protocol+":\" are not allowed here")
	case !filepath.IsLocal(filepath.FromSlash(ref.Name)):
		return Target{}, nil, refused(ref, "only files in the directory of the image and below are allowed here")
	case ref.Role == block.RoleBacking && ref.Format == "":
		return Target{}, nil, refused(ref, "it does not state the format of that, and guessing is not allowed here")
	}
	t := Target{Path: BackingPath(ref.From, ref.Name), Format: ref.Format}
	return t, func(_ string, writable bool) (*storage.File, error) {
		root, err := os.OpenRoot(filepath.Dir(ref.From))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := storage.OpenIn(root, filepath.FromSlash(ref.Name), writable)
		if err != nil && strings.HasSuffix(err.Error(), "path escapes from parent") {
			return nil, refused(ref, "which leads out of the directory of the image")
		}
		return f, err
	}, nil
}

func refused(ref block.Ref, why string) error {
	return block.Errorf(block.ErrRefused, "%s names %s %q: %s", ref.From, ref.Role, ref.Name, why)
}

// OpenImage implements block.Policy.
func (p Permissive) OpenImage(ref block.Ref) (*Image, error) {
	return startChain(p, ref).OpenImage(ref)
}

// OpenFile implements block.Policy.
func (p Permissive) OpenFile(ref block.Ref) (block.File, error) {
	return startChain(p, ref).OpenFile(ref)
}

func (p Permissive) maxDepth() int { return p.MaxDepth }

func (p Permissive) ask() Passphrase { return p.Passphrase }

func (p Permissive) find(ref block.Ref) (Target, opener, error) {
	t, err := ParseTarget(p.path(ref))
	if err != nil {
		return t, nil, err
	}
	if ref.Format != "" {
		t.Format = ref.Format
	}
	return t, openLocal, nil
}

// path returns what a name stands for. A data file is looked for in the current
// directory first, which is where the QEMU tools make it and look for it, and
// then beside the image.
func (p Permissive) path(ref block.Ref) string {
	if ref.Role == block.RoleData {
		if _, err := os.Stat(ref.Name); err == nil {
			return ref.Name
		}
	}
	return BackingPath(ref.From, ref.Name)
}

func openLocal(path string, writable bool) (*storage.File, error) {
	return storage.OpenFile(path, &storage.FileOptions{Writable: writable})
}

// chain is the policy for one image of a chain. It knows the files above.
type chain struct {
	rules   rules
	formats []Format
	share   bool // others may write the images meanwhile
	above   []fileID
	// The image with so many above it is opened for writing, if not 0.
	writable int
	noSync   bool // and waits for nothing to be on disk

	passphrase Passphrase
	noIO       bool // nothing will be read
	// next says more of the backing image than its name does; nil for nothing.
	next      *Target
	scattered bool // the image has no directory
	throttle  func(name string) (*ThrottleGroup, error)
	headsOnly bool // what images refer to stays closed
}

type fileID struct{ dev, ino uint64 }

func idOf(f *storage.File) fileID {
	dev, ino := f.ID()
	return fileID{dev, ino}
}

// startChain begins a chain at the image that ref comes from, if it has a file.
func startChain(r rules, ref block.Ref) *chain {
	c := &chain{rules: r, formats: Formats, passphrase: r.ask()}
	if f, err := openLocal(ref.From, false); err == nil {
		c.above = append(c.above, idOf(f))
		f.Close()
	}
	return c
}

func (c *chain) limit() int {
	if n := c.rules.maxDepth(); n > 0 {
		return n
	}
	return DefaultMaxDepth
}

// OpenImage implements block.Policy.
func (c *chain) OpenImage(ref block.Ref) (*Image, error) {
	img, err := c.openImage(ref)
	if err != nil && !errors.Is(err, errScattered) {
		return nil, &sentence.Error{Text: "Could not open backing file: " + sentence.Of(err), Err: err}
	}
	return img, err
}

func (c *chain) openImage(ref block.Ref) (*Image, error) {
	if len(c.above) >= c.limit() {
		return nil, block.Errorf(block.ErrRefused, "the chain of backing files is longer than %d images", c.limit())
	}
	t, open, err := c.findImage(ref)
	if err != nil {
		return nil, err
	}
	if c.next != nil {
		t = c.next.over(t)
	}
	o := &OpenOptions{Format: t.Format, HeadOnly: true}
	if c.writable > 0 && len(c.above) == c.writable {
		o.Writable, o.NoSync = true, c.noSync
	}
	return c.open(t, open, o)
}

// findImage is rules.find, with what is said besides.
func (c *chain) findImage(ref block.Ref) (Target, opener, error) {
	if c.next != nil && c.next.placed() {
		return *c.next, openLocal, nil
	}
	t, open, err := c.find(ref)
	if err == nil && c.next != nil {
		t = c.next.over(t)
	}
	return t, open, err
}

// find is rules.find for an image that need not have a directory.
func (c *chain) find(ref block.Ref) (Target, opener, error) {
	if c.scattered && needsDirectory(ref.Name) {
		return Target{}, nil, errScattered
	}
	return c.rules.find(ref)
}

// OpenFile implements block.Policy.
func (c *chain) OpenFile(ref block.Ref) (block.File, error) {
	t, open, err := c.find(ref)
	if err != nil {
		return nil, err
	}
	s, err := c.source(t, open, &OpenOptions{Writable: ref.Writable})
	if err != nil {
		return nil, err
	}
	if err := c.mayUse(s.local, t.Path, lockDataFile(ref.Writable, c.share)); err != nil {
		s.file.Close()
		return nil, err
	}
	return s.file, nil
}

// mayUse makes sure that f is not one of the files above and locks it. It may be
// nil: what is no file of this machine has nothing to lock.
func (c *chain) mayUse(f *storage.File, path string, lock storage.LockMode) error {
	if f == nil {
		return nil
	}
	if slices.Contains(c.above, idOf(f)) {
		return block.Corruptf("Backing file '%s' creates an infinite loop.", path)
	}
	return fileError(path, f.Lock(lock.Use, lock.Share))
}

// below returns the policy for what the image of t, in f, refers to.
func (c *chain) below(f *storage.File, t Target) *chain {
	next := *c
	next.next, next.scattered = t.Backing, t.scattered()
	var id fileID // of none, which counts for the depth
	if f != nil {
		id = idOf(f)
	}
	next.above = append(slices.Clone(c.above), id)
	return &next
}
