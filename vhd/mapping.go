package vhd

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cache"
)

// Resolve: from a guest range to where it lives. Reads take mu shared and
// allocate nothing when the bitmaps are cached.

// Resolve implements block.Layer.
func (d *disk) Resolve(off, n int64) (block.Extent, error) {
	for {
		d.mu.RLock()
		e, missing, err := d.resolve(off, n)
		d.mu.RUnlock()
		if missing == 0 || err != nil {
			return e, err
		}
		if err := d.loadBitmap(missing); err != nil {
			return e, err
		}
	}
}

// ReadSpecial is never called: no extent of a VHD is special.
func (d *disk) ReadSpecial(block.Extent, []byte, int64) error { return block.ErrUnsupported }

// resolve is Resolve under mu. It returns the place of the bitmap sector that
// it would need if that is not cached.
func (d *disk) resolve(off, n int64) (e block.Extent, missing int64, err error) {
	i := off >> d.blockBits
	if i >= int64(len(d.bat)) {
		return block.Extent{Start: off, Length: n, Kind: block.Zero}, 0, nil // the disk has shrunk meanwhile
	}
	if d.bat[i] == unused {
		return d.without(off, min(n, d.unusedRun(i, off+n)-off)), 0, nil
	}
	if err := d.checkEntry(i); err != nil {
		return e, 0, err
	}
	run, set, missing := d.bitRun(off, min(n, (i+1)<<d.blockBits-off))
	if missing != 0 {
		return e, missing, nil
	}
	if !set {
		return d.without(off, run), 0, nil
	}
	return block.Extent{
		Start: off, Length: run, Kind: block.Data, Allocated: true, File: d.file, Offset: d.hostOf(off), HasOffset: true,
	}, 0, nil
}

// without is the extent of a range without data: the parent's, or zero.
func (d *disk) without(off, n int64) block.Extent {
	if d.differencing {
		return block.Extent{Start: off, Length: n, Kind: block.Below}
	}
	return block.Extent{Start: off, Length: n, Kind: block.Zero, Allocated: true}
}

// unusedRun returns where the blocks without data that begin with i end, or end
// if that is before.
func (d *disk) unusedRun(i, end int64) int64 {
	for i < int64(len(d.bat)) && d.bat[i] == unused && i<<d.blockBits < end {
		i++
	}
	return min(end, i<<d.blockBits)
}

// checkEntry refuses to follow an entry that leads into the header or behind
// the end. Only images that are opened to be repaired have those.
func (d *disk) checkEntry(i int64) error {
	if d.bat[i] == 0 || d.blockEnd(d.bat[i]) > d.end {
		return block.Corruptf("BAT entry %d is %#x: no block can be at %#x", i, d.bat[i], int64(d.bat[i])*sectorSize)
	}
	return nil
}

// hostOf returns where in the file the byte at off is, which has a block.
func (d *disk) hostOf(off int64) int64 {
	return int64(d.bat[off>>d.blockBits])*sectorSize + d.bitmapSize + off&(d.blockSize-1)
}

// bitRun returns how many of the n bytes from off on lie in sectors with the
// same bit as the first, and that bit. They lie in one block, which has a place
// in the file. It may stop early, at the end of a bitmap sector. missing is the
// place of the bitmap sector if that is not cached.
func (d *disk) bitRun(off, n int64) (run int64, set bool, missing int64) {
	place, bit := d.bitOf(off)
	b := d.bitmaps.Get(place)
	if b == nil {
		return 0, false, place
	}
	set = getBit(b.Data, bit)
	end := bit + 1
	last := min(bit+(off%sectorSize+n+sectorSize-1)/sectorSize, sectorSize*8)
	for end < last && getBit(b.Data, end) == set {
		end++
	}
	return min(n, (end-bit)*sectorSize-off%sectorSize), set, 0
}

// bitOf returns the bitmap sector with the bit of a guest offset and its number
// in there.
func (d *disk) bitOf(off int64) (place, bit int64) {
	bit = off & (d.blockSize - 1) / sectorSize
	place = int64(d.bat[off>>d.blockBits])*sectorSize + bit/(sectorSize*8)*sectorSize
	return place, bit % (sectorSize * 8)
}

// Bits are counted from the most significant of the first byte.
func getBit(b []byte, i int64) bool { return b[i/8]>>(7-i%8)&1 != 0 }
func setBit(b []byte, i int64)      { b[i/8] |= 1 << (7 - i%8) }

// loadBitmap reads a sector of a bitmap into the cache. Takes mu.
func (d *disk) loadBitmap(place int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.bitmapAt(place)
	return err
}

// bitmapAt returns a sector of a bitmap. It is read under the lock, so that
// nobody can change it on disk between the reading and the caching. Needs mu
// exclusively.
func (d *disk) bitmapAt(place int64) (*cache.Block, error) {
	if b := d.bitmaps.Get(place); b != nil {
		return b, nil
	}
	data := make([]byte, sectorSize)
	if err := readTable(d.file, "Error reading a block's bitmap", data, uint64(place)); err != nil {
		return nil, err
	}
	return d.bitmaps.Put(place, data), nil
}
