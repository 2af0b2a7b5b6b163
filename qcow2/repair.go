package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// Repair: refcounts and COPIED flags set to what the references say. Counts
// rise before flags are set, flags change before counts fall: at no time is
// there a cluster that somebody may write in place and somebody else refers to.

// recoverDirty makes the refcounts of an image right that was not closed, and
// clears its dirty bit. If not all that is wrong can be put right, nothing is
// changed. Needs to be the only user of d.
func (d *disk) recoverDirty() error {
	k, err := d.look(context.Background(), &block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	if err != nil {
		return err
	}
	if k.res.Errors > 0 || k.res.Corruptions > k.repairable() {
		return block.Corruptf("the image was not closed and can't be repaired: %d corruptions, %d of them can be, and %d errors while checking", k.res.Corruptions, k.repairable(), k.res.Errors)
	}
	k.inPlace = true
	if err := k.repair(); err != nil {
		return err
	}
	return d.markSound()
}

// markSound clears the marks of an image that was not closed or that damage was
// found in. After all that was wrong with it has been put right on disk.
func (d *disk) markSound() error {
	const marks = incompatDirty | incompatCorrupt
	if d.hdr.incompat&marks == 0 {
		return nil
	}
	d.hdr.incompat &^= marks
	return d.patchHeader(atIncompat, be64(d.hdr.incompat))
}

// repairable returns how many corruptions a repair ends.
func (k *checker) repairable() int64 {
	return k.tooLow + k.badFlags + k.badBlocks + k.badSnapshots + int64(len(k.misplaced))
}

// repair sets what is wrong right. Needs mu exclusively.
func (k *checker) repair() error {
	if err := k.mayRepair(); err != nil || k.tooMany {
		return err
	}
	// Before counts fall: what the entries that are mended led to was counted out.
	if err := k.mendEntries(); err != nil {
		return err
	}
	if err := k.mendCounts(); err != nil || !k.fixesFlags {
		return err
	}
	if err := k.setFlags(); err != nil {
		return err
	}
	return k.mendSnapshots()
}

// mendSnapshots writes the snapshot table anew if it has to be. After refcounts are
// right, by which its new place is found.
func (k *checker) mendSnapshots() error {
	if k.badSnapshots == 0 {
		return nil
	}
	complete(k.snapshots.records)
	k.d.used.Store(true)
	if err := k.d.writeSnapshots(k.snapshots.records, k.snapshots.size); err != nil {
		return err
	}
	k.res.CorruptionsFixed += k.badSnapshots
	return nil
}

// mendEntries takes the space away from entries that set it aside where none can
// be. What they read as stays.
func (k *checker) mendEntries() error {
	for _, at := range k.misplaced {
		err := k.changeEntry(at, func(e *l2Entry) {
			e.desc &= flagZero
		})
		if err != nil {
			return err
		}
	}
	k.res.CorruptionsFixed += int64(len(k.misplaced))
	return k.writeLinks()
}

// mayRepair refuses a repair that could not be brought to an end.
func (k *checker) mayRepair() error {
	if k.overlaps > 0 {
		return block.Corruptf("%d clusters of metadata are referred to as something else too; that can't be repaired, but the disk can be copied to a new image", k.overlaps)
	}
	return nil
}

func (k *checker) mendCounts() error {
	if !k.needsRebuild() {
		return k.setCounts()
	}
	if err := k.rebuild(); err != nil {
		return err
	}
	k.res.CorruptionsFixed += k.tooLow + k.badBlocks
	k.res.LeaksFixed += k.tooHigh
	return nil
}

// needsRebuild reports whether the refcounts are to be mended, and not one by one:
// blocks are missing, or what is in use counts as free, so that something else
// may have been put there. An image that was just not closed is known to have
// such refcounts.
func (k *checker) needsRebuild() bool {
	return k.o.FixCorruptions && (k.missing+k.badBlocks > 0 || k.lost > 0 && !k.inPlace)
}

// setCounts sets refcounts to what was counted and makes them durable, those
// that rise first.
func (k *checker) setCounts() error {
	if k.o.FixCorruptions && k.tooLow > 0 {
		if err := k.setWhere(func(have, want uint64) bool { return have < want }, &k.res.CorruptionsFixed); err != nil {
			return err
		}
	}
	if k.o.FixLeaks && k.tooHigh > 0 {
		return k.setWhere(func(have, want uint64) bool { return have > want }, &k.res.LeaksFixed)
	}
	return nil
}

// setWhere sets the refcounts that are wrong in one way. Each has a block.
func (k *checker) setWhere(wrong func(have, want uint64) bool, fixed *int64) error {
	d := k.d
	err := k.eachCount(func(c int64, have, want uint64) error {
		if !wrong(have, want) {
			return nil
		}
		b, i, err := d.refSlice(c)
		if err != nil {
			return err
		}
		setRef(b.Data, i, d.geo.refOrder, want)
		d.refs.MarkDirty(b)
		*fixed++
		if want == 0 {
			err = d.freed(c)
		}
		if err == nil && d.refs.Pressed() {
			err = d.writeCounts()
		}
		return err
	}, func(int64, error) {})
	if err != nil {
		return err
	}
	return d.writeCounts()
}

// setFlags sets COPIED flags to what the refcounts say. After those are on disk.
func (k *checker) setFlags() error {
	k.recent = nil
	err := k.eachFlag(0, len(k.d.l1), func(f flag) error {
		count := k.counts(f.cluster)
		if count == 1 == f.copied() {
			return nil
		}
		k.fixing(block.Corruption, "Repairing OFLAG_COPIED %s refcount=%d", f, count)
		return k.setFlag(f, count == 1)
	})
	if err != nil {
		return err
	}
	k.res.CorruptionsFixed += k.badFlags
	return k.writeLinks()
}

func (k *checker) setFlag(f flag, want bool) error {
	d := k.d
	if f.l1 >= 0 {
		d.setL1(f.l1, withFlag(d.l1[f.l1], want))
		return nil
	}
	return k.changeEntry(f.off, func(e *l2Entry) { e.desc = withFlag(e.desc, want) })
}

// changeEntry changes the L2 entry at off in the file.
func (k *checker) changeEntry(off hostOff, change func(e *l2Entry)) error {
	d := k.d
	size := hostOff(d.l2.BlockSize())
	slice := off &^ (size - 1)
	b := d.l2.Get(int64(slice))
	if b == nil {
		data := make([]byte, size)
		if err := d.readTable("L2 table", data, slice); err != nil {
			return err
		}
		b = d.l2.Put(int64(slice), data)
	}
	at := int(off - slice)
	e := d.entryAt(b, at)
	change(&e)
	d.setEntry(b, at, e)
	if d.l2.Pressed() {
		return k.writeLinks()
	}
	return nil
}

func withFlag(entry uint64, copied bool) uint64 {
	if copied {
		return entry | flagCopied
	}
	return entry &^ flagCopied
}

// writeLinks writes dirty L2 and L1 entries and syncs.
func (k *checker) writeLinks() error {
	d := k.d
	b := &batch{blocks: d.l2.TakeDirty()}
	b.links = append(cachePieces(metaL2, b.blocks), tablePieces(metaL1, d.hdr.l1Offset, d.l1, d.l1Dirty)...)
	defer d.l2.Written(b.blocks)
	if err := d.mayWriteBatch(b); err != nil {
		return err
	}
	if err := d.writeBatch(b); err != nil {
		return d.poison(err)
	}
	return nil
}

// rebuild writes a whole new set of refcount structures behind everything that
// is or was referred to, where what the file may hold is nobody's, and switches the header over to it. The old ones are then
// referred to by nothing.
func (k *checker) rebuild() error {
	d, g := k.d, &k.d.geo
	if k.outside > 0 {
		return block.Corruptf("refcounts can't be rebuilt while tables refer to offset %#x, beyond the end of the file: the new ones would lie there", k.outside-1)
	}
	k.fixing(block.Corruption, "Rebuilding refcount structure")
	old := k.dropOldRefcounts()
	// Until the header names the new structures, those that it names now stay as
	// they are: the new ones lie behind them, too.
	first := max(k.refs.end(), k.named)
	tableClusters, blocks, err := k.sizeRefcounts(first)
	if err != nil {
		return err
	}
	table := make([]uint64, tableClusters<<g.clusterBits/8)
	next := first + tableClusters
	k.fileSize = (next + int64(len(blocks))) << g.clusterBits
	k.refer(uint64(first<<g.clusterBits), k.fileSize-first<<g.clusterBits)
	data := make([]byte, g.clusterSize)
	for _, i := range blocks {
		clear(data)
		for j := range int64(1) << g.refBits {
			setRef(data, j, g.refOrder, k.refs.get(i<<g.refBits+j))
		}
		if _, err := d.file.WriteAt(data, next<<g.clusterBits); err != nil {
			return err
		}
		table[i] = uint64(next << g.clusterBits)
		next++
	}
	if _, err := d.file.WriteAt(encodeTable(table), first<<g.clusterBits); err != nil {
		return err
	}
	if err := k.switchReftable(table, first<<g.clusterBits, tableClusters); err != nil {
		return err
	}
	return k.recount(old)
}

// recount tells once more what is wrong besides refcounts, and then that the
// structures in the old clusters are given back.
func (k *checker) recount(old []block.Finding) error {
	again := &checker{d: k.d, o: &block.CheckOptions{Report: k.o.Report}, ctx: k.ctx, refs: newRefMap(), claimed: map[int64]metaKind{}, snapshots: k.snapshots}
	if err := again.count(); err != nil {
		return err
	}
	for _, f := range old {
		k.report(f)
	}
	return nil
}

// dropOldRefcounts takes the references of the old structures back, and returns
// what there is to tell about that.
func (k *checker) dropOldRefcounts() (told []block.Finding) {
	old := slices.Clone(k.blocks)
	for i := range k.d.geo.clusters(int64(len(k.reftable)) * 8) { // none if the table is not there
		old = append(old, int64(k.d.hdr.reftableOffset)>>k.d.geo.clusterBits+i)
	}
	slices.Sort(old)
	for _, c := range old {
		n := k.refs.get(c)
		k.refs.drop(c)
		told = append(told, block.Finding{Severity: block.Leak, Offset: -1, Fixed: true, Text: fmt.Sprintf("Repairing cluster %d refcount=%d reference=%d", c, n, k.refs.get(c))})
	}
	return told
}

// sizeRefcounts returns how many clusters the new table needs, and which blocks
// are needed when table and blocks lie from cluster first on.
func (k *checker) sizeRefcounts(first int64) (tableClusters int64, blocks []int64, err error) {
	g := &k.d.geo
	used := make(map[int64]bool)
	for c := range k.refs.words() {
		used[c>>g.refBits] = true
	}
	tableClusters, err = g.sizeRefcounts(used, first)
	return tableClusters, slices.Sorted(maps.Keys(used)), err
}

// switchReftable makes the new table the image's, in the file and in memory.
func (k *checker) switchReftable(table []uint64, off, clusters int64) error {
	d := k.d
	// Before the header names the new table, it and its blocks must be on disk.
	if err := d.syncTables(); err != nil {
		return d.poison(err)
	}
	var field [12]byte
	binary.BigEndian.PutUint64(field[:], uint64(off))
	binary.BigEndian.PutUint32(field[8:], uint32(clusters))
	if err := d.patchHeader(atReftable, field[:]); err != nil {
		return err
	}
	d.hdr.reftableOffset, d.hdr.reftableClusters = uint64(off), uint32(clusters)
	for _, e := range d.reftable {
		d.refs.Forget(int64(e&^reftableReserved), d.geo.clusterSize)
	}
	d.reftable, k.reftable = table, table
	clear(d.reftableDirty)
	d.searchFrom = 0
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	d.fileEnd = d.geo.clusters(size)
	return d.mapMetadata()
}
