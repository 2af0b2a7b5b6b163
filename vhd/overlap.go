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
	entry    int64  // of the BAT; -1 for metadata
	name     string // of metadata
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
		if l.code != none && l.length > 0 && l.offset <= uint64(d.end) {
			list = append(list, placed{int64(l.offset), int64(l.offset) + int64(l.length), -1, "the name of the parent"})
		}
	}
	return list
}

// byPlace returns the numbers of the blocks that have a place, in the order of
// those. Needs mu.
func (d *disk) byPlace() []uint32 {
	var list []uint32
	for i, e := range d.bat {
		if e != unused {
			list = append(list, uint32(i))
		}
	}
	slices.SortFunc(list, func(a, b uint32) int { return cmp.Or(cmp.Compare(d.bat[a], d.bat[b]), cmp.Compare(a, b)) })
	return list
}

func (d *disk) placeOf(i uint32) placed {
	at := int64(d.bat[i]) * sectorSize
	return placed{from: at, to: at + d.span(), entry: int64(i)}
}

// eachOverlap tells of blocks that lie over another block or metadata, and of
// metadata that is not all in the file, until found returns false. Needs mu.
func (d *disk) eachOverlap(found func(error) bool) {
	blocks := d.byPlace()
	for n := 1; n < len(blocks); n++ {
		a, b := d.placeOf(blocks[n-1]), d.placeOf(blocks[n])
		if b.from < a.to && !found(block.Corruptf("BAT entries %d and %d overlap: their blocks begin at %#x and %#x", a.entry, b.entry, a.from, b.from)) {
			return
		}
	}
	for _, m := range d.metadata() {
		if m.to > d.end && !found(block.Corruptf("%s ends at %#x, behind the end of the file (%d bytes)", m.name, m.to, d.end)) {
			return
		}
		if !d.eachOver(m, blocks, found) {
			return
		}
	}
}

// eachOver tells of blocks that lie over m, and returns what found last has.
func (d *disk) eachOver(m placed, blocks []uint32, found func(error) bool) bool {
	first, _ := slices.BinarySearchFunc(blocks, m.from, func(i uint32, at int64) int {
		return cmp.Compare(d.placeOf(i).to, at+1)
	})
	for _, i := range blocks[first:] {
		p := d.placeOf(i)
		if p.from >= m.to {
			break
		}
		if !found(block.Corruptf("BAT entry %d: its block at %#x lies over %s at %#x", p.entry, p.from, m.name, m.from)) {
			return false
		}
	}
	return true
}

// contentEnd returns where the last block or metadata ends. Needs mu.
func (d *disk) contentEnd() int64 {
	end := int64(0)
	for _, m := range d.metadata() {
		end = max(end, m.to)
	}
	for _, e := range d.bat {
		if e != unused {
			end = max(end, d.blockEnd(e))
		}
	}
	return roundUp(end, sectorSize)
}
