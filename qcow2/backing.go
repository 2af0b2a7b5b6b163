package qcow2

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Changing the name of the backing file, in the first cluster, so that a power
// cut leaves the old header or the new one. Only one sector can be written at
// once; a header that takes more is built up behind padding first.

// ChangeBacking implements block.BackingChanger.
func (d *disk) ChangeBacking(name, format string) error {
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case len(name) > maxBackingName:
		return block.Invalidf("Backing file name too long: %d bytes, the limit is %d", len(name), maxBackingName)
	case name == "" && format != "":
		return block.Invalidf("Backing format cannot be used without backing file")
	case name != "" && d.hdr.autoclear&autoclearRawData != 0:
		return block.Invalidf("Cannot set a backing file for images with data-file-raw")
	}
	d.whole.Lock()
	defer d.whole.Unlock()
	// Before the header names another backing file, all that makes up for the
	// difference must be on disk.
	if err := d.finish(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	h := d.hdr.withBacking(name, format)
	if err := d.replaceHeader(h); err != nil {
		return err
	}
	d.hdr = h
	d.sealed = block.Errorf(block.ErrInvalid, "the image has got another backing file and has to be opened again to be written")
	return nil
}

// withBacking returns the header with another backing file.
func (h *header) withBacking(name, format string) *header {
	next := *h
	next.backingName, next.backingOffset = name, 0
	i := slices.IndexFunc(h.extensions, func(e extension) bool { return e.kind == extBackingFormat })
	next.extensions = h.without(extBackingFormat)
	if format != "" {
		next.extensions = slices.Insert(next.extensions, max(0, i), extension{extBackingFormat, []byte(format)})
	}
	return &next
}

const headerSector = 512

// replaceHeader writes the first cluster anew. Needs mu exclusively.
func (d *disk) replaceHeader(h *header) error {
	next, err := h.encode()
	if err != nil {
		return err
	}
	old := make([]byte, len(next))
	if err := d.readTable("header", old, 0); err != nil {
		return err
	}
	if err := d.mayWriteMeta(metaHeader, 0, d.geo.clusterSize); err != nil {
		return err
	}
	first, last := differing(old, next)
	if last-first > headerSector {
		return d.rebuildHeader(h, next)
	}
	return d.writeHeader(next, first, last)
}

// differing returns the range of whole sectors within which a and b differ.
func differing(a, b []byte) (first, last int) {
	for at := 0; at < len(a); at += headerSector {
		if !bytes.Equal(a[at:at+headerSector], b[at:at+headerSector]) {
			if last == 0 {
				first = at
			}
			last = at + headerSector
		}
	}
	return first, last
}

// writeHeader writes [from, to) of the first cluster b and makes it durable.
func (d *disk) writeHeader(b []byte, from, to int) error {
	if from == to {
		return nil
	}
	if _, err := d.file.WriteAt(b[from:to], int64(from)); err != nil {
		return d.poison(err)
	}
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	return nil
}

// rebuildHeader replaces the first cluster by next, in which h is encoded, a
// sector at a time. The variable part of next is put behind all that is in use,
// and an extension of no meaning before it then hides the old part, which can
// be written over.
func (d *disk) rebuildHeader(h *header, next []byte) error {
	fixed := int(h.length)
	end := max(h.end(), d.hdr.end())
	detour := fixed + 8 + (max(end, headerSector)-fixed-8+7)&^7
	part := next[fixed:h.end()]
	if fixed+8 > headerSector || detour+len(part) > len(next) {
		return block.Errorf(block.ErrNoSpace, "no room in the first cluster of %d bytes to change the header safely", len(next))
	}
	middle := bytes.Clone(next)
	copy(middle[detour:], part)
	binary.BigEndian.PutUint32(middle[fixed:], extPadding)
	binary.BigEndian.PutUint32(middle[fixed+4:], uint32(detour-fixed-8))
	if h.backingOffset != 0 {
		binary.BigEndian.PutUint64(middle[8:], h.backingOffset+uint64(detour-fixed))
	}
	// Before the first sector leads to the new part, that must be on disk.
	if err := d.writeHeader(middle, detour, detour+len(part)); err != nil {
		return err
	}
	if err := d.writeHeader(middle, 0, headerSector); err != nil {
		return err
	}
	// Before the first sector gets its final form, what it leads to must be on
	// disk; until then it lies within the padding.
	if err := d.writeHeader(next, headerSector, detour); err != nil {
		return err
	}
	if err := d.writeHeader(next, 0, headerSector); err != nil {
		return err
	}
	return d.writeHeader(next, detour, detour+len(part))
}

// end returns where the header ends, with extensions and the name.
func (h *header) end() int {
	at := int(h.length) + 8
	for _, e := range h.extensions {
		at += 8 + (len(e.data)+7)&^7
	}
	return max(at, int(h.backingOffset)+len(h.backingName))
}
