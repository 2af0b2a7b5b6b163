package qed

import (
	"encoding/binary"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Flush: dirty tables to the file in the order that doc.go gives.

// piece is a part of a table as it is to be written.
type piece struct {
	off  hostOff
	data []byte
}

// batch is all that one flush writes: a copy of the dirty tables at one instant.
type batch struct {
	links   []piece
	newData bool // entries lead to what was written since the last sync
	blocks  []*cache.Block
}

// Flush implements block.Layer.
func (d *disk) Flush() error {
	if !d.writable {
		return nil
	}
	return d.flushes.Do(d.flush)
}

func (d *disk) flush() error {
	b, err := d.collect()
	if err != nil {
		return err
	}
	err = d.writeBatch(b)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.l2.Written(b.blocks)
	if err != nil {
		return d.poison(err)
	}
	return nil
}

// collect takes the dirty tables, with their bytes as they are now. Takes mu.
func (d *disk) collect() (*batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	b := &batch{newData: d.newData, blocks: d.l2.TakeDirty()}
	d.newData = false
	for _, x := range b.blocks {
		b.links = append(b.links, piece{hostOff(x.Off), slices.Clone(x.Data)})
	}
	b.links = append(b.links, d.l1Pieces()...)
	return b, nil
}

// l1Pieces encodes the dirty sectors of the L1 table and counts them as clean.
// Needs mu exclusively.
func (d *disk) l1Pieces() (list []piece) {
	for sector := range d.l1Dirty {
		data := make([]byte, 0, 512)
		for _, e := range d.l1[sector*64:][:64] {
			data = binary.LittleEndian.AppendUint64(data, e)
		}
		list = append(list, piece{hostOff(d.hdr.l1Offset) + hostOff(sector*512), data})
	}
	clear(d.l1Dirty)
	return list
}

// writeBatch is the order of writes.
func (d *disk) writeBatch(b *batch) error {
	if len(b.links) > 0 {
		// Before an entry is written, the data or the table that it leads to
		// must be on disk, and the length of the file.
		if b.newData {
			if err := d.sync(); err != nil {
				return err
			}
		}
		if err := d.writePieces(b.links); err != nil {
			return err
		}
	}
	// Before the need check bit is cleared, and before Flush returns, entries
	// and data must be on disk.
	return d.sync()
}

func (d *disk) sync() error {
	if d.noSync {
		return nil
	}
	return d.file.Sync()
}

// writePieces writes pieces in the order of their offsets, neighbours at once.
func (d *disk) writePieces(list []piece) error {
	slices.SortFunc(list, func(a, b piece) int { return int(a.off>>9) - int(b.off>>9) })
	for len(list) > 0 {
		n, data := 1, list[0].data
		for n < len(list) && list[n].off == list[0].off+hostOff(len(data)) {
			data = append(data, list[n].data...)
			n++
		}
		if _, err := d.file.WriteAt(data, int64(list[0].off)); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// relieve flushes when too much waits to be written. Takes mu; call it with
// nothing locked but a range.
func (d *disk) relieve() error {
	d.mu.RLock()
	full := d.l2.Pressed()
	d.mu.RUnlock()
	if !full {
		return nil
	}
	return d.Flush()
}

// patchHeader writes a field of the header and makes it durable. Needs mu
// exclusively.
func (d *disk) patchHeader(at int64, field []byte) error {
	if d.broken != nil {
		return d.broken
	}
	if _, err := d.file.WriteAt(field, at); err != nil {
		return d.poison(err)
	}
	if err := d.sync(); err != nil {
		return d.poison(err)
	}
	return nil
}

// poison ends all writing through this handle: after a failed metadata write
// or sync it is not known what is on disk. Needs mu exclusively.
func (d *disk) poison(err error) error {
	if d.broken == nil {
		d.broken = block.Errorf(block.ErrBroken, "image can no longer be written, writing its tables failed: %w", err)
	}
	return d.broken
}
