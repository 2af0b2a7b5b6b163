package qcow2

import "math"

// refMap counts references to clusters. It takes memory for what is referenced
// only, in pages, so that a sparse file of any length can be checked: about as
// much as the entries that refer take up on disk, times forty if they are far
// apart, half if they are close.
type refMap struct {
	pages map[int64]*refPage
	last  *refPage
	at    int64 // page number of last
}

const refPageBits = 6

type refPage [1 << refPageBits]uint32

func newRefMap() *refMap { return &refMap{pages: make(map[int64]*refPage), at: -1} }

func (m *refMap) page(n int64) *refPage {
	if n != m.at {
		m.last, m.at = m.pages[n], n
	}
	return m.last
}

func (m *refMap) get(c int64) uint64 {
	p := m.page(c >> refPageBits)
	if p == nil {
		return 0
	}
	return uint64(p[c&(1<<refPageBits-1)])
}

// add counts n more references to cluster c, up to what a count can hold.
func (m *refMap) add(c int64, n uint32) {
	at := c >> refPageBits
	p := m.page(at)
	if p == nil {
		p = new(refPage)
		m.pages[at], m.last = p, p
	}
	count := &p[c&(1<<refPageBits-1)]
	*count += min(n, math.MaxUint32-*count)
}

// drop takes a reference back, if there is one.
func (m *refMap) drop(c int64) {
	if p := m.page(c >> refPageBits); p != nil && p[c&(1<<refPageBits-1)] > 0 {
		p[c&(1<<refPageBits-1)]--
	}
}

// end returns the cluster after the last one with a reference.
func (m *refMap) end() int64 {
	var last int64 = -1
	for n := range m.pages {
		last = max(last, n)
	}
	if last < 0 {
		return 0
	}
	for i := int64(1<<refPageBits - 1); i >= 0; i-- {
		if m.pages[last][i] != 0 {
			return last<<refPageBits + i + 1
		}
	}
	return last << refPageBits
}
