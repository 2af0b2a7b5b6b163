package qed

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/diskimg/diskimg/block"
)

// Check: every cluster is referred to at most once, and every entry leads into
// the file ("Consistency checking"). What is read is never trusted: an entry
// that can't be followed is a finding and is not followed, and so is a table in
// a place that something else has, so that no byte is read twice.

// checker is one run of a check. The image does not change meanwhile.
type checker struct {
	d    *disk
	o    *block.CheckOptions
	ctx  context.Context
	res  block.CheckResult
	fix  bool
	used clusterSet
	last uint64 // the data cluster before, for counting fragments
}

// Check implements block.Checker. Both ways of fixing clear entries that lead
// out of the file, as QEMU does; neither gives leaks back, and of two entries
// that lead to one cluster nothing tells which is wrong.
func (d *disk) Check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
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
	return d.check(ctx, o)
}

// check is Check without its locks, when nothing waits to be written. Needs mu
// exclusively.
func (d *disk) check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
	k := &checker{d: d, o: &o, ctx: ctx, fix: o.FixLeaks || o.FixCorruptions}
	err := k.run()
	if err == nil && k.fix {
		err = k.finish()
	}
	if err == nil && d.writable && d.sealed == nil && k.res.Corruptions == k.res.CorruptionsFixed {
		d.trusted.Store(true)
	}
	return k.res, err
}

// examine checks the tables once, before the first write: in an image where
// two entries lead to one place, or one out of the file, a write could hit
// anything.
func (d *disk) examine() error {
	if d.trusted.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.broken != nil:
		return d.broken
	case d.sealed != nil:
		return d.sealed
	case d.trusted.Load():
		return nil
	}
	var first string
	r, err := d.check(context.Background(), block.CheckOptions{Report: func(f block.Finding) {
		if f.Severity == block.Corruption && first == "" {
			first = f.Text
		}
	}})
	if err == nil && r.Corruptions > 0 {
		err = block.Corruptf("the image is corrupt and can't be written before it is repaired: %s", first)
	}
	return err
}

// run looks at everything, from the header on.
func (k *checker) run() error {
	d, g := k.d, &k.d.geo
	k.res.Clusters = g.clusters(d.Size())
	k.refer("header", 0, int64(g.firstHost))
	k.refer("L1 table", d.hdr.l1Offset, g.tableBytes)
	for i, table := range d.l1 {
		if err := k.ctx.Err(); err != nil {
			return err
		}
		if k.o.Progress != nil && i%4096 == 0 {
			k.o.Progress(int64(i), int64(len(d.l1)))
		}
		if table == 0 {
			continue
		}
		if err := k.l1Entry(int64(i), table); err != nil {
			return err
		}
	}
	k.leaks()
	return nil
}

// l1Entry follows an entry of the L1 table.
func (k *checker) l1Entry(i int64, table uint64) error {
	g := &k.d.geo
	if !g.inFile(table, g.tableBytes, k.d.fileEnd) {
		k.find(block.Corruption, k.fix, "ERROR L1 entry %d: L2 table offset %#x is invalid", i, table)
		if k.fix {
			k.d.setL1(i, 0)
		}
		return nil
	}
	alone := k.refer("L2 table", table, g.tableBytes)
	if k.used.full {
		return block.Unsupportedf("the clusters in use lie too far apart to be checked")
	}
	if !alone {
		return nil
	}
	return k.l2Table(hostOff(table))
}

// checkChunk is how much of a table is read at once, or a cluster if that is
// smaller: tables are clusters, so chunks of them are aligned to their size.
const checkChunk = 64 << 10

// l2Table looks at an L2 table. Holes in the file have no entries.
func (k *checker) l2Table(table hostOff) error {
	end := table + hostOff(k.d.geo.tableBytes)
	b := make([]byte, min(checkChunk, k.d.geo.clusterSize))
	for at := table; at < end; at += hostOff(len(b)) {
		data, _, err := block.NextData(k.d.file, int64(at))
		if err != nil {
			return err
		}
		at = max(at, hostOff(data&^int64(len(b)-1)))
		if at >= end {
			return nil
		}
		if err := readExact(k.d.file, "L2 table", b, at); err != nil {
			return err
		}
		if err := k.l2Chunk(b, at); err != nil {
			return err
		}
	}
	return nil
}

