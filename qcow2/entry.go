package qcow2

import (
	"math/bits"

	"github.com/diskimg/diskimg/block"
)

// Geometry and the pure codecs of table entries. Facts: qcow2 specification,
// "Cluster mapping" and "Extended L2 Entries".

// guestOff is an offset on the guest disk, hostOff one in an image or data
// file, both in bytes. Mixing them up does not compile.
type (
	guestOff int64
	hostOff  int64
)

const (
	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1 << 0

	offsetMask = 0x00fffffffffffe00
	// maxHostOffset is the first offset that a table entry can't express.
	maxHostOffset = 1 << 56

	l1Reserved       = 0x7f000000000001ff
	l2Reserved       = 0x3f000000000001fe
	reftableReserved = 0x1ff

	subclusters = 32
	// A subcluster bitmap: allocation in the low half, zero in the high half.
	allAllocated = 1<<32 - 1
	allZero      = allAllocated << 32
)

// geometry is what follows from cluster size, entry size and refcount width.
type geometry struct {
	clusterBits uint
	clusterSize int64
	entryBits   uint // log2 of the bytes of an L2 entry: 3, or 4 with extended L2
	l2Bits      uint // log2 of the entries of an L2 table
	extended    bool
	unitBits    uint // log2 of the unit of allocation: cluster or subcluster
	refOrder    uint // log2 of the bits of a refcount
	refBits     uint // log2 of the refcounts of a refcount block
	v3          bool
}

func (h *header) geometry() geometry {
	g := geometry{
		clusterBits: uint(h.clusterBits),
		clusterSize: h.clusterSize(),
		entryBits:   3,
		unitBits:    uint(h.clusterBits),
		refOrder:    uint(h.refcountOrder),
		extended:    h.incompat&incompatExtendedL2 != 0,
		v3:          h.version >= 3,
	}
	if g.extended {
		g.entryBits = 4
		g.unitBits -= 5
	}
	g.l2Bits = g.clusterBits - g.entryBits
	g.refBits = g.clusterBits + 3 - g.refOrder
	return g
}

// l1Entries returns how many L1 entries a disk of size bytes needs.
func (g *geometry) l1Entries(size int64) uint64 {
	shift := g.clusterBits + g.l2Bits
	return (uint64(size) + 1<<shift - 1) >> shift
}

// clusters returns how many clusters n bytes take up.
func (g *geometry) clusters(n int64) int64 { return (n + g.clusterSize - 1) >> g.clusterBits }

func (g *geometry) alignDown(off int64) int64 { return off &^ (g.clusterSize - 1) }

func (g *geometry) alignUp(off int64) int64 { return g.alignDown(off + g.clusterSize - 1) }

func (g *geometry) l1Index(off guestOff) int64 { return int64(off) >> (g.clusterBits + g.l2Bits) }

func (g *geometry) l2Index(off guestOff) int64 {
	return int64(off) >> g.clusterBits & (1<<g.l2Bits - 1)
}

// unaligned reports whether an entry, not of a compressed cluster, leads to a place
// where no cluster can be.
func (g *geometry) unaligned(e l2Entry) bool { return int64(e.host())&(g.clusterSize-1) != 0 }

// setAside reports whether the space that an entry, not of a compressed cluster,
// leads to holds no data.
func (g *geometry) setAside(e l2Entry) bool {
	if g.extended {
		return e.bitmap&allAllocated == 0
	}
	return g.v3 && e.desc&flagZero != 0
}

// maxRefcount is the largest value of a refcount of this width.
func (g *geometry) maxRefcount() uint64 { return 1<<(1<<g.refOrder) - 1 }

// reservedL2 has the bits that an L2 entry of a cluster that is not compressed
// must not have.
func (g *geometry) reservedL2() uint64 {
	if g.v3 {
		return l2Reserved
	}
	return l2Reserved | flagZero
}

// l2Entry is an L2 entry with its subcluster bitmap; bitmap is 0 in images
// without extended L2 entries.
type l2Entry struct {
	desc   uint64
	bitmap uint64
}

