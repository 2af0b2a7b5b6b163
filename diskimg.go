package diskimg

// This file opens images: what format a file has, who else may use it, and what
// it may refer to.

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/storage"
)

// Image is an open disk image.
type Image = block.Image

// OpenOptions say how to open an image. The zero value opens it read-only,
// guesses the format of the image itself and trusts nothing in it.
type OpenOptions struct {
	// Format is the name of the format. If it is empty the file is probed,
	// which nobody should do who writes to it: a guest chooses what its disk
	// begins with. A probed image that is raw refuses writes that would make
	// it look like another format.
	Format string
	// HeadOnly probes as QEMU does, by the beginning of the file. Otherwise a
	// fixed VHD is known by its end too. That may as well be what a guest has
	// written to the end of a raw disk, so it is not opened for writing. Images
	// that another one refers to are always probed as QEMU does.
	HeadOnly bool
	Writable bool
	// Policy opens what the image refers to; nil is Strict{}.
	Policy block.Policy
	// WritableBase, if not 0, opens one more image of the chain for writing,
	// to commit into it: 1 for the backing image, 2 for the one below that.
	WritableBase int
	// Passphrase is asked for those of encrypted images; nil has none.
	Passphrase Passphrase
	// NoBacking leaves the backing image closed: what it holds reads as zero.
	NoBacking bool
	// NoIO opens an image to be described, not read: encrypted ones need no
	// passphrase then. Not with Writable.
	NoIO bool
	// ForceShare opens the image although another process writes it, with no
	// promise on what is read. Not with Writable.
	ForceShare bool
	// LiveRaw is ForceShare for the case that the image turns out to be raw.
	LiveRaw bool
	// NoSync has Flush and Close wait for nothing to be on disk.
	NoSync bool
	// Repair opens an image to be repaired by block.Checker, even if it was not
	// closed or is marked corrupt, and for nothing else to write to it. With
	// Writable.
	Repair bool
	// Snapshot has writes go to memory, to be forgotten when the image is
	// closed; the image itself is opened for reading.
	Snapshot bool
	// CopyOnRead keeps in the image what is read from images below it, so that
	// it need not be read from there again. With Writable.
	CopyOnRead bool
	// IgnoreDiscards has what is discarded stay as it is, and what is written
	// over keep its space in the file. A target that says something else counts.
	IgnoreDiscards bool
	// ThrottleGroup finds the limits that a target names; nil knows none.
	ThrottleGroup func(name string) (*ThrottleGroup, error)
	// Formats to know of; nil is the package's table.
	Formats []Format
}

// Open opens the image at path, with all that it refers to and the policy
// allows. Errors match the sentinels of package block and those of io/fs.
// The caller closes the image.
func Open(path string, o *OpenOptions) (*Image, error) { return Target{Path: path}.Open(o) }

// Open opens the image that t stands for.
func (t Target) Open(o *OpenOptions) (*Image, error) {
	var p OpenOptions
	if o != nil {
		p = *o
	}
	if p.Format == "" {
		p.Format = t.Format
	}
	p.ForceShare = p.ForceShare || t.ForceShare
	switch {
	case p.Writable && p.ForceShare:
		return nil, openError(t.Path, block.Invalidf("force-share=on can only be used with read-only images"))
	case p.Writable && t.ReadOnly:
		return nil, openError(t.Path, block.Errorf(block.ErrReadOnly, "Block node is read-only"))
	case p.CopyOnRead && !p.Writable:
		return nil, openError(t.Path, block.Invalidf("Can't use copy-on-read on read-only device"))
	case t.CopyOnRead && !p.Writable:
		return nil, openError(t.Path, block.Errorf(block.ErrReadOnly, "Block node is read-only"))
	}
	if p.Policy == nil {
		p.Policy = Strict{}
	}
	c := &chain{formats: p.Formats, share: p.ForceShare, writable: p.WritableBase, noSync: p.NoSync, passphrase: p.Passphrase, noIO: p.NoIO, throttle: p.ThrottleGroup}
	if c.formats == nil {
		c.formats = Formats
	}
	c.rules, _ = p.Policy.(rules)
	if c.passphrase == nil && c.rules != nil {
		c.passphrase = c.rules.ask()
	}
	p.Writable = p.Writable && !p.Snapshot
	img, err := c.open(t, openLocal, &p)
	if err != nil || !p.Snapshot {
		return img, err
	}
	return temporary(img)
}

