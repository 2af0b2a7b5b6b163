package qcow2

import (
	"encoding/binary"

	"github.com/diskimg/diskimg/block"
)

// Repair: refcounts and COPIED flags set to what the references say. Counts
// rise before flags are set, flags change before counts fall: at no time is
// there a cluster that somebody may write in place and somebody else refers to.

// recoverDirty makes the refcounts of an image right that was not closed, and
// clears its dirty bit. Needs to be the only user of d.
func (d *disk) recoverDirty() error {
	res, err := d.check(block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	if err != nil {
		return err
	}
	if res.Errors > 0 || res.Corruptions > res.CorruptionsFixed {
		return block.Corruptf("the image was not closed and can't be repaired: %d corruptions, %d of them repaired, and %d errors while checking", res.Corruptions, res.CorruptionsFixed, res.Errors)
	}
	d.hdr.incompat &^= incompatDirty
	return d.patchHeader(atIncompat, be64(d.hdr.incompat))
}

// repair sets what is wrong right. Needs mu exclusively.
func (k *checker) repair() error {
	up, down, missing := k.split()
	if k.o.FixCorruptions && missing {
		if err := k.rebuild(); err != nil {
			return err
		}
		k.res.CorruptionsFixed += int64(len(up))
		k.res.LeaksFixed += int64(len(down))
		up, down = nil, nil
	}
	if k.o.FixCorruptions {
		if err := k.setCounts(up, &k.res.CorruptionsFixed); err != nil {
			return err
		}
		if err := k.setFlags(); err != nil {
			return err
		}
	}
	if k.o.FixLeaks {
		return k.setCounts(down, &k.res.LeaksFixed)
	}
	return nil
}

// split sorts the wrong counts into those to rise and those to fall. missing
// says that some have no refcount block.
func (k *checker) split() (up, down []int64, missing bool) {
	for _, c := range k.badCounts {
		has := k.hasBlock(c >> k.d.geo.refBits)
		var have uint64
		if has {
			have, _ = k.d.refcount(c) // it could be read a moment ago
		}
		missing = missing || !has
		if have < k.refs.get(c) {
			up = append(up, c)
		} else {
			down = append(down, c)
		}
	}
	return up, down, missing
}

// setCounts sets refcounts to what was counted and makes them durable.
func (k *checker) setCounts(clusters []int64, fixed *int64) error {
	d := k.d
	for _, c := range clusters {
		b, i, err := d.refSlice(c)
		if err != nil {
			return err
		}
		want := k.refs.get(c)
		if want > d.geo.maxRefcount() {
			return block.Errorf(block.ErrNoSpace, "cluster %d has %d references, refcounts of this image end at %d", c, want, d.geo.maxRefcount())
		}
		setRef(b.Data, i, d.geo.refOrder, want)
		d.refs.MarkDirty(b)
		if want == 0 {
			if err := d.freed(c); err != nil {
				return err
			}
		}
		*fixed++
	}
	return d.writeCounts()
}

// setFlags sets COPIED flags. After the counts are on disk.
func (k *checker) setFlags() error {
	d := k.d
	for _, f := range k.badFlags {
		if f.l1 >= 0 {
			d.setL1(f.l1, withFlag(d.l1[f.l1], f.want))
			continue
		}
		size := hostOff(d.l2.BlockSize())
		slice := f.off &^ (size - 1)
		b := d.l2.Get(int64(slice))
		if b == nil {
			data := make([]byte, size)
			if err := d.readTable("L2 table", data, slice); err != nil {
				return err
			}
			b = d.l2.Put(int64(slice), data)
		}
		at := int(f.off - slice)
		e := d.entryAt(b, at)
		e.desc = withFlag(e.desc, f.want)
		d.setEntry(b, at, e)
	}
	k.res.CorruptionsFixed += k.flagFindings
	return k.writeLinks()
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
// is referenced, and switches the header over to it. The old ones are then
// referred to by nothing.
func (k *checker) rebuild() error {
	d, g := k.d, &k.d.geo
	k.dropOldRefcounts()
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	first := max(k.refs.end(), g.clusters(size))
	tableClusters, blocks := k.sizeRefcounts(first)
	if tableClusters<<g.clusterBits > maxReftableBytes {
		return block.Errorf(block.ErrNoSpace, "refcount table needs %d bytes, the limit is %d", tableClusters<<g.clusterBits, maxReftableBytes)
	}
	table := make([]uint64, tableClusters<<g.clusterBits/8)
	next := first + tableClusters
	k.refer(uint64(first<<g.clusterBits), (tableClusters+int64(len(blocks)))<<g.clusterBits)
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
	return k.switchReftable(table, first<<g.clusterBits, tableClusters)
}

// dropOldRefcounts takes the references of the old structures back.
func (k *checker) dropOldRefcounts() {
	d, g := k.d, &k.d.geo
	drop := func(c int64) {
		if p := k.refs.page(c >> refPageBits); p != nil && p[c&(1<<refPageBits-1)] > 0 {
			p[c&(1<<refPageBits-1)]--
		}
	}
	for i := range int64(d.hdr.reftableClusters) {
		drop(int64(d.hdr.reftableOffset)>>g.clusterBits + i)
	}
	for _, e := range k.reftable {
		if e != 0 {
			drop(int64(e&^reftableReserved) >> g.clusterBits)
		}
	}
}

// sizeRefcounts returns how many clusters the new table needs, and which blocks
// are needed when table and blocks lie from cluster first on.
func (k *checker) sizeRefcounts(first int64) (tableClusters int64, blocks []int64) {
	g := &k.d.geo
	used := make(map[int64]bool)
	for n := range k.refs.pages {
		for c := n << refPageBits; c < (n+1)<<refPageBits; c++ {
			if k.refs.get(c) != 0 {
				used[c>>g.refBits] = true
			}
		}
	}
	for tableClusters = 1; ; {
		end := first + tableClusters + int64(len(used))
		for i := first >> g.refBits; i <= (end-1)>>g.refBits; i++ {
			used[i] = true
		}
		need := ((end-1)>>g.refBits + 1) * 8
		if first+tableClusters+int64(len(used)) == end && need <= tableClusters<<g.clusterBits {
			break
		}
		tableClusters = max(tableClusters, g.clusters(need))
	}
	for i := range used {
		blocks = append(blocks, i)
	}
	return tableClusters, blocks
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
	d.freeHint = 0
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	d.fileEnd = d.geo.clusters(size)
	return d.mapMetadata()
}
