package qcow2

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// The map of all clusters that hold metadata. Before anything is written, its
// place is looked up here: metadata must hit what it is meant for, guest data
// must hit none. A hit is a corrupt image: it is marked so and refuses writes.

type metaKind uint8

const (
	metaHeader metaKind = iota
	metaL1
	metaL2
	metaReftable
	metaRefblock
	metaSnapshots
	metaInactiveL1
	metaInactiveL2 // of snapshots only; claimed if that is asked for
	metaBitmaps
	metaCrypt
	metaReplaced // a table that is referred to no more, until it is freed
	metaConflict // more than one structure claims it
)

var metaNames = [...]string{
	"qcow2_header", "active L1 table", "active L2 table", "refcount table", "refcount block",
	"snapshot table", "inactive L1 table", "inactive L2 table", "bitmap directory", "encryption header", "replaced table", "several structures at once",
}

func (k metaKind) String() string { return metaNames[k] }

// OverlapTemplates are sets of overlap checks by their names: each is the name of
// a structure that a write must not hit.
var OverlapTemplates = map[string][]string{
	"none":     {},
	"constant": {"main-header", "active-l1", "refcount-table", "snapshot-table", "bitmap-directory"},
	"cached":   {"main-header", "active-l1", "refcount-table", "snapshot-table", "bitmap-directory", "active-l2", "refcount-block", "inactive-l1"},
	"all":      {"main-header", "active-l1", "refcount-table", "snapshot-table", "bitmap-directory", "active-l2", "refcount-block", "inactive-l1", "inactive-l2"},
}

var overlapKinds = map[string]metaKind{
	"main-header": metaHeader, "active-l1": metaL1, "active-l2": metaL2, "refcount-table": metaReftable, "refcount-block": metaRefblock,
	"snapshot-table": metaSnapshots, "inactive-l1": metaInactiveL1, "inactive-l2": metaInactiveL2,
	"bitmap-directory": metaBitmaps,
}

// uncheckedKinds returns the kinds that names of checks stand for.
func uncheckedKinds(names []string) map[metaKind]bool {
	kinds := make(map[metaKind]bool)
	for _, name := range names {
		if kind, ok := overlapKinds[name]; ok {
			kinds[kind] = true
		}
	}
	return kinds
}

// hitMeta returns the first run of metadata that overlaps [first, first+n) and is
// to be checked. Needs mu.
func (d *disk) hitMeta(first, n int64) (metaRun, bool) {
	for end := first + n; first < end; {
		r, ok := d.meta.hit(first, end-first)
		if !ok || !d.unchecked[r.kind] {
			return r, ok
		}
		first = r.end
	}
	return metaRun{}, false
}

// metaRun is a run of clusters [start, end) of one kind.
type metaRun struct {
	start, end int64
	kind       metaKind
}

// metaMap is a sorted list of runs that do not overlap.
type metaMap struct{ runs []metaRun }

// at returns the index of the first run that ends after cluster c.
func (m *metaMap) at(c int64) int {
	return sort.Search(len(m.runs), func(i int) bool { return m.runs[i].end > c })
}

// hit returns the first run that overlaps [start, start+n).
func (m *metaMap) hit(start, n int64) (metaRun, bool) {
	i := m.at(start)
	if i == len(m.runs) || m.runs[i].start >= start+n {
		return metaRun{}, false
	}
	return m.runs[i], true
}

// is reports whether all of [start, start+n) is of the kind.
func (m *metaMap) is(kind metaKind, start, n int64) bool {
	for end := start + n; start < end; {
		r, ok := m.hit(start, 1)
		if !ok || r.kind != kind {
			return false
		}
		start = r.end
	}
	return true
}

