package vhd

import (
	"cmp"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// What lies where in the file, and whether anything lies over something else.

// placed is a part of the file that something takes up.
type placed struct {
	from, to int64
	entry    int64 // of the BAT; -1 for metadata
	name     string
}

// metadata lists what is in the file besides blocks, but for the footer at the
// end.
func (d *disk) metadata() []placed {
	list := []placed{
		{0, footerSize, -1, "the footer's copy"},
		{int64(d.foot.dataOffset), int64(d.foot.dataOffset) + headerSize, -1, "the dynamic header"},
		{int64(d.hdr.tableOffset), int64(d.hdr.tableOffset) + tableBytes(d.hdr), -1, "the block allocation table"},
	}
	for _, l := range d.hdr.locators {
		if l.code == none || l.length == 0 || l.offset > uint64(d.end) {
			continue
		}
		list = append(list, placed{int64(l.offset), int64(l.offset) + int64(l.length), -1, "the name of the parent"})
	}
	return list
}

// layout lists everything that has a place in the file, in order, but for the
// footer at the end.
func (d *disk) layout() []placed {
	list := d.metadata()
	for i, e := range d.bat {
		if e != unused {
			at := int64(e) * sectorSize
			list = append(list, placed{at, at + d.span(), int64(i), ""})
		}
	}
	slices.SortFunc(list, func(a, b placed) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.entry, b.entry)) })
	return list
}

// eachOverlap tells of blocks that lie over another block or metadata, until
// found returns false. Needs the tables to stay as they are.
func (d *disk) eachOverlap(found func(error) bool) {
	var last placed
	for i, p := range d.layout() {
		if i > 0 && p.from < last.to && (p.entry >= 0 || last.entry >= 0) && !found(clash(last, p)) {
			return
		}
		if p.to > last.to {
			last = p
		}
	}
	if last.to > d.end && last.entry < 0 {
		found(block.Corruptf("%s ends at %#x, behind the end of the file (%d bytes)", last.name, last.to, d.end))
	}
}

func clash(a, b placed) error {
	if a.entry >= 0 && b.entry >= 0 {
		return block.Corruptf("BAT entries %d and %d overlap: their blocks begin at %#x and %#x", min(a.entry, b.entry), max(a.entry, b.entry), a.from, b.from)
	}
	if a.entry < 0 {
		a, b = b, a
	}
	return block.Corruptf("BAT entry %d: its block at %#x lies over %s at %#x", a.entry, a.from, b.name, b.from)
}
