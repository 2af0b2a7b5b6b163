package qcow2

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// The codecs of table entries, at every cluster size.

func eachGeometry(f func(g geometry)) {
	for bits := uint32(minClusterBits); bits <= maxClusterBits; bits++ {
		for order := range uint32(7) {
			h := header{version: 3, clusterBits: bits, refcountOrder: order}
			f(h.geometry())
			if bits >= 14 {
				h.incompat = incompatExtendedL2
				f(h.geometry())
			}
		}
	}
}

func TestGeometry(t *testing.T) {
	eachGeometry(func(g geometry) {
		entry := int64(8)
		if g.extended {
			entry = 16
		}
		perTable := g.clusterSize / entry
		perL1 := perTable * g.clusterSize
		if g.clusterSize != 1<<g.clusterBits || 1<<g.entryBits != entry || 1<<g.l2Bits != perTable {
			t.Errorf("%+v", g)
		}
		if g.extended && 1<<g.unitBits*subclusters != g.clusterSize || !g.extended && g.unitBits != g.clusterBits {
			t.Errorf("%+v: unit", g)
		}
		refcountBits := int64(1) << g.refOrder
		if 1<<g.refBits*refcountBits != g.clusterSize*8 {
			t.Errorf("%+v: refcounts of a block", g)
		}
		if refcountBits < 64 && g.maxRefcount() != 1<<refcountBits-1 || refcountBits == 64 && g.maxRefcount() != ^uint64(0) {
			t.Errorf("%+v: refcounts end at %d", g, g.maxRefcount())
		}
		for _, c := range []struct{ size, want int64 }{{0, 0}, {1, 1}, {perL1, 1}, {perL1 + 1, 2}, {7 * perL1, 7}} {
			if got := g.l1Entries(c.size); got != uint64(c.want) {
				t.Errorf("%+v: %d bytes need %d L1 entries, not %d", g, c.size, c.want, got)
			}
		}
		off := guestOff(5*perL1 + 3*g.clusterSize + 17)
		if g.l1Index(off) != 5 || g.l2Index(off) != 3%perTable || g.alignDown(int64(off)) != int64(off)-17 {
			t.Errorf("%+v: index", g)
		}
		for _, n := range []int64{0, 1, g.clusterSize - 1, g.clusterSize, g.clusterSize + 1, 9 * g.clusterSize} {
			up := (n + g.clusterSize - 1) / g.clusterSize
			if g.clusters(n) != up || g.alignUp(n) != up*g.clusterSize {
				t.Errorf("%+v: clusters of %d", g, n)
			}
		}
	})
}

// slowDescriptor is the specification's table of a compressed cluster
// descriptor, in words of its own: x bits of offset, then the sectors after the
// first, up to bit 61.
func slowDescriptor(desc uint64, clusterBits uint) (off, sectors uint64) {
	x := 70 - clusterBits
	for bit := range x {
		off |= desc & (1 << bit)
	}
	for bit := x; bit < 62; bit++ {
		if desc&(1<<bit) != 0 {
			sectors += 1 << (bit - x)
		}
	}
	return off, sectors
}

func TestCompressedDescriptor(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	for bits := uint(minClusterBits); bits <= maxClusterBits; bits++ {
		g := (&header{version: 3, clusterBits: uint32(bits)}).geometry()
		end := min(uint64(1)<<(70-bits), maxHostOffset)
		for range 2000 {
			off := hostOff(r.Uint64N(end) >> r.Uint32N(uint32(70-bits)))
			n := 1 + r.Int64N(g.clusterSize)
			desc, ok := g.compressedDesc(off, n)
			if !ok || desc>>62 != 1 {
				t.Fatalf("2^%d: %d bytes at %#x give %#x, %v", bits, n, int64(off), desc, ok)
			}
			slowOff, sectors := slowDescriptor(desc, bits)
			want := int64(0) // sectors behind the first that the bytes touch
			for s := int64(off)>>9 + 1; s <= (int64(off)+n-1)>>9; s++ {
				want++
			}
			if hostOff(slowOff) != off || int64(sectors) != want {
				t.Fatalf("2^%d: %#x means %d sectors at %#x, want %d at %#x", bits, desc, sectors, slowOff, want, int64(off))
			}
			gotOff, stored := g.compressedRange(desc)
			if gotOff != off || stored < n || stored-n >= 512 || (int64(off)+stored)%512 != 0 {
				t.Fatalf("2^%d: %d bytes at %#x come back as %d at %#x", bits, n, int64(off), stored, int64(gotOff))
			}
		}
		for _, off := range []uint64{end, end + 512, 1 << 62} {
			if desc, ok := g.compressedDesc(hostOff(off), 1); ok {
				t.Errorf("2^%d: an offset of %#x is taken: %#x", bits, off, desc)
			}
		}
	}
}