// add claims [start, start+n) for a kind. What is claimed already becomes a
// conflict.
func (m *metaMap) add(kind metaKind, start, n int64) {
	for end := start + n; start < end; {
		i := m.at(start)
		if i == len(m.runs) || m.runs[i].start > start {
			stop := end
			if i < len(m.runs) {
				stop = min(end, m.runs[i].start)
			}
			m.insert(i, metaRun{start, stop, kind})
			start = stop
			continue
		}
		stop := min(end, m.runs[i].end)
		if m.runs[i].kind != metaConflict {
			m.remove(start, stop-start)
			m.insert(m.at(start), metaRun{start, stop, metaConflict})
		}
		start = stop
	}
}

// insert puts r, which overlaps nothing, before runs[i], as part of a
// neighbour of its kind if it can.
func (m *metaMap) insert(i int, r metaRun) {
	if i > 0 && m.runs[i-1].kind == r.kind && m.runs[i-1].end == r.start {
		m.runs[i-1].end = r.end
		return
	}
	m.runs = slices.Insert(m.runs, i, r)
}

// remove gives [start, start+n) up.
func (m *metaMap) remove(start, n int64) {
	end := start + n
	for i := m.at(start); i < len(m.runs) && m.runs[i].start < end; i = m.at(start) {
		r := m.runs[i]
		var keep []metaRun
		if r.start < start {
			keep = append(keep, metaRun{r.start, start, r.kind})
		}
		if r.end > end {
			keep = append(keep, metaRun{end, r.end, r.kind})
		}
		m.runs = slices.Replace(m.runs, i, i+1, keep...)
	}
}

// metaCollector builds a map out of claims in any order, which is cheaper than
// adding them one by one.
type metaCollector struct {
	geo  *geometry
	runs []metaRun
}

// add claims n bytes at off.
func (m *metaCollector) add(kind metaKind, off uint64, n int64) {
	if n > 0 {
		start := int64(off >> m.geo.clusterBits)
		m.runs = append(m.runs, metaRun{start, start + m.geo.clusters(n), kind})
	}
}

// addTable claims the cluster that a table entry refers to, if it does.
func (m *metaCollector) addTable(kind metaKind, off uint64) {
	if off != 0 {
		m.add(kind, off, m.geo.clusterSize)
	}
}

func (m *metaCollector) build() metaMap {
	slices.SortFunc(m.runs, func(a, b metaRun) int { return cmp.Compare(a.start, b.start) })
	var out metaMap
	for _, r := range m.runs {
		if k := len(out.runs); k > 0 && out.runs[k-1].end > r.start {
			out.add(r.kind, r.start, r.end-r.start)
			continue
		}
		out.insert(len(out.runs), r)
	}
	return out
}

// claim adds a table of n bytes at off to the map.
func (d *disk) claim(kind metaKind, off hostOff, n int64) {
	d.meta.add(kind, int64(off)>>d.geo.clusterBits, d.geo.clusters(n))
}

// replaced gives up a table of n bytes at off, which mayWriteMeta has found to
// be nothing else. It stays claimed until it is freed. Needs mu exclusively.
func (d *disk) replaced(off hostOff, n int64) {
	first, count := int64(off)>>d.geo.clusterBits, d.geo.clusters(n)
	d.markReplaced(first, count)
	d.release(first, count)
}

func (d *disk) markReplaced(first, n int64) {
	d.meta.remove(first, n)
	d.meta.add(metaReplaced, first, n)
}

// freeTable is replaced for a table that is no longer named on disk either: it is
// free at once. While a flush runs that may still write it, it waits for the next
// one. Needs mu exclusively.
func (d *disk) freeTable(r hostRun) error {
	d.markReplaced(r.start, r.n)
	if d.flushing || d.discards.passes(d.cause) {
		d.release(r.start, r.n)
		return nil
	}
	return d.countDown(&[]hostRun{r})
}

// mayWriteMeta refuses a write of n bytes of a kind at off that would touch
// anything else. Needs mu.
func (d *disk) mayWriteMeta(kind metaKind, off hostOff, n int64) error {
	first := int64(off) >> d.geo.clusterBits
	count := (int64(off)+n-1)>>d.geo.clusterBits - first + 1
	if d.meta.is(kind, first, count) {
		return nil
	}
	other := "space that is not its own"
	if r, ok := d.meta.hit(first, count); ok && r.kind != kind {
		other = r.kind.String()
	}
	return d.corrupt(overlap(other, "%s at %#x", kind, int64(off)))
}

