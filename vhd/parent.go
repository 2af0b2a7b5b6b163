package vhd

import (
	"encoding/binary"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/diskimg/diskimg/block"
)

// The parent of a differencing disk: what it is called, and whether what is
// found under such a name is the one.

// Codes of the platforms that a locator can be for. "Virtual Hard Disk Image
// Format Specification", Parent Locator Table.
const (
	relativeWindows = "W2ru" // UTF-16, little endian
	absoluteWindows = "W2ku"
	fileURL         = "MacX" // UTF-8
)

// maxNameBytes bounds a name in a locator.
const maxNameBytes = 64 << 10

// Identity is what a differencing disk knows its parent by.
type Identity struct {
	UUID UUID
	Time time.Time // when the parent was made, to the second
	// Modified is when its file was written to, the zero time if that is not
	// known. It is what other programs have children remember.
	Modified time.Time
	Size     int64 // of its disk, bytes
}

// identified is a layer that can be a parent.
type identified interface{ identity() Identity }

// identify says what a child has to know of the disk in f.
func identify(f block.File, foot *footer, size int64) Identity {
	id := Identity{UUID: foot.uuid, Time: timeOf(foot.timestamp), Size: size}
	if m, ok := f.(block.ModTimer); ok {
		if at, err := m.ModTime(); err == nil {
			id.Modified = at
		}
	}
	return id
}

func (d *disk) identity() Identity {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return identify(d.file, d.foot, d.Size())
}

func (d *fixed) identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return identify(d.file, d.foot, d.Size())
}

// Identify returns what a child of the image in f has to know of it. It reads
// the footers and nothing else.
func Identify(f block.File) (Identity, error) {
	foot, _, size, err := inspect(f)
	if err != nil {
		return Identity{}, block.OpenError("", formatName, err)
	}
	return identify(f, foot, size), nil
}

// parentNames returns the names of the parent, the best first, with slashes.
// Those that can't be read are left out.
func parentNames(f block.File, h *header) []string {
	var names []string
	for _, code := range []string{relativeWindows, absoluteWindows, fileURL} {
		for _, l := range h.locators {
			if l.code != code {
				continue
			}
			if name := readLocator(f, l); name != "" {
				names = append(names, name)
			}
		}
	}
	if h.parentName != "" {
		names = append(names, path.Base(slashes(h.parentName)))
	}
	return names
}

// readLocator reads a name, empty if there is none that could be read.
func readLocator(f block.File, l locator) string {
	if l.length == 0 || l.length > maxNameBytes {
		return ""
	}
	b := make([]byte, l.length)
	if err := readTable(f, "parent locator", b, l.offset); err != nil {
		return ""
	}
	if l.code != fileURL {
		return slashes(decodeName(b, binary.LittleEndian))
	}
	name, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimPrefix(strings.TrimPrefix(name, "file://localhost"), "file://")
}

// slashes turns a name as Windows has it into one for all. What it stands for
// beside the child needs no "./".
func slashes(name string) string {
	return strings.TrimPrefix(strings.ReplaceAll(name, `\`, "/"), "./")
}

// clearParent takes all out of the header that names a parent.
func (h *header) clearParent() {
	h.parentUUID, h.parentTime, h.parentName = UUID{}, 0, ""
	clear(h.raw[atParentName:][:parentNameBytes])
	h.locators = [locatorCount]locator{}
	for i := range h.locators {
		h.locators[i].code = none
	}
}

// setParent names the parent in the header, whose locator leads to at, and
// returns what has to be written there.
func (h *header) setParent(p *Parent, at int64) []byte {
	h.clearParent()
	h.parentUUID, h.parentTime, h.parentName = p.UUID, stampOf(p.Time), path.Base(slashes(p.Name))
	copy(h.raw[atParentName:][:parentNameBytes], encodeName(h.parentName, binary.BigEndian))
	name := windowsName(p.Name)
	b := make([]byte, roundUp(int64(len(name)), sectorSize))
	copy(b, name)
	h.locators[0] = locator{code: relativeWindows, length: uint32(len(name)), space: uint32(len(b)), offset: uint64(at)}
	if path.IsAbs(slashes(p.Name)) {
		h.locators[0].code = absoluteWindows
	}
	return b
}

// windowsName encodes a name for a locator: relative ones begin with ".\".
func windowsName(name string) []byte {
	name = slashes(name)
	if !path.IsAbs(name) && !strings.HasPrefix(name, "../") {
		name = "./" + name
	}
	return encodeName(strings.ReplaceAll(name, "/", `\`), binary.LittleEndian)
}

// openParent opens the parent, unless that is to be left closed.
func (d *disk) openParent(o *OpenOptions) error {
	switch {
	case d.foot.kind != Differencing:
		return nil
	case o.NoBacking:
		d.sealed = block.Invalidf("a differencing disk whose parent is left closed can't be written")
		return nil
	}
	names := parentNames(d.file, d.hdr)
	if len(names) == 0 {
		return block.Corruptf("the differencing disk names no parent")
	}
	var errs []error
	for _, name := range names {
		parent, err := d.tryParent(name, o)
		if err == nil {
			d.parent = parent
			return nil
		}
		errs = append(errs, err)
	}
	return errs[0]
}

// tryParent opens the image of that name if it is the parent.
func (d *disk) tryParent(name string, o *OpenOptions) (*block.Image, error) {
	parent, err := d.policy.OpenImage(block.Ref{Role: block.RoleBacking, Name: name, Format: formatName, From: o.Path})
	if err != nil {
		return nil, err
	}
	if err := d.isParent(parent, name, o.AnyParentTime); err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	return parent, nil
}

// isParent checks that an image is the one that the disk was made for.
func (d *disk) isParent(parent *block.Image, name string, anyTime bool) error {
	layer, ok := block.As[identified](parent)
	if !ok {
		return block.Corruptf("the parent %q is not a VHD", name)
	}
	id := layer.identity()
	// Whether the time is that of the footer or of the file is not said in the
	// specification, and not done alike.
	known := d.hdr.parentTime == 0 || d.hdr.parentTime == stampOf(id.Time) || d.hdr.parentTime == stampOf(id.Modified)
	switch want := timeOf(d.hdr.parentTime); {
	case id.UUID != d.hdr.parentUUID:
		return block.Corruptf("%q is not the parent: it has UUID %v, the parent is %v", name, id.UUID, d.hdr.parentUUID)
	case !anyTime && !known:
		return block.Corruptf("the parent %q has been changed: it was made at %s and written at %s, and had time %s for the child; "+
			"if its content is the same, rebase the child onto it, unsafe",
			name, id.Time.Format(time.RFC3339), id.Modified.UTC().Format(time.RFC3339), want.Format(time.RFC3339))
	}
	return nil
}
