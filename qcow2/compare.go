package qcow2

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// The second half of a check: refcounts and COPIED flags against the references
// that were counted. A repair goes the same ways again, so nothing that is wrong
// has to be remembered.

// compare holds the counts against the refcounts, then the flags against the
// counts.
func (k *checker) compare() error {
	err := k.eachCount(k.compareOne, func(first int64, err error) {
		k.find(block.CheckFailure, "Can't get refcount for cluster %d: %v", first, err)
	})
	if err != nil {
		return err
	}
	k.tellOverlaps()
	if err := k.announce(); err != nil {
		return err
	}
	return k.compareFlags()
}

// announce reports the refcounts that are about to be set, and once more those
// that are not.
func (k *checker) announce() error {
	mends := (k.o.FixLeaks || k.o.FixCorruptions) && !k.needsRebuild() && !k.tooMany && k.mayRepair() == nil
	if k.tooLow+k.tooHigh == 0 || k.o.Report == nil || !mends {
		return nil
	}
	return k.eachCount(func(c int64, have, want uint64) error {
		switch {
		case have > want && k.o.FixLeaks:
			k.fixing(block.Leak, "Repairing cluster %d refcount=%d reference=%d", c, have, want)
		case have < want && k.o.FixCorruptions:
			k.fixing(block.Corruption, "Repairing cluster %d refcount=%d reference=%d", c, have, want)
		case have < want:
			k.report(block.Finding{Severity: block.Corruption, Text: fmt.Sprintf("ERROR cluster %d refcount=%d reference=%d", c, have, want), Offset: -1})
		}
		return nil
	}, func(int64, error) {})
}

// eachCount calls f for the clusters that have a refcount or references, with
// both, and failed for the first cluster of a refcount block that can't be read.
func (k *checker) eachCount(f func(c int64, have, want uint64) error, failed func(first int64, err error)) error {
	data := make([]byte, k.d.geo.clusterSize)
	k.ones = k.d.geo.onesOf(1 << refWordBits)
	for _, i := range k.listBlocks() {
		if err := k.ctx.Err(); err != nil {
			return err
		}
		first := i << k.d.geo.refBits
		if err := k.readRefblock(i, data); err != nil {
			failed(first, err)
			continue
		}
		if err := k.eachOfBlock(first, data, !k.hasBlock(i), f); err != nil {
			return err
		}
	}
	return nil
}

// onesOf returns n refcounts of 1.
func (g *geometry) onesOf(n int64) []byte {
	p := make([]byte, n<<g.refOrder>>3)
	for i := range n {
		setRef(p, i, g.refOrder, 1)
	}
	return p
}

func (k *checker) hasBlock(i int64) bool {
	return i < int64(len(k.reftable)) && k.reftable[i] != 0
}

