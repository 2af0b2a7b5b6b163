package qcow2

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// Check: count every reference to every cluster, and compare with the refcounts
// and the COPIED flags. The counting never trusts what it reads: an entry that
// can't be followed is a finding and is not followed.

// checker is one run of a check. The image does not change meanwhile.
type checker struct {
	d        *disk
	o        *block.CheckOptions
	ctx      context.Context
	res      block.CheckResult
	refs     *refMap
	reftable []uint64
	fileSize int64
	named    int64 // end of refcount blocks that were not counted, in clusters
	outside  int64 // end of what is referred to behind the end of the file
	// Bytes of the L1 tables of snapshots and of the tables of bitmaps.
	snapshotL1, bitmapTables int64
	single                   []metaRun // tables, of which there is one in a place
	tables                   []uint64  // L2 tables, once for each reference; see activeTable
	distinct                 []uint64  // tables, each once
	blocks                   []int64   // clusters of refcount blocks, as they are named
	recent                   []byte    // the refcount block that stored looked at last
	recentBlock              int64
	ones                     []byte // 64 refcounts of 1
	// What repair can put right: clusters with refcounts that are too low and
	// too high, those of them without a refcount block, wrong COPIED flags,
	// refcount blocks that can't be where they are said to be.
	tooLow, tooHigh, missing, badFlags, badBlocks int64
	snapshots                                     snapshotTable
	badSnapshots                                  int64 // of what a repair mends: what is wrong with that table
	// … and entries that set space aside where none can be.
	misplaced []hostOff
	lost      int64 // of tooLow: those that count as free
	// fixesFlags: COPIED flags are set right, as any repair does that leaves
	// everything else right.
	fixesFlags bool
	// What it can't: clusters of metadata that something else claims, and what
	// they are part of.
	overlaps int64
	claimed  map[int64]metaKind
	// apart is the checker of a share, see inShares.
	apart bool
	// inPlace has refcounts of 0 mended where they are.
	inPlace bool
	// tooMany: there is a cluster with more references than a refcount can say.
	// Nothing is repaired then: it would have to be told whose data is whose.
	tooMany bool
}

// activeTable marks an L2 table of the active L1 table in checker.tables.
const activeTable = 1

// Check implements block.Checker. A writable image is flushed first. Until the
// check is done nothing is written but to space that is linked already: space
// that is counted and not linked yet would look leaked.
func (d *disk) Check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
	if (o.FixLeaks || o.FixCorruptions) && !d.writable {
		return block.CheckResult{}, block.ErrReadOnly
	}
	d.whole.Lock()
	defer d.whole.Unlock()
	r := d.ranges.Acquire(0, math.MaxInt64)
	defer d.ranges.Release(r)
	if err := d.Flush(); err != nil {
		// What the table of snapshots lacks is the better reason, if it is one.
		k := &checker{d: d, o: &block.CheckOptions{FixCorruptions: o.FixCorruptions}}
		return block.CheckResult{}, cmp.Or(k.readSnapshots(), err)
	}
	var res block.CheckResult
	err := d.flushes.Exclude(func() (err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		res, err = d.check(ctx, o)
		return err
	})
	return res, err
}

// check is Check without its locks. Needs mu exclusively.
func (d *disk) check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
	k, err := d.look(ctx, &o)
	if err != nil || !o.FixLeaks && !o.FixCorruptions {
		return k.res, err
	}
	err = k.repair()
	if err == nil && d.repairOnly && k.sound() {
		err = d.markSound()
	}
	return k.res, err
}

// sound reports whether all that was wrong, but for leaks, has been put right.
func (k *checker) sound() bool {
	return k.res.Errors == 0 && k.res.Corruptions == k.res.CorruptionsFixed
}

// look is a check that mends nothing.
func (d *disk) look(ctx context.Context, o *block.CheckOptions) (*checker, error) {
	k := &checker{d: d, o: o, ctx: ctx, refs: newRefMap(), claimed: map[int64]metaKind{}}
	if err := k.count(); err != nil {
		return k, err
	}
	return k, k.compare()
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
		k.o.Report(block.Finding{Severity: s, Text: fmt.Sprintf(format, args...), Offset: -1})
	}
}

