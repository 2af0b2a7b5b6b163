package qed

import (
	"bytes"

	"github.com/diskimg/diskimg/block"
)

// Changing which backing file the header names.

// ChangeBacking writes another name of the backing file into the header, or
// none if name is empty; of format the image keeps only whether it is "raw".
// All that was written before is flushed first, and a power cut leaves the old
// name or the new one. The open image reads on through the backing image that
// it has, and can't be written any more. The name has to fit behind the header,
// where nothing else is; block.ErrNoSpace otherwise.
func (d *disk) ChangeBacking(name, format string) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case name == "" && format != "":
		return block.Invalidf("a backing format without a backing file")
	case d.hdr.compat != 0:
		// What an unknown feature has to do with the name nobody knows.
		return block.Unsupportedf("the backing file can't be changed: the image has unknown compatible features %#x", d.hdr.compat)
	case len(name) > maxBackingName:
		return block.Invalidf("Backing file name of %d bytes is too long, the most is %d", len(name), maxBackingName)
	}
	// Before the header names another backing file, all that makes up for the
	// difference must be on disk.
	if err := d.finish(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.switchBacking(name, format); err != nil {
		return err
	}
	d.sealed = block.Errorf(block.ErrInvalid, "the image has got another backing file and has to be opened again to be written")
	d.trusted.Store(false)
	return nil
}

// switchBacking writes the name and then the header. Needs mu exclusively.
func (d *disk) switchBacking(name, format string) error {
	old, h := d.hdr, *d.hdr
	h.setBacking(0, "", "")
	if name != "" {
		off, err := d.placeForName(int64(len(name)))
		if err != nil {
			return err
		}
		// Before the header names it, the name must be on disk; the old name
		// stays as it is until then.
		if err := d.patchHeader(off, []byte(name)); err != nil {
			return err
		}
		h.setBacking(off, name, format)
	}
	// The header lies in one sector, so it is either the old or the new one.
	if err := d.patchHeader(0, h.encode()); err != nil {
		return err
	}
	d.hdr = &h
	if old.features&featureBacking == 0 {
		return nil
	}
	return d.patchHeader(int64(old.backingOffset), make([]byte, old.backingLength))
}

// maxNameSearch is how much of a large header is looked at for room, in bytes.
const maxNameSearch = 64 << 10

// placeForName finds n zero bytes between the header and the first cluster,
// beside the name that is there. Needs mu.
func (d *disk) placeForName(n int64) (int64, error) {
	b := make([]byte, min(int64(d.geo.firstHost), maxNameSearch))
	if err := readExact(d.file, "header", b, 0); err != nil {
		return 0, err
	}
	taken := func(from, to int64) {
		for i := from; i < min(to, int64(len(b))); i++ {
			b[i] = 0xff
		}
	}
	taken(0, headerSize)
	if h := d.hdr; h.features&featureBacking != 0 {
		taken(int64(h.backingOffset), int64(h.backingOffset)+int64(h.backingLength))
	}
	i := bytes.Index(b, make([]byte, n))
	if i < 0 {
		return 0, block.Errorf(block.ErrNoSpace, "there is no room in the header for the name of the backing file (%d bytes)", n)
	}
	return int64(i), nil
}
