package qed

import (
	"encoding/binary"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// L1 in memory, L2 tables in cached slices. Changes stay in memory until a
// flush; see doc.go for the order.

// sliceSize is how much of an L2 table is cached at once.
const sliceSize = 4096

// l2Table returns the offset of the L2 table for off, 0 if there is none. Needs
// mu.
func (d *disk) l2Table(off guestOff) (hostOff, error) {
	i := d.geo.l1Index(off)
	if i >= int64(len(d.l1)) {
		return 0, block.Corruptf("L1 table has %d entries, guest offset %#x needs entry %d", len(d.l1), int64(off), i)
	}
	table := d.l1[i]
	if table != 0 && !d.geo.inFile(table, d.geo.tableBytes, d.fileEnd) {
		return 0, block.Corruptf("QED L2 table offset %#x is invalid (L1 index: %#x)", table, i)
	}
	return hostOff(table), nil
}

// slicePlace returns where the slice with the entry of off lies in a table, and
// at which byte of it the entry stands.
func (d *disk) slicePlace(table hostOff, off guestOff) (slice hostOff, at int) {
	byteInTable := d.geo.l2Index(off) * 8
	return table + hostOff(byteInTable&^(sliceSize-1)), int(byteInTable & (sliceSize - 1))
}

// sliceSpan returns how many guest bytes lie from off to the end of what the
// L2 slice with its entry maps.
func (d *disk) sliceSpan(off guestOff) int64 {
	span := int64(sliceSize/8) << d.geo.clusterBits
	return span - int64(off)&(span-1)
}

func entryAt(b *cache.Block, at int) uint64 { return binary.LittleEndian.Uint64(b.Data[at:]) }

// setEntry changes an L2 entry in memory. Needs mu exclusively.
func (d *disk) setEntry(b *cache.Block, at int, entry uint64) {
	binary.LittleEndian.PutUint64(b.Data[at:], entry)
	d.l2.MarkDirty(b)
}

// lookup returns the cached slice and place of the entry for off. The table
// must exist. Needs mu; b is nil if the slice has to be loaded first.
func (d *disk) lookup(off guestOff) (b *cache.Block, at int, slice hostOff, err error) {
	table, err := d.l2Table(off)
	if err != nil || table == 0 {
		return nil, 0, 0, err
	}
	slice, at = d.slicePlace(table, off)
	return d.l2.Get(int64(slice)), at, slice, nil
}

// loadSlice brings an L2 slice into the cache. Takes mu.
func (d *disk) loadSlice(slice hostOff) error {
	return d.l2.Load(&d.mu, int64(slice), func(p []byte) error { return readExact(d.file, "L2 table", p, slice) })
}

// setL1 changes an L1 entry in memory. Needs mu exclusively.
func (d *disk) setL1(i int64, table hostOff) {
	d.l1[i] = uint64(table)
	d.l1Dirty[i/64] = true
}

// ownTable makes sure that there is an L2 table for off. Needs mu exclusively;
// writes the new table, so that a full disk shows where nothing is lost yet.
func (d *disk) ownTable(off guestOff) error {
	table, err := d.l2Table(off)
	if err != nil || table != 0 {
		return err
	}
	table, err = d.alloc(d.geo.tableBytes)
	if err != nil {
		return err
	}
	if err := block.WriteZeroes(d.file, int64(table), d.geo.tableBytes); err != nil {
		d.unalloc(table, d.geo.tableBytes)
		return err
	}
	d.length = max(d.length, table+hostOff(d.geo.tableBytes))
	d.l2.Forget(int64(table), d.geo.tableBytes) // of a table that was here and could not be kept
	d.setL1(d.geo.l1Index(off), table)
	d.newData = true
	return nil
}