// listBlocks lists the refcount blocks that there are or, by the references,
// should be.
func (k *checker) listBlocks() []int64 {
	set := make(map[int64]bool)
	for i := range k.reftable {
		if k.hasBlock(int64(i)) {
			set[int64(i)] = true
		}
	}
	for c := range k.refs.words() {
		set[c>>k.d.geo.refBits] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// eachOfBlock is eachCount for the refcounts in data, of the clusters from first
// on. It passes over 64 clusters at a time of which nothing is said and nothing
// known, and tells of the last only of 64 that all have one reference and say so.
func (k *checker) eachOfBlock(first int64, data []byte, missing bool, f func(c int64, have, want uint64) error) error {
	g := &k.d.geo
	const word = 1 << refWordBits
	// What is counted behind the end of the file takes up no space.
	end := min(1<<g.refBits, max(g.clusters(k.fileSize), k.refs.end())-first)
	for j := int64(0); j < end; j += word {
		stored := data[j<<g.refOrder>>3:][:word<<g.refOrder>>3]
		once, many := k.refs.word(first + j)
		from := j
		switch {
		case once == 0 && (missing || zero.Is(stored)):
			continue
		case once == math.MaxUint64 && many == nil && bytes.Equal(stored, k.ones):
			from = j + word - 1
		}
		for i := from; i < min(j+word, end); i++ {
			if err := f(first+i, getRef(data, i, g.refOrder), k.refs.get(first+i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readRefblock reads block i as it is in memory, zeros if there is none.
func (k *checker) readRefblock(i int64, data []byte) error {
	if !k.hasBlock(i) {
		clear(data)
		return nil
	}
	off := hostOff(k.reftable[i] &^ reftableReserved)
	if err := k.d.readTable("refcount block", data, off); err != nil {
		return err
	}
	size := k.d.refs.BlockSize()
	for at := 0; at < len(data); at += size {
		if b := k.d.refs.Get(int64(off) + int64(at)); b != nil {
			copy(data[at:], b.Data)
		}
	}
	return nil
}

func (k *checker) compareOne(c int64, have, want uint64) error {
	if have != 0 || want != 0 {
		k.res.ImageEnd = (c + 1) << k.d.geo.clusterBits
	}
	if have != want && !k.hasBlock(c>>k.d.geo.refBits) {
		k.missing++
	}
	if most := k.d.geo.maxRefcount(); want > most {
		k.tooMany = true
		k.overflow(c, want-most)
		want = most // as far as it can be said
	}
	switch {
	case have > want:
		k.miscount(block.Leak, "Leaked cluster %d refcount=%d reference=%d", c, have, want)
		k.tooHigh++
	case have < want:
		k.miscount(block.Corruption, "ERROR cluster %d refcount=%d reference=%d", c, have, want)
		delete(k.claimed, c)
		k.tooLow++
		if have == 0 {
			k.lost++
		}
	}
	return nil
}

// miscount is find for a refcount. There can be one for each cluster: words are
// made only for who wants to read them.
func (k *checker) miscount(s block.Severity, format string, c int64, have, want uint64) {
	if k.o.Report != nil {
		k.find(s, format, c, have, want)
		return
	}
	k.find(s, "")
}

// maxOverflows is how often a cluster is named that has too many references.
const maxOverflows = 16

// overflow tells of references to a cluster that its refcount can't say.
func (k *checker) overflow(c int64, times uint64) {
	k.res.Corruptions += int64(times)
	for range min(times, maxOverflows) {
		k.report(block.Finding{Severity: block.Corruption, Offset: -1, Text: fmt.Sprintf("ERROR: overflow cluster offset=%#x\n"+
			"Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing", c<<k.d.geo.clusterBits)})
	}
}

// compareFlags holds the COPIED flags of the active tables against the
// refcounts. Those that will be mended are reported then.
func (k *checker) compareFlags() error {
	k.fixesFlags = !k.tooMany && k.o.FixCorruptions || k.o.FixLeaks && k.res.Errors+k.res.Corruptions == 0
	k.distinct = slices.Compact(slices.Clone(k.tables))
	if k.overlaps > 0 { // a table may be named twice, and counts once
		return k.compareSome(0, len(k.d.l1))
	}
	return k.inShares(len(k.d.l1), false, (*checker).compareSome)
}

// compareSome is compareFlags for some of the entries of the L1 table.
func (k *checker) compareSome(from, to int) error {
	return k.eachFlag(from, to, func(f flag) error {
		have := k.counts(f.cluster)
		switch {
		case have == 1 == f.copied():
			return nil
		case k.fixesFlags:
			k.res.Corruptions++
		default:
			k.find(block.Corruption, "ERROR OFLAG_COPIED %s refcount=%d", f, have)
		}
		k.badFlags++
		return k.unsound()
	})
}

// flag is an entry of an active table that names a cluster.
type flag struct {
	l1      int64   // index of the L1 entry; -1 if it is an L2 entry
	off     hostOff // of an L2 entry
	entry   uint64
	cluster int64 // -1 in an external data file, where nothing is shared
}

func (f flag) copied() bool { return f.entry&flagCopied != 0 }

func (f flag) String() string {
	if f.l1 >= 0 {
		return fmt.Sprintf("L2 cluster: l1_index=%d l1_entry=%x", f.l1, f.entry)
	}
	return fmt.Sprintf("data cluster: l2_entry=%x", f.entry)
}

// eachFlag calls f for each entry of the active L1 table from one on to before
// another, and of the tables that they name, once, however often a table is named.
// Tables that can't be read have been reported.
func (k *checker) eachFlag(from, to int, f func(flag) error) error {
	g := &k.d.geo
	data := make([]byte, g.clusterSize)
	done := make(map[int]bool) // by index in distinct
	for i, entry := range k.d.l1[from:to] {
		l2 := entry & offsetMask
		if l2 == 0 || l2&uint64(g.clusterSize-1) != 0 {
			continue
		}
		if err := f(flag{l1: int64(from + i), entry: entry, cluster: int64(l2) >> g.clusterBits}); err != nil {
			return err
		}
		at, ok := slices.BinarySearch(k.distinct, l2|activeTable)
		if !ok || done[at] || k.d.readWholeL2(data, hostOff(l2)) != nil {
			continue
		}
		done[at] = true
		if err := k.eachFlagOf(hostOff(l2), data, f); err != nil {
			return err
		}
		if err := k.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// eachFlagOf is eachFlag for one L2 table.
func (k *checker) eachFlagOf(table hostOff, data []byte, f func(flag) error) error {
	g, external := &k.d.geo, k.d.external
	for at := 0; at < len(data); at += 1 << g.entryBits {
		e := decodeEntry(data[at:], g.extended)
		placed := e.host() != 0 || external && e.copied()
		if e.compressed() || !placed || int64(e.host())&(g.clusterSize-1) != 0 {
			continue
		}
		cluster := int64(e.host()) >> g.clusterBits
		if external {
			cluster = -1
		}
		if err := f(flag{l1: -1, off: table + hostOff(at), entry: e.desc, cluster: cluster}); err != nil {
			return err
		}
	}
	return nil
}

// counts returns the refcount of a cluster, as it will be after the repair that
// is asked for. One that can't be read has been reported, and counts as right.
func (k *checker) counts(c int64) uint64 {
	if c < 0 {
		return 1
	}
	want := k.refs.get(c)
	if !k.hasBlock(c>>k.d.geo.refBits) && !k.o.FixCorruptions {
		return 0
	}
	have, err := k.stored(c)
	if k.tooMany && err == nil {
		return have
	}
	if err != nil || have > want && k.o.FixLeaks || have < want && k.o.FixCorruptions {
		return want
	}
	return have
}

// stored returns the refcount of cluster c, whose block exists.
func (k *checker) stored(c int64) (uint64, error) {
	g := &k.d.geo
	if i := c >> g.refBits; k.recent == nil || i != k.recentBlock {
		if k.recent == nil {
			k.recent = make([]byte, g.clusterSize)
		}
		k.recentBlock = -1
		if err := k.readRefblock(i, k.recent); err != nil {
			return 0, err
		}
		k.recentBlock = i
	}
	return getRef(k.recent, c&(1<<g.refBits-1), g.refOrder), nil
}
