package qcow2

import (
	"iter"
	"math"
	"math/bits"
)

// refMap counts references to clusters. It takes memory for what is referenced
// only, so that a sparse file of any length can be checked. Most clusters are
// referred to once: that takes a bit, in pages. Where one is referred to more
// often it and its 63 neighbours have numbers. All in all it is a fiftieth of the
// L2 tables of a full disk, and at worst twenty times the entries that refer.
type refMap struct {
	pages map[int64]*refPage
	last  *refPage
	at    int64 // page number of last
	top   int64 // the last cluster that had a reference, -1 if none
}

// A page is eight words of 64 clusters.
const (
	refWordBits = 6
	refPageBits = refWordBits + 3
	refWords    = 1 << (refPageBits - refWordBits)
)

type refPage struct {
	once [refWords]uint64 // a bit for each cluster that is referred to
	many *[refWords]*refCounts
}

type refCounts [1 << refWordBits]uint32

func newRefMap() *refMap { return &refMap{pages: make(map[int64]*refPage), at: -1, top: -1} }

func (m *refMap) page(n int64) *refPage {
	if n != m.at {
		m.last, m.at = m.pages[n], n
	}
	return m.last
}

// word returns the bits of the 64 clusters from c on, a multiple of 64, and their
// numbers, nil if each is referred to once at most.
func (m *refMap) word(c int64) (uint64, *refCounts) {
	p := m.page(c >> refPageBits)
	if p == nil {
		return 0, nil
	}
	w := c >> refWordBits & (refWords - 1)
	return p.once[w], p.counts(w)
}

func (p *refPage) counts(w int64) *refCounts {
	if p.many == nil {
		return nil
	}
	return p.many[w]
}

func (m *refMap) get(c int64) uint64 {
	once, many := m.word(c &^ (1<<refWordBits - 1))
	if many != nil {
		return uint64(many[c&(1<<refWordBits-1)])
	}
	return once >> (c & (1<<refWordBits - 1)) & 1
}

// add counts n more references to cluster c, up to what a count can hold.
func (m *refMap) add(c int64, n uint32) {
	p := m.page(c >> refPageBits)
	if p == nil {
		p = new(refPage)
		m.pages[c>>refPageBits], m.last = p, p
	}
	m.top = max(m.top, c)
	w, bit := c>>refWordBits&(refWords-1), uint64(1)<<(c&(1<<refWordBits-1))
	if p.counts(w) == nil && p.once[w]&bit == 0 && n == 1 {
		p.once[w] |= bit
		return
	}
	many := p.number(w)
	count := &many[c&(1<<refWordBits-1)]
	*count += min(n, math.MaxUint32-*count)
	p.once[w] |= bit
}

// view returns a map with the same references, to be read only.
func (m *refMap) view() *refMap { return &refMap{pages: m.pages, at: -1, top: m.top} }

// merge adds the references of another map, which must not be used any more.
func (m *refMap) merge(o *refMap) {
	m.at, m.top = -1, max(m.top, o.top)
	for n, p := range o.pages {
		q := m.pages[n]
		if q == nil {
			m.pages[n] = p
			continue
		}
		for w := range int64(refWords) {
			q.mergeWord(p, w)
		}
	}
}

func (p *refPage) mergeWord(o *refPage, w int64) {
	theirs := o.counts(w)
	if theirs == nil && p.counts(w) == nil && p.once[w]&o.once[w] == 0 {
		p.once[w] |= o.once[w]
		return
	}
	many := p.number(w)
	for once := o.once[w]; once != 0; once &= once - 1 {
		i, n := bits.TrailingZeros64(once), uint32(1)
		if theirs != nil {
			n = theirs[i]
		}
		many[i] += min(n, math.MaxUint32-many[i])
	}
	p.once[w] |= o.once[w]
}

// number gives word w numbers.
func (p *refPage) number(w int64) *refCounts {
	if p.many == nil {
		p.many = new([refWords]*refCounts)
	}
	if p.many[w] == nil {
		p.many[w] = new(refCounts)
		for once := p.once[w]; once != 0; once &= once - 1 {
			p.many[w][bits.TrailingZeros64(once)] = 1
		}
	}
	return p.many[w]
}

// drop takes a reference back, if there is one.
func (m *refMap) drop(c int64) {
	p := m.page(c >> refPageBits)
	if p == nil {
		return
	}
	w, bit := c>>refWordBits&(refWords-1), uint64(1)<<(c&(1<<refWordBits-1))
	many := p.counts(w)
	if many != nil && many[c&(1<<refWordBits-1)] > 0 {
		many[c&(1<<refWordBits-1)]--
	}
	if many == nil || many[c&(1<<refWordBits-1)] == 0 {
		p.once[w] &^= bit
	}
}

// words returns the first cluster of each 64 of which one is referred to.
func (m *refMap) words() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for n, p := range m.pages {
			for w, once := range p.once {
				if once != 0 && !yield(n<<refPageBits+int64(w)<<refWordBits) {
					return
				}
			}
		}
	}
}

// end returns the cluster after the last one that is referred to, or was.
func (m *refMap) end() int64 { return m.top + 1 }
