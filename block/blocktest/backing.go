package blocktest

import "github.com/diskimg/diskimg/block"

// needBacking skips the part for a format without backing images.
func (s *suite) needBacking() {
	s.Helper()
	if !s.format.Backing {
		s.Skip("the format has no backing images")
	}
}

// base makes a closed image of which the first three quarters are written, and
// the last sectors.
func (s *suite) base(size int64) *disk {
	s.Helper()
	d := s.disk(size)
	d.id = 1000 // not the numbers of who writes on top
	d.write(0, size/4*3)
	d.write(max(0, size-700), min(size, 700))
	d.close()
	return d
}

// An overlay shows its base until it is written, zeroed or discarded, and never
// again after that. The base is never written.
func testBacking(s *suite) {
	s.needBacking()
	c := s.cluster
	base := s.base(8 * c)
	d := s.overlay(base, 8*c)
	if b := d.img.Backing(); b == nil || b.Size() != 8*c || b.Writable() {
		s.Fatalf("backing image is %v", b)
	}
	d.verify()
	d.verifyExtents()
	d.write(c/2, 1) // the rest of the cluster comes from the base
	d.write(2*c-1, c+2)
	d.verify()
	d.zero(512, 512, 0)
	d.zero(c, c, block.MayUnmap)
	d.zero(3*c+1, c, block.MayUnmap)
	d.zero(5*c, c, 0) // nothing but the base
	d.verify()
	d.discard(2*c, c)       // data
	d.discard(0, c)         // data and zeros
	d.discard(c, c)         // zeros
	d.discard(4*c, c)       // nothing but the base
	d.discard(3*c+10, 3*c)  // parts of clusters
	d.tryCompress(6*c, 2*c) // over the base
	d.reopen()
	d.write(7*c+1, c-2)
	d.close()
	base.open(false)
	base.verify()
	base.close()
}

// The base may be shorter or longer than the overlay, and end in the middle of
// a cluster: what lies past its end is zero.
func testBackingSizes(s *suite) {
	s.needBacking()
	c := s.cluster
	for _, size := range []int64{2 * c, 2*c + 512, 2*c - 512, 3 * c, 9 * c} {
		base := s.base(size)
		d := s.overlay(base, 4*c+512)
		d.verify()
		d.verifyExtents()
		d.write(min(size/2, 4*c), 1)
		d.write(2*c+700, 10) // around the end of the shorter ones
		d.write(4*c+511, 1)
		d.zero(c+c/2, 600, block.MayUnmap)
		d.verify()
		d.reopen()
		d.zero(2*c, 2*c, block.MayUnmap)
		d.discard(0, 2*c)
		d.close()
	}
}

// Three layers: each sector comes from the topmost that decides it.
func testChain(s *suite) {
	s.needBacking()
	c := s.cluster
	base := s.base(6 * c)
	middle := s.overlay(base, 5*c)
	middle.id = 2000
	middle.write(c, c)
	middle.zero(2*c, c, block.MayUnmap)
	middle.close()
	top := s.overlay(middle, 6*c)
	top.verify()
	top.write(c/2, c)
	top.verify()
	depths := map[int]bool{}
	for e, err := range top.img.Extents(0, top.size()) {
		if err != nil {
			s.Fatal(err)
		}
		depths[e.Depth] = true
	}
	for depth := range 3 {
		if !depths[depth] {
			s.Errorf("no extent comes from depth %d: %v", depth, depths)
		}
	}
	top.close()
}
