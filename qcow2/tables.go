package qcow2

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// L1 in memory, L2 tables in cached slices. Changes stay in memory until a
// flush; see doc.go for the order.

// maxSlice is how much of an L2 table or refcount block is cached at once.
const maxSlice = 4096

// readTable reads a piece of a table. Before memory is taken or a seek made by
// an offset from the image, it has been checked; here the file's end is: a
// table that is cut short is never read as zeros.
func (d *disk) readTable(what string, p []byte, off hostOff) error {
	_, err := d.file.ReadAt(p, int64(off))
	switch err {
	case nil:
		return nil
	case io.EOF:
		// A read that ends exactly at the end of the file may say EOF as well.
		if size, serr := d.file.Size(); serr == nil && int64(off)+int64(len(p)) <= size {
			return nil
		}
		return cutShort{block.Corruptf("%s at %#x lies beyond the end of the file", what, int64(off))}
	}
	return err
}

// cutShort is the error of a table that the file ends before.
type cutShort struct{ error }

// Unwrap returns the error with its kind.
func (e cutShort) Unwrap() error { return e.error }

// l2Table returns the offset of the L2 table for off, 0 if there is none.
// Needs mu.
func (d *disk) l2Table(off guestOff) (hostOff, error) {
	i := d.geo.l1Index(off)
	if i >= int64(len(d.l1)) {
		return 0, block.Corruptf("L1 table has %d entries, guest offset %#x needs entry %d", len(d.l1), int64(off), i)
	}
	table := hostOff(d.l1[i] & offsetMask)
	if int64(table)&(d.geo.clusterSize-1) != 0 {
		return 0, damage(block.Corruptf("L2 table offset %s unaligned (L1 index: %s)", hex(int64(table)), hex(i)))
	}
	return table, nil
}

// slicePlace returns where the slice with the entry of off lies in a table, and
// at which byte of it the entry stands.
func (d *disk) slicePlace(table hostOff, off guestOff) (slice hostOff, at int) {
	byteInTable := d.geo.l2Index(off) << d.geo.entryBits
	size := int64(d.l2.BlockSize())
	return table + hostOff(byteInTable&^(size-1)), int(byteInTable & (size - 1))
}

func (d *disk) entryAt(b *cache.Block, at int) l2Entry { return d.decodeEntry(b.Data[at:]) }

func (d *disk) decodeEntry(p []byte) l2Entry {
	e := l2Entry{desc: binary.BigEndian.Uint64(p)}
	if d.geo.extended {
		e.bitmap = binary.BigEndian.Uint64(p[8:])
	}
	return e
}

// setEntry changes an L2 entry in memory. Needs mu exclusively.
func (d *disk) setEntry(b *cache.Block, at int, e l2Entry) {
	binary.BigEndian.PutUint64(b.Data[at:], e.desc)
	if d.geo.extended {
		binary.BigEndian.PutUint64(b.Data[at+8:], e.bitmap)
	}
	d.l2.MarkDirty(b)
}

// setLink is setEntry for an entry that leads to data written just now.
func (d *disk) setLink(b *cache.Block, at int, e l2Entry) {
	d.setEntry(b, at, e)
	d.newData = true
}

// loadSlice brings an L2 slice into the cache. Takes mu.
func (d *disk) loadSlice(slice hostOff) error {
	d.cleanCaches()
	return d.l2.Load(&d.mu, int64(slice), func(p []byte) error {
		d.event(block.EventL2Load)
		return d.readTable("L2 table", p, slice)
	})
}

// cleanCaches lets go of tables that have not been used for a while. Takes mu.
func (d *disk) cleanCaches() {
	if d.cleanAfter < 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.cleaned) >= d.cleanAfter {
		d.l2.DropUnused()
		d.refs.DropUnused()
		d.cleaned = time.Now()
	}
}

// setL1 changes an L1 entry in memory. Needs mu exclusively.
func (d *disk) setL1(i int64, entry uint64) {
	d.l1[i] = entry
	d.l1Dirty[i/64] = true
}

// ownTable makes sure that the L2 table for off exists and is only ours, so
// that entries in it can be set. Needs mu exclusively; writes the new table.
func (d *disk) ownTable(off guestOff) error {
	old, err := d.l2Table(off)
	if err != nil {
		return err
	}
	i := d.geo.l1Index(off)
	if old != 0 && d.l1[i]&flagCopied != 0 {
		return nil
	}
	data := make([]byte, d.geo.clusterSize)
	if old != 0 {
		if err := d.mayWriteMeta(metaL2, old, d.geo.clusterSize); err != nil {
			return err
		}
		d.event(block.EventL2AllocCOWRead)
		if err := d.readWholeL2(data, old); err != nil {
			return err
		}
	}
	table, err := d.newTable(metaL2, data)
	if err != nil {
		return err
	}
	d.setL1(i, uint64(table)|flagCopied)
	if old != 0 {
		d.replaced(old, d.geo.clusterSize)
	}
	return nil
}

// readWholeL2 reads an L2 table as it is in memory where it is cached.
func (d *disk) readWholeL2(data []byte, table hostOff) error {
	if err := d.readTable("L2 table", data, table); err != nil {
		return err
	}
	size := d.l2.BlockSize()
	for at := 0; at < len(data); at += size {
		if b := d.l2.Get(int64(table) + int64(at)); b != nil {
			copy(data[at:], b.Data)
		}
	}
	return nil
}

// newTable allocates a cluster for a table and writes it. After this the
// table's place on disk is its own, and a full disk can't stop later changes.
// Needs mu exclusively.
func (d *disk) newTable(kind metaKind, data []byte) (hostOff, error) {
	run, err := d.alloc(1)
	if err != nil {
		return 0, err
	}
	off := run.off(&d.geo)
	if kind == metaL2 {
		d.event(block.EventL2AllocWrite)
	}
	if _, err := d.file.WriteAt(data, int64(off)); err != nil {
		d.unalloc(run)
		return 0, err
	}
	d.l2.Forget(int64(off), d.geo.clusterSize) // of a table that was here before
	d.claim(kind, off, d.geo.clusterSize)
	return off, nil
}