// overlap says that something can't be written because of what else is there.
func overlap(with, format string, args ...any) error {
	return block.Detailf(block.ErrCorrupt, "Preventing invalid write on metadata (overlaps with "+with+")", format, args...)
}

// damagedEntry says where the L2 entry is that err has been found in. Needs mu.
func (d *disk) damagedEntry(e l2Entry, off guestOff, err error) error {
	return d.describeDamage(e, off, "Invalid cluster entry found", err)
}

func (d *disk) describeDamage(e l2Entry, off guestOff, invalid string, err error) error {
	table, _ := d.l2Table(off)
	where := fmt.Sprintf("(L2 offset: %s, L2 index: %s)", hex(int64(table)), hex(d.geo.l2Index(off)))
	text := invalid + " " + where
	switch {
	case d.misplaced(e):
		text = fmt.Sprintf("Cluster allocation offset %s unaligned %s", hex(int64(e.host())), where)
	case !d.geo.v3 && e.desc&flagZero != 0 && !e.compressed():
		text = "Zero cluster entry found in pre-v3 image " + where
	case d.external && e.compressed():
		text = "Compressed cluster entry found in image with external data file " + where
	}
	return damage(block.Detailf(block.ErrCorrupt, text, "%w", err))
}

// misplaced reports whether an entry names a place where no cluster can be.
func (d *disk) misplaced(e l2Entry) bool { return !e.compressed() && d.geo.unaligned(e) }

// misplacedData says so to who wants to write at off.
func (d *disk) misplacedData(e l2Entry, off guestOff, err error) error {
	what := "Data cluster"
	if d.geo.setAside(e) {
		what = "Preallocated zero cluster"
	}
	text := fmt.Sprintf("%s offset %s unaligned (guest offset: %s)", what, hex(int64(e.host())), hex(int64(off)))
	return damage(block.Detailf(block.ErrCorrupt, text, "%w", err))
}

// hex is a number as messages of QEMU have it.
func hex(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

// mayGiveUp refuses to free metadata as if it were what an L2 entry refers to.
// Needs mu, at least shared.
func (d *disk) mayGiveUp(e l2Entry) error {
	switch {
	case e.compressed():
		off, n := d.geo.compressedRange(e.desc)
		return d.mayWriteData(off, n)
	case int64(e.host())&(d.geo.clusterSize-1) != 0:
		return damage(block.Corruptf("cluster offset %#x is not a multiple of the cluster size %d", int64(e.host()), d.geo.clusterSize))
	case e.host() != 0:
		return d.mayWriteData(e.host(), d.geo.clusterSize)
	}
	return nil
}

// mayReplace is mayGiveUp for n entries of the slice b, from at on.
func (d *disk) mayReplace(b *cache.Block, at int, n int64) error {
	for i := range int(n) {
		if err := d.mayGiveUp(d.entryAt(b, at+i<<d.geo.entryBits)); err != nil {
			return err
		}
	}
	return nil
}

// mayWriteData refuses guest data in clusters that hold metadata, and in those
// that an entry names although nothing has ever been there. Needs mu, at least
// shared.
func (d *disk) mayWriteData(off hostOff, n int64) error {
	if d.external {
		return nil
	}
	first := int64(off) >> d.geo.clusterBits
	count := (int64(off)+n-1)>>d.geo.clusterBits - first + 1
	if r, ok := d.hitMeta(first, count); ok {
		return damage(overlap(r.kind.String(), "data cluster at %#x", int64(off)))
	}
	if first+count > d.fileEnd {
		return damage(block.Corruptf("data cluster at %#x lies beyond the end of the file", int64(off)))
	}
	return nil
}