// open opens the image of a target as the next one of the chain.
func (c *chain) open(t Target, open opener, o *OpenOptions) (*Image, error) {
	img, _, err := c.openWithFile(t, open, o)
	return img, err
}

// openWithFile is open, which returns the file of the image as well.
func (c *chain) openWithFile(t Target, open opener, o *OpenOptions) (*Image, block.File, error) {
	o.ForceShare = c.share
	if err := c.mayName(o.Format); err != nil {
		return nil, nil, openError(t.Path, err)
	}
	s, err := c.source(t, open, o)
	if err != nil {
		return nil, nil, openError(t.Path, err)
	}
	img, err := c.openIn(s, t, o)
	if err != nil {
		s.file.Close()
		return nil, nil, openError(t.Path, err)
	}
	if o.CopyOnRead || t.CopyOnRead {
		img.CopyOnRead()
	}
	if t.ignoresDiscards(o) {
		img.IgnoreDiscards()
	}
	return img, s.file, nil
}

func (c *chain) openIn(s source, t Target, o *OpenOptions) (*Image, error) {
	format, by, err := c.formatOf(s.file, o.Format, o.HeadOnly)
	if err != nil {
		return nil, err
	}
	if by == byEnd && o.Writable {
		return nil, block.Errorf(block.ErrRefused, "the file ends like an image of the format %s, and so may a raw disk whose guest has written that; name the format, %[1]s or raw, to write to it",
			format.Name)
	}
	if err := c.mayUse(s.local, t.Path, lockImage(format, o)); err != nil {
		return nil, err
	}
	p := FormatOptions{
		Path: t.Path, Writable: o.Writable, NoBacking: o.NoBacking || t.NoBacking, NoSync: o.NoSync, Repair: o.Repair, Policy: o.Policy,
		Offset: t.Offset, Size: t.Size, EncryptFormat: t.EncryptFormat, NoIO: c.noIO,
		Passphrase: c.passphrase.of(t.Path, format.Name, t.KeySecret),
	}
	p.IgnoreDiscards = t.ignoresDiscards(o)
	if p.Settings, err = format.settings(t.Settings); err != nil {
		return nil, err
	}
	if c.rules != nil {
		p.Policy = c.below(s.local, t)
	}
	if by != named {
		p.LooksLike = func(head, end []byte, size int64) string {
			name, by := guess(c.formats, head, end, size)
			if by == byEnd && o.HeadOnly {
				return ""
			}
			return name
		}
	}
	if err := c.openNamed(&p, t, s.file, format, o); err != nil {
		return nil, err
	}
	img, err := format.Open(s.file, p)
	if err != nil {
		p.closeNamed()
	}
	return img, err
}

// openNamed opens what the target, and not the image, says to lie below it and
// to hold its data.
func (c *chain) openNamed(p *FormatOptions, t Target, f block.File, format *Format, o *OpenOptions) error {
	if t.Backing != nil && t.Backing.placed() && format.TakesBacking {
		b, err := c.namedBacking(p, t, f, format)
		if err != nil {
			return err
		}
		p.Backing = b
	}
	if t.Data != nil {
		data, err := c.dataSource(*t.Data, o)
		if err != nil {
			p.closeNamed()
			return err
		}
		p.Data = data
	}
	return nil
}

// namedBacking opens the image that the target says to lie below it. If it does
// not say its format, the image does. Nothing at all is no replacement for a file.
func (c *chain) namedBacking(p *FormatOptions, t Target, f block.File, format *Format) (*Image, error) {
	below := *t.Backing
	if below.Format == "" || below.Null != nil {
		d, err := format.Inspect(f)
		if err != nil {
			return nil, err
		}
		if below.Null != nil && d.BackingName != "" && d.BackingName != below.Path {
			return nil, block.Invalidf("Could not open backing file: The only allowed filename for this driver is '%s'", below.Path)
		}
		below.Format = cmp.Or(below.Format, d.BackingFormat)
	}
	policy, _ := p.Policy.(*chain)
	if policy == nil {
		policy = c
	}
	named := *policy
	named.next = &below
	return named.OpenImage(block.Ref{Role: block.RoleBacking, From: t.Path})
}

