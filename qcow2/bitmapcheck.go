package qcow2

import "github.com/diskimg/diskimg/block"

// Checking bitmaps: what they refer to is counted like all else.

// countBitmaps counts the bitmap directory, the tables and the clusters of
// bitmaps.
func (k *checker) countBitmaps() {
	d := k.d
	p, ok, err := d.bitmapPlace()
	if !ok {
		return
	}
	if err != nil {
		k.find(block.Corruption, "ERROR bitmaps: %v", err)
		return
	}
	k.referTable(metaBitmaps, uint64(p.off), p.size)
	list, err := d.readBitmaps(maxBitmapDirectory)
	if err != nil {
		k.find(block.Corruption, "ERROR bitmaps: %v", err)
		return
	}
	for _, b := range list {
		if b.why != nil && b.flags&bitmapInUse == 0 {
			k.find(block.Corruption, "ERROR bitmap: %v", b.why)
		}
		k.countBitmap(b)
	}
}

// countBitmap counts a bitmap, in use or not: its table is right either way.
func (k *checker) countBitmap(b *bitmap) {
	d := k.d
	if b.entries == 0 && b.table == 0 {
		return
	}
	if !d.hasTable(b) {
		k.find(block.Corruption, "ERROR bitmap '%s': table of %d entries at %#x is not where one can be", b.name, b.entries, int64(b.table))
		return
	}
	// Tables that are each their own are not longer than the file.
	if k.bitmapTables += b.entries * 8; k.bitmapTables > k.fileSize {
		k.find(block.Corruption, "ERROR bitmap '%s': table of %d entries at %#x shares its place with others", b.name, b.entries, int64(b.table))
		return
	}
	k.referTable(metaBitmaps, uint64(b.table), b.entries*8)
	const step = 8192
	at := b.table
	for left := b.entries; left > 0; left -= step {
		p := make([]byte, 8*min(left, step))
		if err := d.readTable("bitmap table", p, at); err != nil {
			k.find(block.CheckFailure, "ERROR bitmap '%s': %v", b.name, err)
			return
		}
		for i, e := range decodeTable(p) {
			k.countBitmapEntry(b, b.entries-left+int64(i), e)
		}
		at += 8 * step
	}
}

func (k *checker) countBitmapEntry(b *bitmap, i int64, e uint64) {
	if e == 0 || e == tableAllOnes {
		return
	}
	if err := k.d.validBitmapEntry(e); err != nil {
		k.find(block.Corruption, "ERROR bitmap '%s', table entry %d: %v", b.name, i, err)
		return
	}
	k.refer(e&offsetMask, k.d.geo.clusterSize)
}
