package vhd

import (
	"github.com/diskimg/diskimg/block"
)

// Guest writes. Sectors that have their bits are written in place. For all else
// the block is locked; data goes to the file, and after it, in memory, what
// refers to it.

// WriteAt implements block.Layer.
func (d *disk) WriteAt(p []byte, off int64) error {
	if err := d.enter(off, int64(len(p))); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	for len(p) > 0 {
		n, err := d.writeRun(p, off)
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeRun writes the start of p, within one block, and returns how much.
func (d *disk) writeRun(p []byte, off int64) (int64, error) {
	host, n, err := d.inPlace(off, min(int64(len(p)), d.restOfBlock(off)))
	if err != nil {
		return 0, err
	}
	if n > 0 {
		_, err := d.file.WriteAt(p[:n], host)
		return n, err
	}
	if err := d.relieve(); err != nil {
		return 0, err
	}
	n = min(int64(len(p)), d.restOfBlock(off))
	return n, d.writeNew(p[:n], off)
}

// restOfBlock returns how many bytes lie from off to the end of its block.
func (d *disk) restOfBlock(off int64) int64 { return d.blockSize - off&(d.blockSize-1) }

// inPlace returns where the bytes from off on can be written without a change
// of a table; n is 0 if the first can't.
func (d *disk) inPlace(off, n int64) (host, run int64, err error) {
	for {
		e, missing, err := d.mayWrite(off, n)
		if err != nil {
			return 0, 0, err
		}
		if missing == 0 {
			if e.Kind != block.Data {
				return 0, 0, nil
			}
			return e.Offset, e.Length, nil
		}
		if err := d.loadBitmap(missing); err != nil {
			return 0, 0, err
		}
	}
}

// mayWrite is resolve for writes. Takes mu, shared.
func (d *disk) mayWrite(off, n int64) (block.Extent, int64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.damage != nil:
		return block.Extent{}, 0, d.damage
	case d.broken != nil:
		return block.Extent{}, 0, d.broken
	case d.sealed != nil:
		return block.Extent{}, 0, d.sealed
	}
	return d.resolve(off, n)
}

// relieve flushes when so many bitmaps have changed that the cache can't
// hold others.
func (d *disk) relieve() error {
	d.mu.RLock()
	pressed := d.bitmaps.Pressed()
	d.mu.RUnlock()
	if !pressed {
		return nil
	}
	return d.Flush()
}

// writeNew writes p, which lies in one block, where the block or bits are
// missing.
func (d *disk) writeNew(p []byte, off int64) error {
	return d.change(off, int64(len(p)), func(host func(int64) int64, fresh bool) error {
		q, from, err := d.widen(p, off, fresh)
		if err != nil {
			return err
		}
		_, err = d.file.WriteAt(q, host(from))
		return err
	})
}

// change has fill write [off, off+n), which lies in one block, and then sets
// its bits. host says where in the file a guest offset of the block is; fresh
// that the block reads as zero and all its bits are set.
func (d *disk) change(off, n int64, fill func(host func(int64) int64, fresh bool) error) error {
	start := off &^ (d.blockSize - 1)
	r := d.ranges.Acquire(start, d.blockSize)
	defer d.ranges.Release(r)

	d.mu.RLock()
	entry := d.bat[start>>d.blockBits]
	d.mu.RUnlock()
	if entry != unused {
		data := int64(entry)*sectorSize + d.bitmapSize - start
		if err := fill(func(at int64) int64 { return data + at }, false); err != nil {
			return err
		}
		return d.mark(off, n)
	}
	b, err := d.alloc(start >> d.blockBits)
	if err != nil {
		return err
	}
	if err := d.fillNew(b, fill); err != nil {
		d.undo(b)
		return err
	}
	return d.mark(off, n)
}

// fillNew writes a new block and links it.
func (d *disk) fillNew(b newBlock, fill func(host func(int64) int64, fresh bool) error) error {
	// Before the block is linked its bitmap must be there: where it is now was
	// a footer.
	if _, err := d.file.WriteAt(d.firstBitmap(), b.place); err != nil {
		return err
	}
	data := b.place + d.bitmapSize - b.index<<d.blockBits
	if err := fill(func(at int64) int64 { return data + at }, !d.differencing); err != nil {
		return err
	}
	return d.link(b)
}

// widen returns p with what is around it in its first and last sector, where
// those have no bits yet, and where it begins.
func (d *disk) widen(p []byte, off int64, fresh bool) ([]byte, int64, error) {
	from, to := off, off+int64(len(p))
	if fresh {
		return p, from, nil
	}
	lone := func(at int64) (bool, error) {
		if at%sectorSize == 0 {
			return false, nil
		}
		_, n, err := d.inPlace(at, 1)
		return n == 0, err
	}
	first, err := lone(from)
	if err != nil {
		return nil, 0, err
	}
	last, err := lone(to)
	if err != nil || !first && !last {
		return p, from, err
	}
	if first {
		from = from / sectorSize * sectorSize
	}
	if last {
		to = roundUp(to, sectorSize)
	}
	q := make([]byte, to-from)
	err = d.readEdges(q, from, first, last)
	copy(q[off-from:], p)
	return q, from, err
}

// readEdges reads what the first and the last sector of q hold now.
func (d *disk) readEdges(q []byte, from int64, first, last bool) error {
	read := func(at int64) error { return d.self.ReadZeroFilled(q[at:at+sectorSize], from+at) }
	if first {
		if err := read(0); err != nil {
			return err
		}
	}
	if last {
		return read(int64(len(q)) - sectorSize)
	}
	return nil
}

// mark sets the bits of all sectors that [off, off+n) touches, after their data
// is in the file. Takes mu.
func (d *disk) mark(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	end := off + n
	for at := off / sectorSize * sectorSize; at < end; {
		place, bit := d.bitOf(at)
		b, err := d.bitmapAt(place)
		if err != nil {
			return err
		}
		for ; bit < sectorSize*8 && at < end; bit, at = bit+1, at+sectorSize {
			if !getBit(b.Data, bit) {
				setBit(b.Data, bit)
				d.bitmaps.MarkDirty(b)
			}
		}
	}
	return nil
}