func (p *FormatOptions) closeNamed() {
	if p.Backing != nil {
		p.Backing.Close()
	}
	if p.Data != nil {
		p.Data.Close()
	}
}

// knownBy is how the format of a file came to be known.
type knownBy uint8

const (
	named  knownBy = iota // it was given
	byHead                // by the beginning of the file, which may look like none
	byEnd                 // by its last sector
)

// formatOf returns the row of the named format or, if none is named, of the one
// that the file looks like, which is raw if it looks like none.
func (c *chain) formatOf(f block.File, name string, headOnly bool) (format *Format, by knownBy, err error) {
	if name == "" {
		if name, by, err = c.probe(f, headOnly); err != nil {
			return nil, by, err
		}
	}
	if name == "" || isProtocol(name) {
		name = rawName
	}
	format, err = findFormat(c.formats, name)
	return format, by, err
}

// mayName refuses the name of a format that no program has, "" being none.
func (c *chain) mayName(format string) error {
	if format == "" || isProtocol(format) || slices.Contains(foreignFormats, format) {
		return nil
	}
	_, err := findFormat(c.formats, format)
	return err
}

// probeSize is how much of the beginning of a file is looked at to tell its
// format, and endSize how much of its end.
const (
	probeSize = 4 << 10
	endSize   = 512
)

// probe reads what the format of a file is told by.
func (c *chain) probe(f block.File, headOnly bool) (string, knownBy, error) {
	name, err := Probe(f, c.formats...)
	if name != "" || err != nil || headOnly {
		return name, byHead, err
	}
	size, err := f.Size()
	if err != nil || size < endSize {
		return "", byHead, err
	}
	end := make([]byte, endSize)
	if err := block.ReadFull(f, end, size-endSize); err != nil {
		return "", byHead, err
	}
	name, by := guess(c.formats, nil, end, size)
	return name, by, nil
}

// Probe returns the name of the format that r begins like, of those given or,
// without any, of all that are known; or that of one that only others can open,
// such as vmdk. It is empty if it looks like none of them: then it may be a raw
// disk. What a guest can write is whatever the guest
// wants it to look like.
func Probe(r io.ReaderAt, formats ...Format) (string, error) {
	head := make([]byte, probeSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if formats == nil {
		formats = Formats
	}
	return probe(formats, head[:n]), nil
}

// guess returns what a file of that size is taken for, with that beginning and
// that end.
func guess(formats []Format, head, end []byte, size int64) (string, knownBy) {
	if name := probe(formats, head); name != "" {
		return name, byHead
	}
	for _, f := range formats {
		if f.ProbeEnd != nil && f.ProbeEnd(end, size) {
			return f.Name, byEnd
		}
	}
	return "", byHead
}

func probe(formats []Format, head []byte) string {
	name, best := "", 0
	for _, f := range formats {
		if f.Probe == nil {
			continue
		}
		if score := f.Probe(head); score > best {
			name, best = f.Name, score
		}
	}
	if name == "" {
		name = probeForeign(head)
	}
	return name
}

// openFile opens the file of an image.
func openFile(path string, writable bool, open opener) (*storage.File, error) {
	if path == "" {
		return nil, block.Invalidf("The 'file' block driver requires a file name")
	}
	f, err := open(path, writable)
	if info, serr := os.Stat(path); writable && errors.Is(err, storage.ErrNotRegular) && serr == nil && info.IsDir() {
		return nil, &sentence.Error{Text: "Could not open '" + path + "': Is a directory", Err: err}
	}
	return f, fileError(path, err)
}

// fileError words an error of a file that holds an image.
func fileError(path string, err error) error {
	var locked *storage.LockError
	switch {
	case err == nil || errors.Is(err, block.ErrRefused):
		return err
	case errors.As(err, &locked):
		return &sentence.Error{Text: locked.Sentence() + "\n" + locked.Hint(), Err: err}
	case errors.Is(err, storage.ErrNotRegular):
		return &sentence.Error{Text: "'file' driver requires '" + path + "' to be a regular file", Err: err}
	}
	return &sentence.Error{Text: "Could not open '" + path + "': " + sentence.Of(err), Err: err}
}

// openError says that err happened when path was opened, unless err does.
func openError(path string, err error) error {
	if e, ok := err.(*block.Error); ok && e.Path == path {
		return err
	}
	return &block.Error{Op: "open", Path: path, Offset: -1, Err: err}
}