// Whatever bits a descriptor has, the range that comes out is two clusters at
// most.
func TestCompressedRangeIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	for bits := uint(minClusterBits); bits <= maxClusterBits; bits++ {
		g := (&header{version: 3, clusterBits: uint32(bits)}).geometry()
		for i := range 2000 {
			desc := flagCompressed | r.Uint64()
			if i == 0 {
				desc = ^uint64(0)
			}
			off, n := g.compressedRange(desc)
			slowOff, sectors := slowDescriptor(desc, bits)
			if off < 0 || uint64(off) != slowOff || n < 1 || n > 2*g.clusterSize || n != int64(sectors+1)*512-int64(off)%512 {
				t.Fatalf("2^%d: %#x is %d bytes at %#x", bits, desc, n, int64(off))
			}
		}
	}
}

func TestStateOf(t *testing.T) {
	const at = 5 << 16
	v2 := (&header{version: 2, clusterBits: 16}).geometry()
	v3 := (&header{version: 3, clusterBits: 16}).geometry()
	for _, c := range []struct {
		g        geometry
		desc     uint64
		dataFile bool
		want     state
		text     string // of the error
	}{
		{v2, 0, false, unallocated, ""},
		{v2, at, false, normal, ""},
		{v2, at | flagCopied, false, normal, ""},
		{v2, flagZero, false, 0, "L2 entry 0x1 is a zero cluster, which version 2 does not have"},
		{v2, at | flagZero, false, 0, "L2 entry 0x50001 is a zero cluster"},
		{v2, flagCompressed | at, false, compressed, ""},
		{v3, 0, false, unallocated, ""},
		{v3, flagCopied, false, unallocated, ""},
		{v3, flagZero, false, zeroPlain, ""},
		{v3, flagZero | flagCopied, false, zeroPlain, ""},
		{v3, at | flagZero, false, zeroAlloc, ""},
		{v3, at | flagZero | flagCopied, false, zeroAlloc, ""},
		{v3, at, false, normal, ""},
		{v3, at | flagCopied, false, normal, ""},
		{v3, flagCompressed, false, compressed, ""},
		{v3, ^uint64(0), false, compressed, ""},
		{v3, at + 512, false, 0, "cluster offset 0x50200 is not a multiple of the cluster size 65536"},
		{v3, flagCopied | 0x1000, true, 0, "cluster offset 0x1000 is not a multiple"},
		{v3, 1<<56 - 1<<16, false, normal, ""},
		{v3, at | l2Reserved, false, normal, ""},
		// In an external data file, offset 0 with COPIED is a place.
		{v3, 0, true, unallocated, ""},
		{v3, flagCopied, true, normal, ""},
		{v3, flagCopied | flagZero, true, zeroAlloc, ""},
		{v3, flagZero, true, zeroPlain, ""},
		{v3, flagCompressed | at, true, 0, "L2 entry 0x4000000000050000 is a compressed cluster, which an image with an external data file does not have"},
		{v3, at, true, normal, ""},
		{v3, at | flagCopied, true, normal, ""},
	} {
		got, err := c.g.stateOf(l2Entry{desc: c.desc}, 0, c.dataFile)
		what := fmt.Sprintf("%#x, version 3 %v, data file %v", c.desc, c.g.v3, c.dataFile)
		if c.text != "" {
			expectError(t, what, err, block.ErrCorrupt, c.text)
		} else if err != nil || got != c.want {
			t.Errorf("%s: state %d, %v; want %d", what, got, err, c.want)
		}
	}
}

