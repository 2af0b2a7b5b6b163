package qcow2

import (
	"encoding/binary"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Refcounts: the refcount table in memory, refcount blocks in cached slices.
// All functions here need mu exclusively. Facts: qcow2 specification, "Host
// cluster management".

// getRef returns the i-th refcount of a piece of a block; widths below a byte
// fill bytes from the low bits up.
func getRef(b []byte, i int64, order uint) uint64 {
	switch order {
	case 3:
		return uint64(b[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(b[2*i:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(b[4*i:]))
	case 6:
		return binary.BigEndian.Uint64(b[8*i:])
	}
	shift := uint(i) & (1<<(3-order) - 1) << order
	return uint64(b[i>>(3-order)]) >> shift & (1<<(1<<order) - 1)
}

// setRef is the reverse of getRef.
func setRef(b []byte, i int64, order uint, v uint64) {
	switch order {
	case 3:
		b[i] = byte(v)
	case 4:
		binary.BigEndian.PutUint16(b[2*i:], uint16(v))
	case 5:
		binary.BigEndian.PutUint32(b[4*i:], uint32(v))
	case 6:
		binary.BigEndian.PutUint64(b[8*i:], v)
	default:
		shift := uint(i) & (1<<(3-order) - 1) << order
		mask := byte(1<<(1<<order)-1) << shift
		at := i >> (3 - order)
		b[at] = b[at]&^mask | byte(v)<<shift
	}
}

// nextFree returns the index of the first refcount from i on that is 0, or how many
// there are. Most are not, where a large image is searched: words are skipped.
func nextFree(b []byte, i int64, order uint) int64 {
	n, word := int64(len(b))<<3>>order, int64(64)>>order
	for i < n && getRef(b, i, order) != 0 {
		i++
		for i&(word-1) == 0 && i < n && !hasZero(binary.NativeEndian.Uint64(b[i<<order>>3:]), order) {
			i += word
		}
	}
	return i
}

// hasZero reports whether one of the refcounts in a word is 0: then taking 1 from
// each borrows at the highest bit of one in which that bit was not set.
func hasZero(x uint64, order uint) bool {
	ones := ^uint64(0)
	if order < 6 {
		ones /= 1<<(1<<order) - 1
	} else {
		ones = 1
	}
	return (x-ones)&^x&(ones<<(1<<order-1)) != 0
}

// refSlice returns the cached piece of a refcount block with the count of
// cluster c and the index of the count in it; nil if there is no such block and
// so all its counts are 0.
func (d *disk) refSlice(c int64) (*cache.Block, int64, error) {
	table := c >> d.geo.refBits
	if table >= int64(len(d.reftable)) {
		return nil, 0, nil
	}
	block := hostOff(d.reftable[table] &^ reftableReserved)
	if block == 0 {
		return nil, 0, nil
	}
	if err := d.validRefblock(block, table); err != nil {
		return nil, 0, err
	}
	perSlice := int64(d.refs.BlockSize()) << 3 >> d.geo.refOrder
	i := c & (1<<d.geo.refBits - 1)
	b, err := d.loadRefs(block + hostOff(i/perSlice*int64(d.refs.BlockSize())))
	return b, i % perSlice, err
}

func (d *disk) validRefblock(off hostOff, table int64) error {
	if int64(off)&(d.geo.clusterSize-1) != 0 || off >= maxHostOffset {
		return d.corrupt(block.Corruptf("Refblock offset %#x unaligned (reftable index: %#x)", int64(off), table))
	}
	return nil
}

func (d *disk) loadRefs(slice hostOff) (*cache.Block, error) {
	if b := d.refs.Get(int64(slice)); b != nil {
		return b, nil
	}
	// A block that is named twice would be counted in twice, and each search
	// for space would go through it as often.
	if err := d.mayWriteMeta(metaRefblock, slice, int64(d.refs.BlockSize())); err != nil {
		return nil, err
	}
	d.event(block.EventRefblockLoad)
	data := make([]byte, d.refs.BlockSize())
	if err := d.readTable("refcount block", data, slice); err != nil {
		return nil, err
	}
	return d.refs.Put(int64(slice), data), nil
}

// refcount returns the count of cluster c.
func (d *disk) refcount(c int64) (uint64, error) {
	b, i, err := d.refSlice(c)
	if b == nil || err != nil {
		return 0, err
	}
	return getRef(b.Data, i, d.geo.refOrder), nil
}

// addRef adds delta, 1 or -1, to the count of cluster c, whose block exists.
func (d *disk) addRef(c int64, delta int) error {
	if err := d.markUnclean(); err != nil {
		return err
	}
	b, i, err := d.refSlice(c)
	if err != nil {
		return err
	}
	var v uint64
	if b != nil {
		v = getRef(b.Data, i, d.geo.refOrder)
	}
	switch {
	case delta < 0 && v == 0:
		return d.corrupt(block.Corruptf("cluster %#x is freed, but its refcount is 0", c<<d.geo.clusterBits))
	case delta > 0 && v == d.geo.maxRefcount():
		return block.Errorf(block.ErrNoSpace, "refcount of cluster %#x is at its limit of %d", c<<d.geo.clusterBits, v)
	case b == nil:
		return d.corrupt(block.Corruptf("cluster %#x has no refcount block", c<<d.geo.clusterBits))
	}
	v += uint64(delta)
	setRef(b.Data, i, d.geo.refOrder, v)
	d.refs.MarkDirty(b)
	if v == 0 {
		return d.freed(c)
	}
	return nil
}

// freed notes that cluster c can be allocated again. Of metadata, only what has
// been replaced may be freed.
func (d *disk) freed(c int64) error {
	if r, ok := d.meta.hit(c, 1); ok && r.kind != metaReplaced {
		return d.corrupt(block.Corruptf("Preventing freeing of metadata (%s) at offset %#x", r.kind, c<<d.geo.clusterBits))
	}
	d.searchFrom = min(d.searchFrom, c)
	if d.punching {
		d.holes = appendRun(d.holes, hostRun{start: c, n: 1})
	}
	if d.pack>>d.geo.clusterBits == hostOff(c) {
		d.pack = 0
	}
	if _, ok := d.meta.hit(c, 1); ok {
		d.meta.remove(c, 1)
		d.l2.Forget(c<<d.geo.clusterBits, d.geo.clusterSize)
		d.refs.Forget(c<<d.geo.clusterBits, d.geo.clusterSize)
	}
	return nil
}

// release notes that n clusters from c on lost one reference each. Their counts
// fall after the links that said so are on disk (see retire).
func (d *disk) release(c, n int64) {
	d.unlinked = appendRun(d.unlinked, hostRun{start: c, n: n, hole: d.discards.passes(d.cause)})
	if d.cause == byRequest {
		d.reclaimable.Add(n)
	}
}

// appendRun adds a run to a list, as part of the last one if it follows that.
func appendRun(list []hostRun, r hostRun) []hostRun {
	if k := len(list) - 1; k >= 0 && list[k].start+list[k].n == r.start && list[k].hole == r.hole {
		list[k].n += r.n
		return list
	}
	return append(list, r)
}

// releaseEntry gives up what an L2 entry refers to.
func (d *disk) releaseEntry(e l2Entry) {
	if d.external {
		return
	}
	if e.compressed() {
		off, n := d.geo.compressedRange(e.desc)
		first, last := int64(off)>>d.geo.clusterBits, (int64(off)+n-1)>>d.geo.clusterBits
		d.release(first, last-first+1)
		return
	}
	if e.host() != 0 {
		d.release(int64(e.host())>>d.geo.clusterBits, 1)
	}
}

// missingRefblock returns the index of the first refcount block that the clusters
// from start on have not, -1 if they have all.
func (d *disk) missingRefblock(start, n int64) int64 {
	for i := start >> d.geo.refBits; i <= (start+n-1)>>d.geo.refBits; i++ {
		if !d.hasRefblock(i) {
			return i
		}
	}
	return -1
}

func (d *disk) hasRefblock(i int64) bool {
	return i < int64(len(d.reftable)) && d.reftable[i]&^reftableReserved != 0
}

// newRefblock is a step towards refcount block i: the block itself, or first a
// larger table for it, or the block that counts the cluster where it will lie.
func (d *disk) newRefblock(i int64) error {
	d.event(block.EventRefblockAlloc)
	if i >= int64(len(d.reftable)) {
		return d.growReftable(i)
	}
	c, err := d.placeRefblock(i)
	if err != nil {
		return err
	}
	if by := c >> d.geo.refBits; by != i && !d.hasRefblock(by) {
		return d.newRefblock(by)
	}
	if err := d.mayAllocate(c, 1); err != nil {
		return err
	}
	return d.writeRefblock(i, c)
}

// placeRefblock finds the cluster for refcount block i. While a flush runs it is one
// that the block counts itself: elsewhere the flush may yet write what was counted
// before, and the header must not lead to a block whose count is not on disk.
func (d *disk) placeRefblock(i int64) (int64, error) {
	if d.flushing {
		return i << d.geo.refBits, nil
	}
	return d.findFree(1)
}

// writeRefblock writes the refcount block i to cluster c and counts that, which may
// well be in the block itself.
func (d *disk) writeRefblock(i, c int64) error {
	g := &d.geo
	data := make([]byte, g.clusterSize)
	own := c>>g.refBits == i
	if own {
		setRef(data, c&(1<<g.refBits-1), g.refOrder, 1)
	}
	d.event(block.EventRefblockAllocWrite)
	if _, err := d.file.WriteAt(data, c<<g.clusterBits); err != nil {
		return err
	}
	if !own {
		if err := d.addRef(c, 1); err != nil {
			return err
		}
	}
	d.extend(c + 1)
	d.claim(metaRefblock, hostOff(c<<g.clusterBits), g.clusterSize)
	d.setReftable(i, uint64(c<<g.clusterBits))
	return nil
}

func (d *disk) setReftable(i int64, entry uint64) {
	d.reftable[i] = entry
	d.reftableDirty[i/64] = true
}

// growReftable moves the refcount table to where it has room for entry i, and for
// half as many again as will be in use. The new table, behind the refcount blocks
// that count both, lies behind all that block i will count, which is behind all
// that the old table covers, so none of it is known to anybody before the header
// says so. The size and the place are those that QEMU chooses.
func (d *disk) growReftable(i int64) error {
	d.event(block.EventReftableGrow)
	g := &d.geo
	first := (i + 1) << g.refBits
	blocks, table := int64(0), int64(0)
	for blocks<<g.refBits < i+1+table {
		blocks++
		table = g.clusters((i + 1 + blocks) * 3 / 2 * 8)
	}
	table = min(table, maxReftableBytes>>g.clusterBits)
	if need := i + 1 + blocks; need > table<<g.clusterBits/8 {
		return block.Errorf(block.ErrNoSpace, "refcount table needs %d entries, the limit is %d", need, table<<g.clusterBits/8)
	}
	if (first+table+blocks)<<g.clusterBits >= maxHostOffset {
		return block.Errorf(block.ErrNoSpace, "refcount table would lie beyond offset %#x", int64(maxHostOffset))
	}
	if err := d.mayAllocate(first, table+blocks); err != nil {
		return err
	}
	entries := make([]uint64, table<<g.clusterBits/8)
	copy(entries, d.reftable)
	return d.writeNewReftable(entries, first, blocks)
}

// writeNewReftable puts so many refcount blocks at cluster first and the table
// behind them, and switches the header over.
func (d *disk) writeNewReftable(table []uint64, first, blocks int64) error {
	g := &d.geo
	tableClusters := int64(len(table)) * 8 >> g.clusterBits
	counts := make([]byte, blocks<<g.clusterBits)
	for i := range tableClusters + blocks {
		setRef(counts[i>>g.refBits*g.clusterSize:], i&(1<<g.refBits-1), g.refOrder, 1)
	}
	for i := range blocks {
		table[first>>g.refBits+i] = uint64((first + i) << g.clusterBits)
	}
	d.event(block.EventRefblockAllocBlocks)
	d.event(block.EventRefblockAllocTable)
	d.extend(first + blocks + tableClusters) // also if only a part gets there
	if _, err := d.file.WriteAt(append(counts, encodeTable(table)...), first<<g.clusterBits); err != nil {
		return err
	}
	// Before the header names the new table, it and all blocks that it names
	// must be on disk, with what counts those.
	unwritten := &batch{counts: cachePieces(metaRefblock, d.refs.Unwritten())}
	if err := d.mayWriteBatch(unwritten); err != nil {
		return err
	}
	if err := d.writePieces(unwritten.counts); err != nil {
		return d.poison(err)
	}
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	d.claim(metaRefblock, hostOff(first<<g.clusterBits), blocks<<g.clusterBits)
	return d.switchReftable(table, hostOff((first+blocks)<<g.clusterBits), tableClusters)
}

// switchReftable has the header name a refcount table, which is on disk.
func (d *disk) switchReftable(table []uint64, off hostOff, clusters int64) error {
	d.event(block.EventRefblockAllocSwitch)
	field := binary.BigEndian.AppendUint64(nil, uint64(off))
	if err := d.patchHeader(atReftable, binary.BigEndian.AppendUint32(field, uint32(clusters))); err != nil {
		return err
	}
	old := d.reftablePlace()
	d.hdr.reftableOffset, d.hdr.reftableClusters = uint64(off), uint32(clusters)
	d.reftable = table
	clear(d.reftableDirty)
	d.claim(metaReftable, off, clusters<<d.geo.clusterBits)
	return d.freeTable(old)
}

func encodeTable(t []uint64) []byte {
	b := make([]byte, 8*len(t))
	for i, v := range t {
		binary.BigEndian.PutUint64(b[8*i:], v)
	}
	return b
}

func decodeTable(b []byte) []uint64 {
	t := make([]uint64, len(b)/8)
	for i := range t {
		t[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return t
}
