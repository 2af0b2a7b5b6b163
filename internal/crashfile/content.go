package crashfile

// This file is the bytes of a file, in pages that never change: a write puts a
// new page in the place of an old one. So a copy of a file costs almost
// nothing, and any number of states share what they have in common.

import (
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/diskimg/diskimg/internal/zero"
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
	sum  atomic.Uint64 // of data, 0 as long as nobody has asked for it
}

var seed = maphash.MakeSeed()

// hash returns what is equal for equal pages.
func (p *page) hash() uint64 {
	sum := p.sum.Load()
	if sum == 0 {
		sum = maphash.Bytes(seed, p.data[:]) | 1
		p.sum.Store(sum)
	}
	return sum
}

// changed returns a copy of the page with a change.
func (p *page) changed(change func(data []byte)) *page {
	after := new(page)
	if p != nil {
		after.data = p.data
	}
	if change(after.data[:]); zero.Is(after.data[:]) {
		return nil
	}
	return after
}

// merge returns the page with the sectors in mask taken from other.
func (p *page) merge(other *page, mask uint8) *page {
	if mask == allSectors {
		return other
	}
	return p.changed(func(data []byte) {
		for s := range pageSectors {
			at := data[s*sectorSize:][:sectorSize]
			switch {
			case mask&(1<<s) == 0:
			case other == nil:
				clear(at)
			default:
				copy(at, other.data[s*sectorSize:])
			}
		}
	})
}

// content is the bytes of one file. Its copies share the pages until one of
// them is changed.
type content struct {
	pages  []*page // what lies behind them is zero
	shared bool    // another content has the same slice
	size   int64   // behind it all is zero
	sums   bool    // sum is kept up to date
	sum    uint64  // of all pages, whatever the order they were set in
	salt   uint64  // tells the pages of one file from those of another
}

// copy returns a content that can be changed by itself.
func (c *content) copy() content {
	c.shared = true
	return *c
}

// summed returns a copy that has a key.
func (c *content) summed() content {
	n := c.copy()
	n.sums, n.sum = true, 0
	for i, p := range n.pages {
		n.sum += n.weigh(int64(i), p)
	}
	return n
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
	return mix(p.hash() ^ mix(c.salt<<48+uint64(i)+1))
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
	if c.sums {
		c.sum += c.weigh(i, p) - c.weigh(i, old)
	}
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
	return p.changed(func(data []byte) { clear(data[n:]) })
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
		t := touch{index: i, mask: sectors(from, to), after: c.page(i).changed(func(data []byte) {
			if p == nil {
				clear(data[from:to])
			} else {
				copy(data[from:to], p[done:])
			}
		})}
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
