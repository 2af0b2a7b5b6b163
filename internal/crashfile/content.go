package crashfile

// This file is the bytes of a file, in pages that never change: a write puts a
// new page in the place of an old one. So a copy of a file costs almost
// nothing, and any number of states share what they have in common.

import (
	"hash/maphash"
	"slices"
)

const (
	sectorSize  = 512
	pageSize    = 4096
	pageSectors = pageSize / sectorSize
	allSectors  = 1<<pageSectors - 1
)

// page is what a page of a file holds, nil for zeros.
type page struct {
	data [pageSize]byte
	sum  uint64
}

var seed = maphash.MakeSeed()

// newPage returns a page that holds data.
func newPage(data *[pageSize]byte) *page {
	if *data == ([pageSize]byte{}) {
		return nil
	}
	return &page{data: *data, sum: maphash.Bytes(seed, data[:])}
}

// bytes returns a copy of the page.
func (p *page) bytes() (data [pageSize]byte) {
	if p != nil {
		data = p.data
	}
	return data
}

// merge returns the page with the sectors in mask taken from other.
func (p *page) merge(other *page, mask uint8) *page {
	if mask == allSectors {
		return other
	}
	data, from := p.bytes(), other.bytes()
	for s := range pageSectors {
		if mask&(1<<s) != 0 {
			copy(data[s*sectorSize:(s+1)*sectorSize], from[s*sectorSize:])
		}
	}
	return newPage(&data)
}

// content is the bytes of one file. Its copies share the pages until one of
// them is changed.
type content struct {
	pages  []*page // what lies behind them is zero
	shared bool    // another content has the same slice
	size   int64   // behind it all is zero
	sum    uint64  // of all pages, whatever the order they were set in
	salt   uint64  // tells the pages of one file from those of another
}

// copy returns a content that can be changed by itself.
func (c *content) copy() content {
	c.shared = true
	return *c
}

// key is equal for equal contents and lengths.
func (c *content) key() uint64 { return c.sum + mix(uint64(c.size)^mix(c.salt+1)) }

// mix spreads each bit of x over all of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

func (c *content) weigh(i int64, p *page) uint64 {
	if p == nil {
		return 0
	}
	return mix(p.sum ^ mix(c.salt<<48+uint64(i)+1))
}

func (c *content) page(i int64) *page {
	if i < int64(len(c.pages)) {
		return c.pages[i]
	}
	return nil
}

func (c *content) set(i int64, p *page) {
	old := c.page(i)
	if old == p {
		return
	}
	if c.shared {
		c.pages, c.shared = slices.Clone(c.pages), false
	}
	if n := int(i) + 1 - len(c.pages); n > 0 {
		c.pages = append(c.pages, make([]*page, n)...)
	}
	c.pages[i] = p
	c.sum += c.weigh(i, p) - c.weigh(i, old)
}

// resize sets the length; what lies behind it is gone.
func (c *content) resize(size int64) {
	for i := int64(len(c.pages)) - 1; i >= 0 && (i+1)*pageSize > size; i-- {
		c.set(i, c.pages[i].cut(size-i*pageSize))
	}
	c.size = size
}

// cut returns the page with zeros from n on.
func (p *page) cut(n int64) *page {
	if p == nil || n <= 0 {
		return nil
	}
	data := p.data
	clear(data[n:])
	return newPage(&data)
}

// read fills p from a range that lies before the end.
func (c *content) read(p []byte, off int64) {
	for len(p) > 0 {
		at := off % pageSize
		n := min(len(p), int(pageSize-at))
		if from := c.page(off / pageSize); from == nil {
			clear(p[:n])
		} else {
			copy(p[:n], from.data[at:])
		}
		p, off = p[n:], off+int64(n)
	}
}

// touch is what an operation did to one page.
type touch struct {
	index int64
	mask  uint8 // the sectors that it changed
	after *page // the page with the change
}

// write puts n bytes of p, or zeros if p is nil, at off.
func (c *content) write(p []byte, off, n int64) []touch {
	touches := make([]touch, 0, n/pageSize+2)
	for done := int64(0); done < n; {
		i, from := (off+done)/pageSize, (off+done)%pageSize
		to := min(pageSize, from+n-done)
		data := c.page(i).bytes()
		if p == nil {
			clear(data[from:to])
		} else {
			copy(data[from:to], p[done:])
		}
		t := touch{index: i, mask: sectors(from, to), after: newPage(&data)}
		c.set(i, t.after)
		touches = append(touches, t)
		done += to - from
	}
	return touches
}

// sectors is the mask of the sectors that [from, to) of a page lies in.
func sectors(from, to int64) uint8 {
	first, last := from/sectorSize, (to-1)/sectorSize
	return uint8(1<<(last+1) - 1<<first)
}