// fixing tells what is about to be put right.
func (k *checker) fixing(s block.Severity, format string, args ...any) {
	k.report(block.Finding{Severity: s, Text: fmt.Sprintf(format, args...), Offset: -1, Fixed: true})
}

func (k *checker) report(f block.Finding) {
	if k.o.Report != nil {
		k.o.Report(f)
	}
}

// refer counts a reference to each cluster of [off, off+n).
func (k *checker) refer(off uint64, n int64) { k.referTimes(off, n, 1) }

// referTimes is refer for several references. The file may end within the last
// cluster, not before it.
func (k *checker) referTimes(off uint64, n int64, times uint32) {
	if n <= 0 {
		return
	}
	g := &k.d.geo
	if int64(off)+n-k.fileSize >= g.clusterSize {
		k.outside = max(k.outside, min(int64(off)+n, 1<<62))
		k.findOutside(off, n)
		return
	}
	for c := int64(off >> g.clusterBits); c <= (int64(off)+n-1)>>g.clusterBits; c++ {
		k.refs.add(c, times)
	}
}

func (k *checker) findOutside(off uint64, n int64) {
	k.find(block.Corruption, "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset %#x size %#x", off, n)
}

// count follows everything from the header on.
func (k *checker) count() (err error) {
	d, g := k.d, &k.d.geo
	if k.fileSize, err = d.file.Size(); err != nil {
		return err
	}
	k.res.Clusters = g.clusters(d.Size())
	if k.snapshots.excess == nil {
		if err := k.readSnapshots(); err != nil {
			return err
		}
	}
	k.referTable(metaHeader, 0, g.clusterSize)
	if err := k.countL1(d.hdr.l1Offset, d.l1, true); err != nil {
		return err
	}
	if err := k.countSnapshots(); err != nil {
		return err
	}
	if err := k.countTables(); err != nil {
		return err
	}
	k.countExtensions()
	k.countRetired()
	if err := k.countReftable(); err != nil {
		return err
	}
	k.findOverlaps() // but those with refcount blocks, which can be made anew
	k.countRefblocks()
	return nil
}

// findOverlaps finds metadata that is referred to as something else too. To
// count such references would not make it right: the next write does harm.
func (k *checker) findOverlaps() {
	for _, run := range k.single {
		k.findOverlap(run, 1)
	}
	_ = k.eachTable(func(at hostOff, times, active uint32) error {
		c := int64(at) >> k.d.geo.clusterBits
		more := max(active, 1) - 1 // the active L1 table may name it once
		k.findOverlap(metaRun{c, c + 1, metaL2}, uint64(times-more))
		return nil
	})
}

func (k *checker) findOverlap(run metaRun, want uint64) {
	for c := run.start; c < run.end; c++ {
		if k.refs.get(c) > want {
			k.claimed[c] = run.kind
			k.overlaps++
		}
	}
}

// tellOverlaps tells of the overlaps that no refcount has told of.
func (k *checker) tellOverlaps() {
	for _, c := range slices.Sorted(maps.Keys(k.claimed)) {
		k.find(block.Corruption, "ERROR cluster %d is part of the %s and is referred to as something else too", c, k.claimed[c])
	}
}