// l2Chunk looks at the entries in b, which stand at an offset of the file.
func (k *checker) l2Chunk(b []byte, at hostOff) error {
	changed := false
	for i := 0; i < len(b); i += 8 {
		entry := binary.LittleEndian.Uint64(b[i:])
		if entry <= zeroCluster {
			continue
		}
		if !k.dataCluster(entry, at+hostOff(i)) && k.fix {
			clear(b[i : i+8])
			changed = true
		}
	}
	if k.used.full {
		return block.Unsupportedf("the clusters in use lie too far apart to be checked")
	}
	if !changed {
		return nil
	}
	k.d.l2.Forget(int64(at), int64(len(b)))
	if _, err := k.d.file.WriteAt(b, int64(at)); err != nil {
		return k.d.poison(err)
	}
	return nil
}

// dataCluster counts a data cluster, and reports whether its offset is valid.
func (k *checker) dataCluster(entry uint64, at hostOff) bool {
	g := &k.d.geo
	k.res.Allocated++
	if k.last != 0 && entry != k.last+uint64(g.clusterSize) {
		k.res.Fragmented++
	}
	k.last = entry
	if !g.inFile(entry, g.clusterSize, k.d.fileEnd) {
		k.find(block.Corruption, k.fix, "ERROR L2 entry at %#x: data cluster offset %#x is invalid", int64(at), entry)
		return false
	}
	k.refer("data cluster", entry, g.clusterSize)
	return true
}

// refer counts a reference to the clusters of [off, off+n), each of which is a
// corruption if it has one, and reports whether none has.
func (k *checker) refer(what string, off uint64, n int64) (alone bool) {
	alone = true
	for c, end := int64(off)>>k.d.geo.clusterBits, (int64(off)+n)>>k.d.geo.clusterBits; c < end && !k.used.full; c++ {
		if k.used.add(c) {
			continue
		}
		alone = false
		k.find(block.Corruption, false, "ERROR cluster at %#x (%s) is in use already", c<<k.d.geo.clusterBits, what)
	}
	return alone
}

// leaks counts the clusters that nothing refers to.
func (k *checker) leaks() {
	total := int64(k.d.fileEnd) >> k.d.geo.clusterBits
	if k.res.Leaks = total - k.used.n; k.res.Leaks > 0 {
		k.report(block.Leak, false, "%d clusters are leaked", k.res.Leaks)
	}
}

func (k *checker) find(s block.Severity, fixed bool, format string, args ...any) {
	k.res.Corruptions++
	if fixed {
		k.res.CorruptionsFixed++
	}
	k.report(s, fixed, format, args...)
}

func (k *checker) report(s block.Severity, fixed bool, format string, args ...any) {
	if k.o.Report != nil {
		k.o.Report(block.Finding{Severity: s, Text: block.Corruptf(format, args...).Error(), Offset: -1, Fixed: fixed})
	}
}

// finish writes what was fixed in the L1 table and, if nothing but leaks is
// left, clears the need check bit.
func (k *checker) finish() error {
	d := k.d
	if k.res.CorruptionsFixed > 0 {
		if err := d.writePieces(d.l1Pieces()); err != nil {
			return d.poison(err)
		}
		// Before the need check bit is cleared, what was fixed must be on disk.
		if err := d.sync(); err != nil {
			return d.poison(err)
		}
	}
	if k.res.Corruptions == k.res.CorruptionsFixed {
		d.clearNeedCheck()
	}
	return d.broken
}

// clusterSet is a set of clusters. It takes memory for those that are in it, in
// pages, up to a limit that a disk of 64 TiB with clusters of 64 KiB fits in.
type clusterSet struct {
	pages map[int64]*clusterPage
	last  *clusterPage
	at    int64 // page number of last
	n     int64 // clusters in the set
	full  bool
}

const (
	clusterPageBits = 10
	maxClusterPages = 1 << 20
)

type clusterPage [1 << clusterPageBits / 64]uint64

// add puts c into the set and reports whether it was not there.
func (s *clusterSet) add(c int64) bool {
	p := s.page(c >> clusterPageBits)
	if p == nil {
		return true
	}
	word, bit := c>>6&(1<<clusterPageBits/64-1), uint64(1)<<(c&63)
	if p[word]&bit != 0 {
		return false
	}
	p[word] |= bit
	s.n++
	return true
}

// page returns a page of the set, nil if the set is full.
func (s *clusterSet) page(n int64) *clusterPage {
	if s.last != nil && s.at == n {
		return s.last
	}
	p := s.pages[n]
	if p == nil {
		if s.full = s.full || len(s.pages) >= maxClusterPages; s.full {
			return nil
		}
		if s.pages == nil {
			s.pages = make(map[int64]*clusterPage)
		}
		p = new(clusterPage)
		s.pages[n] = p
	}
	s.last, s.at = p, n
	return p
}
