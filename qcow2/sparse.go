package qcow2

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// Whether data clusters may well be holes of the image file, so that it is worth
// asking for them: of what was preallocated and never written, mostly. The
// answer is also what map shows, so it is the one that QEMU's programs are seen
// to give: they ask if the file system has allocated two clusters less than
// have a refcount, and a tenth less. They take space for all of a cluster when
// they write to a part of it; we don't, so one that is begun counts as allocated.

const (
	leastHoles = 2        // clusters
	holesShare = 10       // one in so many
	maxCounted = 64 << 20 // bytes of refcount blocks
	maxRuns    = 1000     // of data that are looked at; of more what is begun does not count
	ownBlocks  = 16 << 10 // bytes that a file system counts of its own, for a file of few runs
)

// isSparse counts refcounts only if the length of the file leaves room for
// doubt. Refcounts that can't be read are those of a file to be read plainly.
func (d *disk) isSparse() bool {
	if d.external {
		return false
	}
	size, err := d.file.Size()
	if err != nil {
		return false
	}
	bytes, err := block.AllocatedSize(d.file)
	if err != nil {
		return false
	}
	allocated, most := bytes>>d.geo.clusterBits, d.geo.clusters(size)
	if most-allocated < leastHoles {
		return false
	}
	begun, holes := d.unbegun()
	// Where holes have space all the same, whoever wrote it took that by clusters.
	if unwritten := holes - (size - bytes); unwritten < ownBlocks {
		allocated = (bytes + begun) >> d.geo.clusterBits
	}
	if most-allocated < leastHoles {
		return false
	}
	enough := allocated + max(leastHoles, most/holesShare)
	counted := d.countUsed(most, enough)
	return counted-allocated >= max(leastHoles, counted/holesShare)
}

// unbegun returns how many bytes of holes lie in clusters that have data too, and
// how many in all; 0 if the data is in too many runs to be looked at. The L1 and
// the refcount table are begun by QEMU, too.
func (d *disk) unbegun() (n, holes int64) {
	hole := int64(0) // where it begins
	for range maxRuns {
		start, end, err := block.NextData(d.file, hole)
		if err != nil {
			return n, holes
		}
		holes += start - hole
		first, last := min(d.geo.alignUp(hole), start), d.geo.alignDown(start)
		if !d.isRootTable(hole) {
			n += first - hole
		}
		if last >= first && !d.isRootTable(start) {
			n += start - last
		}
		if start == end {
			return n, holes
		}
		hole = end
	}
	return 0, 0
}

// isRootTable reports whether the cluster at off belongs to the L1 or the refcount
// table.
func (d *disk) isRootTable(off int64) bool {
	in := func(start, n int64) bool { return off >= start && off < d.geo.alignUp(start+n) }
	return in(int64(d.hdr.l1Offset), 8*int64(d.hdr.l1Size)) ||
		in(int64(d.hdr.reftableOffset), int64(d.hdr.reftableClusters)<<d.geo.clusterBits)
}

// countUsed returns how many of the first clusters have a refcount, or enough
// as soon as there are so many. What would take long to count is enough, too:
// one refcount block may stand for many.
func (d *disk) countUsed(clusters, enough int64) int64 {
	blocks := (clusters-1)>>d.geo.refBits + 1
	if blocks > maxCounted>>d.geo.clusterBits {
		return enough
	}
	var n int64
	table := make([]byte, min(8*blocks, int64(d.hdr.reftableClusters)<<d.geo.clusterBits))
	refs := make([]byte, d.geo.clusterSize)
	if d.readTable("refcount table", table, hostOff(d.hdr.reftableOffset)) != nil {
		return 0
	}
	for _, e := range decodeTable(table) {
		off := hostOff(e &^ reftableReserved)
		if off == 0 || d.readTable("refcount block", refs, off) != nil {
			continue
		}
		if n += d.countBlock(refs); n >= enough {
			return enough
		}
	}
	return n
}

// countBlock counts the refcounts in a block that are not 0, of which most blocks
// have few.
func (d *disk) countBlock(refs []byte) (n int64) {
	const some = 64
	for first := int64(0); first < 1<<d.geo.refBits; first += some {
		part := refs[first<<d.geo.refOrder>>3:][:some<<d.geo.refOrder>>3]
		if zero.Is(part) {
			continue
		}
		for i := range int64(some) {
			if getRef(part, i, d.geo.refOrder) != 0 {
				n++
			}
		}
	}
	return n
}
