package qcow2

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// Check: count every reference to every cluster, and compare with the refcounts
// and the COPIED flags. The counting never trusts what it reads: an entry that
// can't be followed is a finding and is not followed.

// refMap counts references to clusters. It takes memory for what is referenced
// only, in pages, so that a sparse file of any length can be checked.
type refMap struct {
	pages map[int64]*refPage
	last  *refPage
	at    int64 // page number of last
}

const refPageBits = 12

type refPage [1 << refPageBits]uint32

func newRefMap() *refMap { return &refMap{pages: make(map[int64]*refPage), at: -1} }

func (m *refMap) page(n int64) *refPage {
	if n != m.at {
		m.last, m.at = m.pages[n], n
	}
	return m.last
}

func (m *refMap) get(c int64) uint64 {
	p := m.page(c >> refPageBits)
	if p == nil {
		return 0
	}
	return uint64(p[c&(1<<refPageBits-1)])
}

func (m *refMap) add(c int64) {
	n := c >> refPageBits
	p := m.page(n)
	if p == nil {
		p = new(refPage)
		m.pages[n], m.last = p, p
	}
	p[c&(1<<refPageBits-1)]++
}

// end returns the cluster after the last one with a reference.
func (m *refMap) end() int64 {
	var last int64 = -1
	for n := range m.pages {
		last = max(last, n)
	}
	if last < 0 {
		return 0
	}
	for i := int64(1<<refPageBits - 1); i >= 0; i-- {
		if m.pages[last][i] != 0 {
			return last<<refPageBits + i + 1
		}
	}
	return last << refPageBits
}

// checker is one run of a check. The image does not change meanwhile.
type checker struct {
	d           *disk
	o           *block.CheckOptions
	ctx         context.Context
	res         block.CheckResult
	refs        *refMap
	reftable    []uint64
	fileSize    int64
	recent      []byte // the refcount block that stored looked at last
	recentBlock int64
	// What repair has to do.
	badCounts    []int64 // clusters
	badFlags     []badFlag
	flagFindings int64 // which all end when badFlags have been set
}

// badFlag is an entry whose COPIED flag is wrong.
type badFlag struct {
	l1   int64 // index of the L1 entry; -1 if an L2 entry is meant
	off  hostOff
	want bool
}