// referTable counts the references to a table that must be the only one in its
// place.
func (k *checker) referTable(kind metaKind, off uint64, n int64) {
	k.refer(off, n)
	if start := int64(off >> k.d.geo.clusterBits); n > 0 && off <= uint64(k.fileSize) {
		k.single = append(k.single, metaRun{start, min(start+k.d.geo.clusters(n), k.d.geo.clusters(k.fileSize)), kind})
	}
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

// readSnapshots reads the snapshot table, and tells what is wrong with it.
func (k *checker) readSnapshots() error {
	h, mend := k.d.hdr, k.o.FixCorruptions
	err := h.validateSnapshots()
	if errors.Is(err, syscall.EFBIG) && !mend {
		return block.Detailf(block.ErrCorrupt, fmt.Sprintf("ERROR snapshot table too large\nYou can force-remove all %d overhanging snapshots with qemu-img check -r all", h.snapshotCount-maxSnapshots),
			"%d snapshots, the limit is %d (%w)", h.snapshotCount, maxSnapshots, syscall.EFBIG)
	}
	if errors.Is(err, syscall.EINVAL) {
		return block.Detailf(block.ErrCorrupt, "ERROR snapshot table offset invalid", "%#x (%w)", h.snapshotsOffset, syscall.EINVAL)
	}
	k.snapshots, err = k.d.scanSnapshots(maxSnapshotTable, mend)
	if errors.Is(err, syscall.EFBIG) {
		return block.Detailf(block.ErrCorrupt, "ERROR failed to read the snapshot table: "+block.Brief(err.Error(), err)+"\nYou can force-remove this extra metadata with qemu-img check -r all", "the limit is %d bytes (%w)", maxSnapshotExtra, syscall.EFBIG)
	}
	if err != nil {
		k.find(block.Corruption, "ERROR snapshot table: %v", err)
		return nil
	}
	k.findTooMuch()
	k.findIncomplete()
	return nil
}

// findTooMuch finds what a repair leaves out of the snapshot table.
func (k *checker) findTooMuch() {
	t := &k.snapshots
	if t.over > 0 {
		k.badSnapshots += int64(t.over)
		k.fixing(block.Corruption, "Discarding %d overhanging snapshots", t.over)
	}
	for _, i := range slices.Sorted(maps.Keys(t.excess)) {
		k.badSnapshots++
		k.fixing(block.Corruption, "Discarding too much extra metadata in snapshot table entry %d (%d > %d)", i, t.excess[i], maxSnapshotExtra)
	}
	k.res.Corruptions += k.badSnapshots
}

// findIncomplete finds records that lack what version 3 demands.
func (k *checker) findIncomplete() {
	for i, s := range k.snapshots.records {
		switch {
		case !k.d.geo.v3 || len(s.extra) >= minSnapshotExtra:
		case k.o.FixCorruptions:
			k.badSnapshots++
			k.res.Corruptions++
			k.fixing(block.Corruption, "Repairing snapshot table entry %d is incomplete", i)
		default:
			k.find(block.Corruption, "ERROR snapshot table entry %d is incomplete", i)
		}
	}
}

func (k *checker) countSnapshots() error {
	list := k.snapshots.records
	k.referTable(metaSnapshots, k.d.hdr.snapshotsOffset, k.snapshots.size)
	for i := range list {
		if err := k.countSnapshot(i, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// countSnapshot counts the L1 table of a snapshot and what it leads to.
func (k *checker) countSnapshot(i int, s *snapshotRecord) error {
	n := int64(s.l1Size) * 8
	switch err := k.d.checkL1(s); {
	case errors.Is(err, syscall.EFBIG):
		k.find(block.Corruption, "ERROR snapshot %s (%s) l1_size=%#x: L1 table is too large; snapshot table entry corrupted", s.id, s.name, s.l1Size)
		return nil
	case s.l1Offset&uint64(k.d.geo.clusterSize-1) != 0:
		k.find(block.Corruption, "ERROR snapshot %s (%s) l1_offset=%#x: L1 table is not cluster aligned; snapshot table entry corrupted", s.id, s.name, s.l1Offset)
		return nil
	case err != nil || s.l1Offset >= uint64(k.fileSize):
		k.findOutside(s.l1Offset, n)
		return nil
	case !k.d.validL1(s):
		k.find(block.Corruption, "ERROR snapshot %s (%s) l1_offset=%#x: L1 table is not in the file; snapshot table entry corrupted", s.id, s.name, s.l1Offset)
		return nil
	}
	// Tables that are each their own are not longer than the file.
	if k.snapshotL1 += n; k.snapshotL1 > k.fileSize {
		k.find(block.Corruption, "ERROR snapshot %s (%s) l1_offset=%#x: L1 table shares its place with others; snapshot table entry corrupted (entry %d)", s.id, s.name, s.l1Offset, i)
		return nil
	}
	b := make([]byte, n)
	if err := k.d.readTable("snapshot L1 table", b, hostOff(s.l1Offset)); err != nil {
		return err
	}
	return k.countL1(s.l1Offset, decodeTable(b), false)
}

// countL1 counts an L1 table and notes the L2 tables that it names.
func (k *checker) countL1(off uint64, table []uint64, active bool) error {
	kind := metaInactiveL1
	if active {
		kind = metaL1
	}
	k.referTable(kind, off, int64(len(table))*8)
	for _, entry := range table {
		l2 := entry & offsetMask
		if l2 == 0 {
			continue
		}
		if entry&l1Reserved != 0 {
			k.find(block.Corruption, "ERROR found L1 entry with reserved bits set: %x", entry)
		}
		k.refer(l2, k.d.geo.clusterSize)
		if l2&uint64(k.d.geo.clusterSize-1) != 0 {
			k.find(block.Corruption, "ERROR l2_offset=%x: Table is not cluster aligned; L1 entry corrupted", l2)
			continue
		}
		if active {
			l2 |= activeTable
		}
		k.tables = append(k.tables, l2)
	}
	return k.ctx.Err()
}

// countTables counts what the L2 tables lead to. Each is read once, however many
// snapshots share it, so the time this takes is that of reading the file.
func (k *checker) countTables() error {
	slices.Sort(k.tables)
	return k.inShares(len(k.tables), true, (*checker).countSome)
}

// countSome is countTables for some of the names of tables.
func (k *checker) countSome(from, to int) error {
	data := make([]byte, k.d.geo.clusterSize)
	done := int64(from)
	return k.eachTableOf(k.firstName(from), k.firstName(to), func(at hostOff, times, active uint32) error {
		if int64(at) >= k.fileSize {
			return k.ctx.Err() // which has been found
		}
		if err := k.d.readWholeL2(data, at); err != nil {
			k.find(block.CheckFailure, "ERROR: I/O error in check_refcounts_l2: %v", err)
		} else {
			k.countL2(data, at, times, active > 0)
		}
		done += int64(times)
		if k.o.Progress != nil {
			k.o.Progress(done, int64(len(k.tables)))
		}
		return cmp.Or(k.unsound(), k.ctx.Err())
	})
}

// firstName returns the index of the first name from i on that is of another table
// than the one before i.
func (k *checker) firstName(i int) int {
	for i > 0 && i < len(k.tables) && k.tables[i]&^activeTable == k.tables[i-1]&^activeTable {
		i++
	}
	return i
}

// eachTable calls f for each L2 table, with how often it is named at all and by
// the active L1 table.
func (k *checker) eachTable(f func(at hostOff, times, active uint32) error) error {
	return k.eachTableOf(0, len(k.tables), f)
}

func (k *checker) eachTableOf(i, end int, f func(at hostOff, times, active uint32) error) error {
	for i < end {
		first, at, active := i, k.tables[i]&^activeTable, uint32(0)
		for ; i < len(k.tables) && k.tables[i]&^activeTable == at; i++ {
			active += uint32(k.tables[i] & activeTable)
		}
		if err := f(hostOff(at), uint32(i-first), active); err != nil {
			return err
		}
	}
	return nil
}

// countL2 counts what the L2 table at table refers to, which is itself referred to
// several times.
func (k *checker) countL2(data []byte, table hostOff, times uint32, active bool) {
	g := &k.d.geo
	var next hostOff // where an unfragmented image would go on
	for at := 0; at < len(data); at += 1 << g.entryBits {
		e := decodeEntry(data[at:], g.extended)
		k.checkBitmap(e, at>>g.entryBits)
		switch {
		case e.compressed():
			k.countCompressed(e, times, active)
		case k.o.FixCorruptions && g.setAside(e) && g.unaligned(e):
			k.misplaced = append(k.misplaced, table+hostOff(at))
			k.res.Corruptions++
			k.fixing(block.Corruption, "Repairing offset=%x: Preallocated cluster is not properly aligned; L2 entry corrupted.", int64(e.host()))
		case k.hasPlace(e):
			k.countCluster(e, &next, times, active)
		case e.desc&g.reservedL2() != 0:
			k.find(block.Corruption, "ERROR found l2 entry with reserved bits set: %x", e.desc)
		}
	}
}

// checkBitmap looks at the subclusters of the entry i of a table.
func (k *checker) checkBitmap(e l2Entry, i int) {
	allocated, zero := uint32(e.bitmap), uint32(e.bitmap>>32)
	switch {
	case e.bitmap == 0:
	case e.compressed():
		k.find(block.Corruption, "ERROR compressed cluster %d with non-zero subcluster allocation bitmap, entry=%#x", i, e.desc)
	case !k.hasPlace(e) && allocated != 0:
		k.find(block.Corruption, "ERROR: Unallocated cluster has non-zero subcluster allocation map")
	case allocated&zero != 0:
		k.find(block.Corruption, "ERROR offset=%x: Allocated cluster has corrupted subcluster allocation bitmap", int64(e.host()))
	}
}

// hasPlace reports whether an entry that is not compressed names a cluster.
func (k *checker) hasPlace(e l2Entry) bool { return e.host() != 0 || k.d.external && e.copied() }

func decodeEntry(b []byte, extended bool) l2Entry {
	e := l2Entry{desc: binary.BigEndian.Uint64(b)}
	if extended {
		e.bitmap = binary.BigEndian.Uint64(b[8:])
	}
	return e
}

func (k *checker) countCompressed(e l2Entry, times uint32, active bool) {
	if e.copied() {
		k.find(block.Corruption, "ERROR: coffset=%#x: copied flag must never be set for compressed clusters", e.desc&(1<<(62-(k.d.geo.clusterBits-8))-1))
	}
	if k.d.external {
		k.find(block.Corruption, "ERROR compressed cluster in an image with an external data file: %x", e.desc)
		return
	}
	off, n := k.d.geo.compressedRange(e.desc)
	k.referTimes(uint64(off), n, times)
	if active {
		k.res.Allocated++
		k.res.Compressed++
		// Compressed clusters count as fragmented: they always are.
		k.res.Fragmented++
	}
}

func (k *checker) countCluster(e l2Entry, next *hostOff, times uint32, active bool) {
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
	if g.unaligned(e) {
		what := "Data"
		if g.setAside(e) {
			what = "Preallocated"
		}
		k.find(block.Corruption, "ERROR offset=%x: %s cluster is not properly aligned; L2 entry corrupted.", int64(host), what)
	}
	if !k.d.external {
		k.referTimes(uint64(host), g.clusterSize, times)
	}
}

// countExtensions counts what header extensions refer to.
func (k *checker) countExtensions() {
	k.countBitmaps()
	if b := k.d.hdr.find(extCrypto); len(b) >= 16 {
		t := decodeTable(b[:16])
		k.refer(t[0], int64(t[1]))
	}
}

// countReftable counts the refcount table.
func (k *checker) countReftable() error {
	d := k.d
	if d.reftable == nil {
		err := d.loadReftable()
		if errors.As(err, new(noReftable)) {
			k.missReftable()
			return nil
		}
		if err != nil {
			return err
		}
	}
	k.reftable = slices.Clone(d.reftable)
	k.referTable(metaReftable, d.hdr.reftableOffset, int64(len(k.reftable))*8)
	return nil
}

// missReftable tells where the header looks for a refcount table that is not
// there. All refcounts are 0 then.
func (k *checker) missReftable() {
	h := k.d.hdr
	if h.reftableClusters > 0 && h.reftableOffset > 0 {
		k.findOutside(h.reftableOffset, int64(h.reftableClusters)<<k.d.geo.clusterBits)
		k.badBlocks++
	}
}

// countRefblocks counts the refcount blocks.
func (k *checker) countRefblocks() {
	for i := range k.reftable {
		if k.reftable[i] != 0 && !k.countRefblock(i) {
			k.badBlocks++
		}
	}
}

// countRefblock counts a refcount block. If it can't be where its entry says, it
// is taken for missing.
func (k *checker) countRefblock(i int) bool {
	g := &k.d.geo
	entry := k.reftable[i]
	off := entry &^ reftableReserved
	if entry&reftableReserved != 0 {
		k.find(block.Corruption, "ERROR refcount table entry %d has reserved bits set", i)
		if off < uint64(k.fileSize) {
			k.named = max(k.named, int64(off>>g.clusterBits)+1)
		}
		return false
	}
	switch {
	case off&uint64(g.clusterSize-1) != 0:
		k.find(block.Corruption, "ERROR refcount block %d is not cluster aligned; refcount table entry corrupted", i)
		k.reftable[i] = 0
		return false
	case off >= uint64(k.fileSize):
		k.find(block.Corruption, "ERROR refcount block %d is outside image", i)
		k.reftable[i] = 0
		return false
	}
	k.refer(off, g.clusterSize)
	c := int64(off) >> g.clusterBits
	k.blocks = append(k.blocks, c)
	if n := k.refs.get(c); n != 1 {
		k.find(block.Corruption, "ERROR refcount block %d refcount=%d", i, n)
		k.reftable[i] = 0
		return false
	}
	return true
}
