package vhd

import (
	"fmt"
	"slices"

	"github.com/diskimg/diskimg/internal/cache"
)

// Flush: the footer behind the last block, then what refers to data.

// piece is a sector of a table as it is to be written.
type piece struct {
	off  int64
	data []byte
}

// Flush implements block.Layer.
func (d *disk) Flush() error {
	if !d.writable {
		return nil
	}
	return d.flushes.Do(d.flush)
}

// flush is a flush; only one runs at a time. Takes mu.
func (d *disk) flush() error {
	d.mu.Lock()
	err := d.writeTail()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	links, taken, err := d.collect()
	if err != nil {
		return err
	}
	err = d.writeLinks(links)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bitmaps.Written(taken)
	if err != nil {
		return d.poison(err)
	}
	return d.broken
}

// writeTail writes the footer after the last block. The lock keeps away who
// would put a block there. Needs mu.
func (d *disk) writeTail() error {
	if d.broken != nil || !d.tailDirty || d.damage != nil {
		return d.broken
	}
	if _, err := d.file.WriteAt(d.foot.encode(), d.end); err != nil {
		return fmt.Errorf("writing the footer: %w", err)
	}
	d.tailDirty = false
	return nil
}

// collect takes what has changed in the tables, with the bytes as they are now.
// Takes mu.
func (d *disk) collect() (links []piece, taken []*cache.Block, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, nil, d.broken
	}
	for s := range d.batDirty {
		links = append(links, piece{int64(d.hdr.tableOffset) + s*sectorSize, d.tableSector(s)})
	}
	clear(d.batDirty)
	taken = d.bitmaps.TakeDirty()
	for _, b := range taken {
		links = append(links, piece{b.Off, slices.Clone(b.Data)})
	}
	slices.SortFunc(links, func(a, b piece) int { return int(a.off - b.off) })
	return links, taken, nil
}

// tableSector encodes a sector of the BAT; entries that are not kept in memory
// are not in it.
func (d *disk) tableSector(s int64) []byte {
	const entries = sectorSize / 4
	return encodeTable(d.bat[s*entries : min((s+1)*entries, int64(len(d.bat)))])
}

// writeLinks makes all that has been written so far durable, and after it what
// refers to it.
func (d *disk) writeLinks(links []piece) error {
	// Before anything refers to data, the data must be on disk, and with it
	// the first bitmaps of blocks and the length of the file.
	if err := d.sync(); err != nil || len(links) == 0 {
		return err
	}
	for _, p := range links {
		if _, err := d.file.WriteAt(p.data, p.off); err != nil {
			return err
		}
	}
	return d.sync()
}

func (d *disk) sync() error {
	if d.noSync {
		return nil
	}
	return d.file.Sync()
}