// Check implements block.Checker. A writable image is flushed first. Until the
// check is done nothing is written but to space that is linked already: space
// that is counted and not linked yet would look leaked.
func (d *disk) Check(o block.CheckOptions) (block.CheckResult, error) {
	if (o.FixLeaks || o.FixCorruptions) && !d.writable {
		return block.CheckResult{}, block.ErrReadOnly
	}
	r := d.ranges.Acquire(0, math.MaxInt64)
	defer d.ranges.Release(r)
	if err := d.Flush(); err != nil {
		return block.CheckResult{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.check(o)
}

func (d *disk) check(o block.CheckOptions) (block.CheckResult, error) {
	k := &checker{d: d, o: &o, ctx: o.Context, refs: newRefMap()}
	if k.ctx == nil {
		k.ctx = context.Background()
	}
	if err := k.count(); err != nil {
		return k.res, err
	}
	if err := k.compare(); err != nil {
		return k.res, err
	}
	if o.FixLeaks || o.FixCorruptions {
		return k.res, k.repair()
	}
	return k.res, nil
}

func (k *checker) find(s block.Severity, format string, args ...any) {
	switch s {
	case block.Leak:
		k.res.Leaks++
	case block.Corruption:
		k.res.Corruptions++
	case block.CheckFailure:
		k.res.Errors++
	}
	if k.o.Report != nil {
		k.o.Report(block.Finding{Severity: s, Text: block.Corruptf(format, args...).Error(), Offset: -1})
	}
}

// refer counts a reference to each cluster of [off, off+n). The file may end
// within the last one, not before it.
func (k *checker) refer(off uint64, n int64) {
	if n <= 0 {
		return
	}
	g := &k.d.geo
	if int64(off)+n-k.fileSize >= g.clusterSize {
		k.find(block.Corruption, "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset %#x size %#x", off, n)
		return
	}
	for c := int64(off >> g.clusterBits); c <= (int64(off)+n-1)>>g.clusterBits; c++ {
		k.refs.add(c)
	}
}

// count follows everything from the header on.
func (k *checker) count() (err error) {
	d, g := k.d, &k.d.geo
	if k.fileSize, err = d.file.Size(); err != nil {
		return err
	}
	k.res.Clusters = g.clusters(d.Size())
	k.refer(0, g.clusterSize)
	if err := k.countL1(d.hdr.l1Offset, d.l1, true); err != nil {
		return err
	}
	if err := k.countSnapshots(); err != nil {
		return err
	}
	k.countExtensions()
	k.countRetired()
	return k.countRefcounts()
}

// countRetired counts what is linked no more, and will be counted down when the
// last request is done that may be reading there.
func (k *checker) countRetired() {
	for _, r := range k.d.retired {
		for _, run := range r.runs {
			k.refer(uint64(run.off(&k.d.geo)), run.n<<k.d.geo.clusterBits)
		}
	}
}

func (k *checker) countSnapshots() error {
	list, size, err := k.d.readSnapshots(maxSnapshotTable)
	if err != nil {
		k.find(block.Corruption, "ERROR snapshot table: %v", err)
		return nil
	}
	k.refer(k.d.hdr.snapshotsOffset, size)
	for i, s := range list {
		n := int64(s.l1Size) * 8
		if n > maxL1Bytes || s.l1Offset&uint64(k.d.geo.clusterSize-1) != 0 || k.d.inFile("snapshot L1 table", s.l1Offset, n) != nil {
			k.find(block.Corruption, "ERROR snapshot %s (%s) l1_offset=%#x: L1 table is not cluster aligned or not in the file; snapshot table entry corrupted (entry %d)", s.id, s.name, s.l1Offset, i)
			continue
		}
		b := make([]byte, n)
		if err := k.d.readTable("snapshot L1 table", b, hostOff(s.l1Offset)); err != nil {
			return err
		}
		if err := k.countL1(s.l1Offset, decodeTable(b), false); err != nil {
			return err
		}
	}
	return nil
}

// countL1 counts an L1 table and all that it leads to.
func (k *checker) countL1(off uint64, table []uint64, active bool) error {
	k.refer(off, int64(len(table))*8)
	data := make([]byte, k.d.geo.clusterSize)
	for i, entry := range table {
		if err := k.ctx.Err(); err != nil {
			return err
		}
		l2 := entry & offsetMask
		if l2 == 0 {
			continue
		}
		if entry&l1Reserved != 0 {
			k.find(block.Corruption, "ERROR found L1 entry with reserved bits set: %#x", entry)
		}
		k.refer(l2, k.d.geo.clusterSize)
		if l2&uint64(k.d.geo.clusterSize-1) != 0 {
			k.find(block.Corruption, "ERROR l2_offset=%#x: Table is not cluster aligned; L1 entry corrupted", l2)
			continue
		}
		if err := k.d.readWholeL2(data, hostOff(l2)); err != nil {
			k.find(block.CheckFailure, "ERROR: I/O error in check_refcounts_l2: %v", err)
			continue
		}
		k.countL2(hostOff(l2), data, active)
		if k.o.Progress != nil && active {
			k.o.Progress(int64(i), int64(len(table)))
		}
	}
	return nil
}

// countL2 counts what an L2 table refers to.
func (k *checker) countL2(table hostOff, data []byte, active bool) {
	g := &k.d.geo
	var next hostOff // where an unfragmented image would go on
	for at := 0; at < len(data); at += 1 << g.entryBits {
		e := decodeEntry(data[at:], g.extended)
		switch {
		case e.compressed():
			k.countCompressed(e, active)
		case e.host() != 0 || k.d.data != k.d.file && e.copied():
			k.countCluster(e, table+hostOff(at), &next, active)
		case e.desc&g.reservedL2() != 0:
			k.find(block.Corruption, "ERROR found l2 entry with reserved bits set: %x", e.desc)
		}
		if g.extended && !e.compressed() && uint32(e.bitmap)&uint32(e.bitmap>>32) != 0 {
			k.find(block.Corruption, "ERROR found l2 entry with invalid subcluster bitmap: %x", e.bitmap)
		}
	}
}

func decodeEntry(b []byte, extended bool) l2Entry {
	t := decodeTable(b[:8])
	if !extended {
		return l2Entry{desc: t[0]}
	}
	return l2Entry{t[0], decodeTable(b[8:16])[0]}
}

func (k *checker) countCompressed(e l2Entry, active bool) {
	if e.copied() {
		k.find(block.Corruption, "ERROR: coffset=%#x: copied flag must never be set for compressed clusters", e.desc&(1<<(62-(k.d.geo.clusterBits-8))-1))
	}
	if k.d.data != k.d.file {
		k.find(block.Corruption, "ERROR compressed cluster in an image with an external data file: %x", e.desc)
		return
	}
	off, n := k.d.geo.compressedRange(e.desc)
	k.refer(uint64(off), n)
	if active {
		k.res.Allocated++
		k.res.Compressed++
		// Compressed clusters count as fragmented: they always are.
		k.res.Fragmented++
	}
}

func (k *checker) countCluster(e l2Entry, place hostOff, next *hostOff, active bool) {
	g := &k.d.geo
	host := e.host()
	if e.desc&g.reservedL2() != 0 {
		k.find(block.Corruption, "ERROR found l2 entry with reserved bits set: %x", e.desc)
	}
	if active {
		k.res.Allocated++
		if *next != 0 && host != *next {
			k.res.Fragmented++
		}
		*next = host + hostOff(g.clusterSize)
	}
	if int64(host)&(g.clusterSize-1) != 0 {
		k.find(block.Corruption, "ERROR offset=%x: Cluster is not properly aligned; L2 entry corrupted.", int64(host))
		return
	}
	if k.d.data == k.d.file {
		k.refer(uint64(host), g.clusterSize)
	}
}

// countExtensions counts what header extensions refer to.
func (k *checker) countExtensions() {
	if b := k.d.hdr.find(extBitmaps); len(b) >= 24 && k.d.hdr.autoclear&autoclearBitmaps != 0 {
		k.countBitmaps(decodeTable(b[8:24]))
	}
	if b := k.d.hdr.find(extCrypto); len(b) >= 16 {
		t := decodeTable(b[:16])
		k.refer(t[0], int64(t[1]))
	}
}

const (
	maxBitmapDirectory = 1024 * 65535
	maxBitmapTable     = 0x8000000
	bitmapFixed        = 24
)

// countBitmaps counts the bitmap directory, the tables and the clusters of
// bitmaps. field is the directory's size and offset.
func (k *checker) countBitmaps(field []uint64) {
	size, off := field[0], field[1]
	if size > maxBitmapDirectory || k.d.inFile("bitmap directory", off, int64(size)) != nil {
		k.find(block.Corruption, "ERROR bitmap directory of %d bytes at %#x does not lie in the file", size, off)
		return
	}
	k.refer(off, int64(size))
	dir := make([]byte, size)
	if err := k.d.readTable("bitmap directory", dir, hostOff(off)); err != nil {
		k.find(block.CheckFailure, "ERROR bitmap directory: %v", err)
		return
	}
	for len(dir) >= bitmapFixed {
		table := decodeTable(dir[:8])[0]
		w := decodeTable(dir[8:bitmapFixed])
		k.countBitmap(table, int64(w[0]>>32))
		n := bitmapFixed + int64(w[1]>>32&0xffff) + int64(uint32(w[1]))
		n = (n + 7) &^ 7
		if n > int64(len(dir)) {
			k.find(block.Corruption, "ERROR bitmap directory entry of %d bytes, %d are left", n, len(dir))
			return
		}
		dir = dir[n:]
	}
}

func (k *checker) countBitmap(table uint64, entries int64) {
	if entries > maxBitmapTable || k.d.inFile("bitmap table", table, entries*8) != nil {
		k.find(block.Corruption, "ERROR bitmap table of %d entries at %#x does not lie in the file", entries, table)
		return
	}
	k.refer(table, entries*8)
	b := make([]byte, entries*8)
	if err := k.d.readTable("bitmap table", b, hostOff(table)); err != nil {
		k.find(block.CheckFailure, "ERROR bitmap table: %v", err)
		return
	}
	for _, e := range decodeTable(b) {
		if off := e & offsetMask; off != 0 {
			k.refer(off, k.d.geo.clusterSize)
		}
	}
}

// countRefcounts counts the refcount table and its blocks.
func (k *checker) countRefcounts() error {
	d, g := k.d, &k.d.geo
	if d.reftable == nil {
		if err := d.loadReftable(); err != nil {
			return err
		}
	}
	k.reftable = slices.Clone(d.reftable)
	k.refer(d.hdr.reftableOffset, int64(len(k.reftable))*8)
	for i, entry := range k.reftable {
		off := entry &^ reftableReserved
		switch {
		case entry == 0:
			continue
		case entry&reftableReserved != 0:
			k.find(block.Corruption, "ERROR refcount table entry %d has reserved bits set", i)
		}
		if off&uint64(g.clusterSize-1) != 0 {
			k.find(block.Corruption, "ERROR refcount block %d is not cluster aligned; refcount table entry corrupted", i)
			k.reftable[i] = 0
			continue
		}
		if int64(off) < 0 || int64(off) >= k.fileSize {
			k.find(block.Corruption, "ERROR refcount block %d is outside image", i)
			k.reftable[i] = 0
			continue
		}
		k.refer(off, g.clusterSize)
		if n := k.refs.get(int64(off) >> g.clusterBits); n != 1 {
			k.find(block.Corruption, "ERROR refcount block %d refcount=%d", i, n)
		}
	}
	return nil
}

// compare holds the counts against the refcounts, then the flags against the
// counts.
func (k *checker) compare() error {
	data := make([]byte, k.d.geo.clusterSize)
	for _, i := range k.blocks() {
		if err := k.ctx.Err(); err != nil {
			return err
		}
		first := i << k.d.geo.refBits
		if err := k.readRefblock(i, data); err != nil {
			k.find(block.CheckFailure, "Can't get refcount for cluster %d: %v", first, err)
			continue
		}
		k.compareBlock(first, data, !k.hasBlock(i))
	}
	k.compareFlags()
	return nil
}

func (k *checker) hasBlock(i int64) bool {
	return i < int64(len(k.reftable)) && k.reftable[i] != 0
}

// blocks lists the refcount blocks that there are or, by the references, should
// be.
func (k *checker) blocks() []int64 {
	set := make(map[int64]bool)
	for i := range k.reftable {
		if k.hasBlock(int64(i)) {
			set[int64(i)] = true
		}
	}
	for n := range k.refs.pages {
		first, last := n<<refPageBits, (n+1)<<refPageBits-1
		for i := first >> k.d.geo.refBits; i <= last>>k.d.geo.refBits; i++ {
			set[i] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// compareBlock compares the refcounts in data, of the clusters from first on.
// Where neither they nor the references say anything it passes over whole
// pages.
func (k *checker) compareBlock(first int64, data []byte, missing bool) {
	g := &k.d.geo
	// What is counted behind the end of the file takes up no space.
	end := min(1<<g.refBits, max(g.clusters(k.fileSize), k.refs.end())-first)
	for j := int64(0); j < end; {
		c := first + j
		n := min(end-j, 1<<refPageBits-c&(1<<refPageBits-1))
		if k.refs.page(c>>refPageBits) != nil || !missing && !zero.Is(data[j<<g.refOrder>>3:(j+n)<<g.refOrder>>3]) {
			for i := range n {
				k.compareOne(c+i, getRef(data, j+i, g.refOrder), k.refs.get(c+i))
			}
		}
		j += n
	}
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

func (k *checker) compareOne(c int64, have, want uint64) {
	if have != 0 || want != 0 {
		k.res.ImageEnd = (c + 1) << k.d.geo.clusterBits
	}
	switch {
	case have == want:
		return
	case have > want:
		k.find(block.Leak, "Leaked cluster %d refcount=%d reference=%d", c, have, want)
	default:
		k.find(block.Corruption, "ERROR cluster %d refcount=%d reference=%d", c, have, want)
	}
	k.badCounts = append(k.badCounts, c)
}

// compareFlags holds the COPIED flags of the active tables against the
// refcounts. What repair sets them to is what the refcounts should be.
func (k *checker) compareFlags() {
	g := &k.d.geo
	data := make([]byte, g.clusterSize)
	for i, entry := range k.d.l1 {
		l2 := entry & offsetMask
		if l2 == 0 || l2&uint64(g.clusterSize-1) != 0 {
			continue
		}
		have, want := k.counts(int64(l2) >> g.clusterBits)
		copied := entry&flagCopied != 0
		if have == 1 != copied {
			k.find(block.Corruption, "ERROR OFLAG_COPIED L2 cluster: l1_index=%d l1_entry=%x refcount=%d", i, entry, have)
			k.flagFindings++
		}
		if want == 1 != copied {
			k.badFlags = append(k.badFlags, badFlag{l1: int64(i), want: want == 1})
		}
		if k.d.readWholeL2(data, hostOff(l2)) == nil {
			k.compareL2Flags(hostOff(l2), data)
		}
	}
}

// counts returns the refcount of a cluster, as it will be after the repair that
// is asked for, and what it should be. A refcount that can't be read has been
// reported, and counts as right.
func (k *checker) counts(c int64) (have, want uint64) {
	want = k.refs.get(c)
	if !k.hasBlock(c>>k.d.geo.refBits) && !k.o.FixCorruptions {
		return 0, want
	}
	have, err := k.stored(c)
	if err != nil || have > want && k.o.FixLeaks || have < want && k.o.FixCorruptions {
		return want, want
	}
	return have, want
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

func (k *checker) compareL2Flags(table hostOff, data []byte) {
	g := &k.d.geo
	for at := 0; at < len(data); at += 1 << g.entryBits {
		e := decodeEntry(data[at:], g.extended)
		if e.compressed() || int64(e.host())&(g.clusterSize-1) != 0 {
			continue
		}
		have, want := uint64(1), uint64(1) // what an external data file holds is never shared
		if k.d.data == k.d.file {
			if e.host() == 0 {
				continue
			}
			have, want = k.counts(int64(e.host()) >> g.clusterBits)
		} else if e.host() == 0 && !e.copied() {
			continue
		}
		if have == 1 != e.copied() {
			k.find(block.Corruption, "ERROR OFLAG_COPIED data cluster: l2_entry=%x refcount=%d", e.desc, have)
			k.flagFindings++
		}
		if want == 1 != e.copied() {
			k.badFlags = append(k.badFlags, badFlag{l1: -1, off: table + hostOff(at), want: want == 1})
		}
	}
}
