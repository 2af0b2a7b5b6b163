package qcow2

import (
	"errors"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Storing bitmaps: new tables and data beside the old ones, a new directory,
// then the header switches over.

// closeBitmaps stores what has been tracked, at the end of all writing. If that
// fails all that was tracked stays marked in use.
func (d *disk) closeBitmaps() error {
	d.bitmaps.mu.Lock()
	defer d.bitmaps.mu.Unlock()
	if !slices.ContainsFunc(d.bitmaps.list, func(b *bitmap) bool { return b.held }) {
		return nil
	}
	return d.saveBitmaps(cloneBitmaps(d.bitmaps.list), false)
}

// saveBitmaps makes next the bitmaps of the image. With inUse those that are
// enabled are marked so, because writing goes on. If it fails nothing has
// changed. Needs bitmaps.mu; takes mu.
func (d *disk) saveBitmaps(next []*bitmap, inUse bool) error {
	return d.flushes.Exclude(func() error { return d.storeBitmaps(next, inUse) })
}

// storeBitmaps is saveBitmaps while no flush runs.
func (d *disk) storeBitmaps(next []*bitmap, inUse bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	s := bitmapSave{d: d, next: next, inUse: inUse}
	place, err := s.write()
	if err == nil {
		err = s.mayRelease()
	}
	if err != nil {
		s.undo()
		return err
	}
	if err := s.switchDirectory(place); err != nil {
		s.undo() // the image is broken, or the header is as it was
		return err
	}
	s.release()
	d.bitmaps.setList(next)
	return nil
}

// bitmapSave is one run of saveBitmaps.
type bitmapSave struct {
	d      *disk
	next   []*bitmap
	inUse  bool
	fresh  []hostRun // what has been counted for the new structures
	tables []span    // tables and directory that are to be replaced
	data   []hostRun // clusters of bits that are to be given up
}

// span is a range of the image file.
type span struct {
	off hostOff
	n   int64
}

// write writes all that is new, where nothing refers to it yet.
func (s *bitmapSave) write() (bitmapPlace, error) {
	if err := s.dropRemoved(); err != nil {
		return bitmapPlace{}, err
	}
	for _, b := range s.next {
		if err := s.store(b); err != nil {
			return bitmapPlace{}, err
		}
	}
	return s.writeDirectory()
}

// dropRemoved gives up what belongs to bitmaps that are no more.
func (s *bitmapSave) dropRemoved() error {
	kept := make(map[hostOff]bool)
	for _, b := range s.next {
		kept[b.table] = true
	}
	for _, b := range s.d.bitmaps.list {
		if !s.d.hasTable(b) || kept[b.table] {
			continue
		}
		table, err := s.d.bitmapTable(b)
		if errors.Is(err, block.ErrCorrupt) {
			continue // what it leads to is not known: it leaks
		}
		if err != nil {
			return err
		}
		s.dropTable(b)
		for _, e := range table {
			s.dropData(e)
		}
	}
	return nil
}

func (s *bitmapSave) dropTable(b *bitmap) {
	if b.table != 0 {
		s.tables = append(s.tables, span{b.table, 8 * b.entries})
	}
}

func (s *bitmapSave) dropData(entry uint64) {
	if off := entry & offsetMask; off != 0 {
		s.data = append(s.data, hostRun{start: int64(off >> s.d.geo.clusterBits), n: 1})
	}
}

// store writes a bitmap, if it has changed, and sets its flags.
func (s *bitmapSave) store(b *bitmap) error {
	if b.why != nil {
		b.held = false
		return nil
	}
	flags := b.flags & bitmapExtraKnown
	if b.enabled {
		flags |= bitmapAuto
	}
	b.held = s.inUse && b.enabled
	if b.held {
		flags |= bitmapInUse
	}
	if b.changed || !s.inUse {
		if err := s.storeBits(b); err != nil {
			return err
		}
	}
	b.flags = flags
	return nil
}

// storeBits writes the table of a bitmap and those of its clusters that have
// changed.
func (s *bitmapSave) storeBits(b *bitmap) error {
	d := s.d
	old, err := d.bitmapTable(b)
	if err != nil {
		return err
	}
	table := make([]uint64, d.tableEntries(b.bits))
	p := make([]byte, d.geo.clusterSize)
	per := d.geo.clusterSize * 8
	for i := range max(len(table), len(old)) {
		was := bitmapEntry(old, int64(i))
		if i >= len(table) {
			s.dropData(was)
			continue
		}
		first := int64(i) * per
		if !b.delta.any(first, first+per) && (was == 0 || first+per <= b.valid) {
			table[i] = was
			continue
		}
		if err := d.bitmapPiece(b, old, int64(i), p); err != nil {
			return err
		}
		if table[i], err = s.storePiece(p, first+per <= b.bits); err != nil {
			return err
		}
		s.dropData(was)
	}
	s.dropTable(b)
	b.entries, b.table = int64(len(table)), 0
	if len(table) > 0 {
		b.table, err = s.writeNew(encodeTable(table))
	}
	b.valid, b.delta, b.changed = b.bits, bitset{}, false
	return err
}

// storePiece returns the table entry for a cluster of bits.
func (s *bitmapSave) storePiece(p []byte, whole bool) (uint64, error) {
	if e, ok := pieceEntry(p, whole); ok {
		return e, nil
	}
	off, err := s.writeNew(p)
	return uint64(off), err
}

// writeNew writes b to clusters of its own.
func (s *bitmapSave) writeNew(b []byte) (hostOff, error) {
	d := s.d
	n := d.geo.clusters(int64(len(b)))
	run, err := d.alloc(n)
	if err != nil {
		return 0, err
	}
	s.fresh = append(s.fresh, run)
	off := run.off(&d.geo)
	_, err = d.file.WriteAt(b, int64(off))
	return off, err
}

func (s *bitmapSave) writeDirectory() (p bitmapPlace, err error) {
	d := s.d
	if old, ok, err := d.bitmapPlace(); ok && err == nil && len(d.bitmaps.list) > 0 {
		s.tables = append(s.tables, span{old.off, old.size})
	}
	if len(s.next) == 0 {
		return p, nil
	}
	dir := encodeBitmaps(s.next)
	if len(dir) > maxBitmapDirectory {
		return p, block.Errorf(block.ErrNoSpace, "bitmap directory of %d bytes would be too large, the limit is %d", len(dir), maxBitmapDirectory)
	}
	p = bitmapPlace{count: uint32(len(s.next)), size: int64(len(dir))}
	p.off, err = s.writeNew(dir)
	return p, err
}

// mayRelease refuses to give up what is, or is also, something else.
func (s *bitmapSave) mayRelease() error {
	for _, t := range s.tables {
		if err := s.d.mayWriteMeta(metaBitmaps, t.off, t.n); err != nil {
			return err
		}
	}
	for _, r := range s.data {
		if m, ok := s.d.meta.hit(r.start, r.n); ok {
			return s.d.corrupt(block.Corruptf("Preventing freeing of metadata (%s) at offset %#x, which is named as bitmap data", m.kind, int64(r.off(&s.d.geo))))
		}
	}
	return nil
}

// undo gives back the space of what was to be.
func (s *bitmapSave) undo() {
	if s.d.broken != nil {
		return
	}
	for _, r := range s.fresh {
		s.d.unalloc(r)
	}
}

// switchDirectory has the header name the new directory.
func (s *bitmapSave) switchDirectory(p bitmapPlace) error {
	d := s.d
	// Before the header names the new directory, it must be on disk, and so
	// must all that it leads to and the counts of that.
	if err := d.writeCounts(); err != nil {
		return err
	}
	if p.count == 0 {
		if err := d.setBitmapsBit(false); err != nil {
			return err
		}
		return d.setExtensions(without(d.hdr.extensions, extBitmaps))
	}
	if err := d.writeBitmapPlace(p.encode()); err != nil {
		return err
	}
	// After the extension is right on disk, it counts.
	return d.setBitmapsBit(true)
}

// setBitmapsBit says in the header whether the bitmaps extension can be
// trusted.
func (d *disk) setBitmapsBit(on bool) error {
	bits := d.hdr.autoclear &^ autoclearBitmaps
	if on {
		bits |= autoclearBitmaps
	}
	if bits == d.hdr.autoclear {
		return nil
	}
	if err := d.patchHeader(atAutoclear, be64(bits)); err != nil {
		return err
	}
	d.hdr.autoclear = bits
	return nil
}

// release gives up what the header no longer leads to, which is on disk, and
// claims what is in its place.
func (s *bitmapSave) release() {
	d := s.d
	for _, t := range s.tables {
		d.replaced(t.off, t.n)
	}
	for _, r := range s.data {
		d.release(r.start, r.n)
	}
	for _, b := range s.next {
		off := int64(b.table) >> d.geo.clusterBits
		if _, claimed := d.meta.hit(off, 1); d.hasTable(b) && !claimed {
			d.claim(metaBitmaps, b.table, 8*b.entries)
		}
	}
	if p, ok, err := d.bitmapPlace(); ok && err == nil {
		d.claim(metaBitmaps, p.off, p.size)
	}
}

// writeBitmapPlace puts data into the bitmaps extension, where it is if that is
// within a sector, or else with a new header.
func (d *disk) writeBitmapPlace(data []byte) error {
	list := slices.Clone(d.hdr.extensions)
	at, last, place := int64(d.hdr.length), -1, int64(0)
	for i, e := range list {
		if e.kind == extBitmaps {
			last, place = i, at+8
		}
		at += 8 + int64(len(e.data)+7)&^7
	}
	if last < 0 {
		return d.setExtensions(append(list, extension{extBitmaps, data}))
	}
	same := len(list[last].data) == len(data)
	list[last].data = data
	if !same || place/headerSector != (place+int64(len(data))-1)/headerSector {
		return d.setExtensions(list)
	}
	if err := d.patchHeader(place, data); err != nil {
		return err
	}
	d.hdr.extensions = list
	return nil
}

// setExtensions replaces the header extensions, in the file and in memory.
// Needs mu exclusively.
func (d *disk) setExtensions(list []extension) error {
	h := *d.hdr
	h.extensions, h.backingOffset = without(list, extPadding), 0
	if err := d.replaceHeader(&h); err != nil {
		return err
	}
	d.hdr = &h
	return nil
}

// without returns the extensions that are not of the kind.
func without(list []extension, kind uint32) []extension {
	return slices.DeleteFunc(slices.Clone(list), func(e extension) bool { return e.kind == kind })
}