func TestStateOfSubcluster(t *testing.T) {
	const at = 5 << 16
	g := (&header{version: 3, clusterBits: 16, incompat: incompatExtendedL2}).geometry()
	for unit := range uint(subclusters) {
		alloc, zero := uint64(1)<<unit, uint64(1)<<(32+unit)
		others := ^(alloc | zero)
		for _, c := range []struct {
			desc, bitmap uint64
			dataFile     bool
			want         state
			text         string
		}{
			{0, 0, false, unallocated, ""},
			{at, 0, false, reserved, ""},
			{at | flagCopied, 0, false, reserved, ""},
			{0, zero, false, zeroPlain, ""},
			{at, zero, false, zeroAlloc, ""},
			{at | flagCopied, alloc, false, normal, ""},
			{at, alloc, false, normal, ""},
			{0, alloc, false, 0, fmt.Sprintf("subcluster %d is allocated in bitmap %#x, but the cluster has no offset", unit, alloc)},
			{flagCopied, alloc, false, 0, "but the cluster has no offset"},
			{at, alloc | zero, false, 0, fmt.Sprintf("subcluster %d is both allocated and zero in bitmap %#x", unit, alloc|zero)},
			{at + 1024, alloc, false, 0, "cluster offset 0x50400 is not a multiple"},
			// The other units' bits, and the zero flag of an entry without
			// subclusters, say nothing about this one.
			{at, others, false, reserved, ""},
			{at, others | zero, false, zeroAlloc, ""},
			{at | flagZero, alloc, false, normal, ""},
			{flagZero, 0, false, unallocated, ""},
			{0, alloc, true, 0, "but the cluster has no offset"},
			{flagCopied, alloc, true, normal, ""},
			{flagCopied, zero, true, zeroAlloc, ""},
			{flagCopied, 0, true, reserved, ""},
			{0, zero, true, zeroPlain, ""},
			{flagCompressed | at, 0, false, compressed, ""},
			{flagCompressed | at, alloc | zero, false, compressed, ""},
		} {
			got, err := g.stateOf(l2Entry{c.desc, c.bitmap}, unit, c.dataFile)
			what := fmt.Sprintf("unit %d of %#x %#x, data file %v", unit, c.desc, c.bitmap, c.dataFile)
			if c.text != "" {
				expectError(t, what, err, block.ErrCorrupt, c.text)
			} else if err != nil || got != c.want {
				t.Errorf("%s: state %d, %v; want %d", what, got, err, c.want)
			}
		}
	}
}

func TestUnitMask(t *testing.T) {
	for from := range uint(subclusters + 1) {
		for to := from; to <= subclusters; to++ {
			var want uint64
			for unit := from; unit < to; unit++ {
				want |= 1 << unit
			}
			if got := unitMask(from, to); got != want {
				t.Errorf("[%d, %d): %#x, want %#x", from, to, got, want)
			}
		}
	}
}

func TestUnitRun(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 0))
	bitmaps := []uint64{0, allAllocated, allZero, ^uint64(0), 1, 1 << 31, 1 << 32, 1 << 63, 0x00000000ffff0000, 0xffff00000000ffff}
	for range 2000 {
		bitmaps = append(bitmaps, r.Uint64()&r.Uint64()&r.Uint64(), r.Uint64()|r.Uint64()|r.Uint64())
	}
	for _, bitmap := range bitmaps {
		bits := func(unit uint) [2]uint64 { return [2]uint64{bitmap >> unit & 1, bitmap >> (32 + unit) & 1} }
		for unit := range uint(subclusters) {
			want := uint(1)
			for unit+want < subclusters && bits(unit+want) == bits(unit) {
				want++
			}
			if got := (l2Entry{bitmap: bitmap}).unitRun(unit); got != want {
				t.Fatalf("%#x: a run of %d units from %d on, want %d", bitmap, got, unit, want)
			}
		}
	}
}
