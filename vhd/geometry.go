package vhd

import (
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Geometry: cylinders, heads and sectors, and what they say of the size.

// Geometry is that of an ATA disk.
type Geometry struct {
	Cylinders      uint16
	Heads, Sectors uint8 // Sectors is that of a track
}

const (
	// maxSectors is the largest disk: 2040 GiB.
	maxSectors = 0xff000000
	// maxSize is the same in bytes.
	maxSize = maxSectors * sectorSize
	// maxCHS is how many sectors a geometry can say, 127 GiB.
	maxCHS = 65535 * 16 * 255
)

// largestGeometry says nothing but that the size is to be found elsewhere.
var largestGeometry = Geometry{Cylinders: 65535, Heads: 16, Sectors: 255}

// sectors returns how many sectors a disk of the geometry has.
func (g Geometry) sectors() int64 { return int64(g.Cylinders) * int64(g.Heads) * int64(g.Sectors) }

// GeometryFor returns the geometry of a disk with that many sectors of 512
// bytes. It has at most as many: the rest is in no cylinder. "Virtual Hard Disk
// Image Format Specification", appendix: CHS Calculation.
func GeometryFor(sectors int64) Geometry {
	total := min(max(sectors, 0), maxCHS)
	track, heads := int64(255), int64(16)
	if total < 65535*16*63 {
		track = 17
		heads = max(4, (total/track+1023)/1024)
		if heads > 16 || total/track >= heads*1024 {
			track, heads = 31, 16
		}
		if total/track >= heads*1024 {
			track, heads = 63, 16
		}
	}
	return Geometry{Cylinders: uint16(total / track / heads), Heads: uint8(heads), Sectors: uint8(track)}
}

// roundToGeometry returns the smallest geometry with room for size bytes and
// the size that it makes. A disk too large for any keeps its size, and so does
// one that only the largest has room for: there the size counts that the footer
// names. It is how QEMU sizes new disks.
func roundToGeometry(size int64) (Geometry, int64) {
	total := size / sectorSize
	if total == 0 {
		return Geometry{}, 0
	}
	g := GeometryFor(total)
	for n := total; g.sectors() < min(total, maxCHS); n++ {
		g = GeometryFor(n)
	}
	if g.sectors() == maxCHS {
		return g, size
	}
	return g, g.sectors() * sectorSize
}

// exactCreators are the programs whose disks have the size that the footer
// names, and not that of the geometry: Hyper-V, disk2vhd, XenServer, XenConverter,
// and QEMU where it was told so.
var exactCreators = []string{"win ", "qem2", "d2v ", "tap\x00", "CTXS"}

// SizeSource is one of the places in a footer that state a size.
type SizeSource uint8

const (
	// ByCreator goes by what the program that made the disk is known to mean.
	ByCreator SizeSource = iota
	// FromGeometry is the product of cylinders, heads and sectors.
	FromGeometry
	// FromCurrentSize is the current size.
	FromCurrentSize
)

// size returns the size of the disk in bytes, by the rule that QEMU has: that
// of the geometry, unless the creator is known to mean what the footer names or
// the geometry is the largest that can be said.
func (f *footer) size() (int64, error) {
	sectors := f.current / sectorSize
	geometry := f.sizeFrom == FromGeometry || f.sizeFrom == ByCreator && !slices.Contains(exactCreators, f.creator)
	if geometry && f.chs.sectors() != maxCHS {
		sectors = uint64(f.chs.sectors())
	}
	if sectors > maxSectors {
		return 0, block.Corruptf("File too large: a disk of %d sectors, the limit is %d", sectors, uint64(maxSectors))
	}
	return int64(sectors) * sectorSize, nil
}