func (e l2Entry) host() hostOff    { return hostOff(e.desc & offsetMask) }
func (e l2Entry) copied() bool     { return e.desc&flagCopied != 0 }
func (e l2Entry) compressed() bool { return e.desc&flagCompressed != 0 }

// compressedRange returns where a compressed cluster's bytes lie. The length is
// known to the sector only: the last one may hold other data after ours.
func (g *geometry) compressedRange(desc uint64) (off hostOff, n int64) {
	x := 62 - (g.clusterBits - 8)
	off = hostOff(desc & (1<<x - 1))
	sectors := int64(desc >> x & (1<<(g.clusterBits-8) - 1))
	return off, (sectors+1)*512 - int64(off)&511
}

// compressedDesc is the reverse of compressedRange. ok is false if the offset
// can't be expressed.
func (g *geometry) compressedDesc(off hostOff, n int64) (desc uint64, ok bool) {
	x := 62 - (g.clusterBits - 8)
	sectors := (int64(off)&511 + n - 1) >> 9
	if uint64(off) >= min(uint64(1)<<x, maxHostOffset) {
		return 0, false
	}
	return flagCompressed | uint64(sectors)<<x | uint64(off), true
}

// state says what an L2 entry makes of a cluster or subcluster.
type state uint8

const (
	unallocated state = iota
	zeroPlain         // reads as zero, no space set aside
	zeroAlloc         // reads as zero, space set aside
	normal
	compressed
	// reserved: with extended L2, a subcluster that reads from below while
	// its cluster has space.
	reserved
)

// stateOf classifies a unit (0 without extended L2). dataFile says that guest
// clusters lie in an external file, where offset 0 is a place like any other.
func (g *geometry) stateOf(e l2Entry, unit uint, dataFile bool) (state, error) {
	if e.compressed() && dataFile {
		return 0, block.Corruptf("L2 entry %#x is a compressed cluster, which an image with an external data file does not have", e.desc)
	}
	if e.compressed() {
		return compressed, nil
	}
	if int64(e.host())&(g.clusterSize-1) != 0 {
		return 0, block.Corruptf("cluster offset %#x is not a multiple of the cluster size %d", int64(e.host()), g.clusterSize)
	}
	placed := e.host() != 0 || dataFile && e.copied()
	if g.extended {
		return e.subState(unit, placed)
	}
	switch {
	case e.desc&flagZero != 0 && !g.v3:
		return 0, block.Corruptf("L2 entry %#x is a zero cluster, which version 2 does not have", e.desc)
	case e.desc&flagZero != 0 && placed:
		return zeroAlloc, nil
	case e.desc&flagZero != 0:
		return zeroPlain, nil
	case placed:
		return normal, nil
	}
	return unallocated, nil
}

func (e l2Entry) subState(unit uint, placed bool) (state, error) {
	alloc, zero := e.bitmap>>unit&1 != 0, e.bitmap>>(32+unit)&1 != 0
	switch {
	case alloc && zero:
		return 0, block.Corruptf("subcluster %d is both allocated and zero in bitmap %#x", unit, e.bitmap)
	case alloc && !placed:
		return 0, block.Corruptf("subcluster %d is allocated in bitmap %#x, but the cluster has no offset", unit, e.bitmap)
	case alloc:
		return normal, nil
	case zero && placed:
		return zeroAlloc, nil
	case zero:
		return zeroPlain, nil
	case placed:
		return reserved, nil
	}
	return unallocated, nil
}

// unitRun returns how many units from unit on share its bits in the bitmap.
func (e l2Entry) unitRun(unit uint) uint {
	run := func(half uint32) uint {
		half >>= unit
		if half&1 != 0 {
			half = ^half
		}
		return uint(bits.TrailingZeros32(half))
	}
	n := min(run(uint32(e.bitmap)), run(uint32(e.bitmap>>32)))
	return min(n, subclusters-unit)
}

// unitMask has a bit for each unit of [from, to).
func unitMask(from, to uint) uint64 { return 1<<to - 1<<from }
