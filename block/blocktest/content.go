package blocktest

// What is written is read, and nothing else changes.

import (
	"math/rand/v2"
	"slices"

	"github.com/diskimg/diskimg/block"
)

// edges are the places where requests of a format with clusters of c bytes
// begin and end differently.
func edges(c int64) []int64 {
	all := []int64{0, 1, 511, 512, 513, c / 2, c - 513, c - 512, c - 1, c, c + 1, c + 511, c + 512, 2*c - 1, 2 * c, 2*c + 1,
		2*c + 512, 3*c - 512, 3 * c}
	slices.Sort(all) // small clusters have some twice, and some before the disk
	return slices.DeleteFunc(slices.Compact(all), func(off int64) bool { return off < 0 || off > 3*c })
}

// Every pair of edges is written once over nothing and once over old content.
func testUnaligned(s *suite) {
	at := edges(s.cluster)
	for _, old := range []bool{false, true} {
		d := s.disk(3 * s.cluster)
		if old {
			d.write(0, d.size())
		}
		for i, start := range at {
			for _, end := range at[i+1:] {
				d.write(start, end-start)
				d.verifyRange(start-512, end+512)
			}
		}
		d.verify()
		d.close()
	}
	for _, start := range at[:len(at)-1] { // each alone, in fresh clusters
		d := s.disk(3 * s.cluster)
		d.write(start, 1)
		d.verify()
		d.write(start/2, 3)
		d.close()
	}
}

func testWholeDisk(s *suite) {
	d := s.disk(7*s.cluster + 512)
	d.write(0, d.size())
	d.verify()
	for step := int64(1 + s.cluster/3); step < d.size(); step *= 3 {
		for off := int64(0); off < d.size(); off += step {
			d.verifyRange(off, off+step)
		}
	}
	d.reopen()
	d.write(0, d.size())
	d.close()
}

func testPersistence(s *suite) {
	d := s.disk(6*s.cluster + 1024)
	for i := range int64(6) {
		d.write(i*s.cluster+i*7, s.cluster/2+i)
		if i%2 == 1 {
			d.flush()
		}
		d.verify()
		d.reopen()
	}
	d.zero(s.cluster, 2*s.cluster, block.MayUnmap)
	d.reopen()
	d.discard(3*s.cluster, 2*s.cluster)
	d.reopen()
	d.verify()
	d.close()
}

// Zeros go over holes, data, compressed data and zeros, in whole and in part.
func testWriteZeroes(s *suite) {
	c := s.cluster
	for _, flags := range []block.ZeroFlags{0, block.MayUnmap} {
		d := s.disk(8*c + 512)
		d.write(0, 3*c)
		d.write(4*c, 2*c)
		d.tryCompress(6*c, c)
		for _, r := range []struct{ off, n int64 }{
			{7 * c, c + 512}, {c, c}, {c / 2, 1}, {100, 1000}, {2*c - 1, c}, {c, c}, {4*c - 1, c + 2}, {6*c + 1, c / 2}, {8 * c, 512},
			{0, 8*c + 512},
		} {
			d.zero(r.off, r.n, flags)
			d.verify()
		}
		d.reopen()
		d.write(c+1, 1) // zero clusters take data again
		d.write(5*c+7, 2*c)
		d.verify()
		d.close()
	}
}

func (d *disk) tryCompress(off, n int64) {
	d.Helper()
	if d.suite.compress {
		d.writeCompressed(off, n)
	}
}

func testDiscard(s *suite) {
	c := s.cluster
	d := s.disk(8*c + 512)
	d.write(0, d.size())
	d.tryCompress(4*c, c)
	for _, r := range []struct{ off, n int64 }{
		{c, c}, {2*c + 1, c}, {3*c - 1, 2}, {4 * c, c}, {4*c + 512, 512}, {5*c + 512, c}, {8 * c, 512}, {8*c + 1, 511},
	} {
		d.discard(r.off, r.n)
	}
	d.reopen()
	d.write(c+100, 100)
	d.discard(0, d.size())
	d.reopen()
	d.write(0, 3*c)
	d.close()
}

func testCompressed(s *suite) {
	c := s.cluster
	d := s.disk(6*c + 512)
	if !s.compress {
		s.wantError("compressed write", d.img.WriteCompressed(make([]byte, c), 0), block.ErrUnsupported)
		d.close()
		s.Skip("the images do not compress")
	}
	d.writeCompressed(0, 2*c)
	d.writeCompressed(3*c, c)
	d.writeCompressed(6*c, 512) // the end of the disk
	d.verify()
	d.reopen()
	d.write(c/2, 100)    // becomes a plain cluster
	d.write(3*c-10, 100) // the head of one
	d.verify()
	d.writeCompressed(c, 5*c) // over all that is there
	d.verify()
	d.zero(2*c, c, block.MayUnmap)
	d.zero(4*c+1, c-2, 0)
	d.discard(5*c, c)
	d.close()
}

// Clusters that are freed and taken again show nothing of what they held.
func testReuse(s *suite) {
	c := s.cluster
	d := s.disk(16 * c)
	random := rand.New(rand.NewPCG(1, 2))
	d.write(0, d.size())
	for range 40 {
		off, n := random.Int64N(15*c), 1+random.Int64N(c)
		switch random.IntN(4) {
		case 0:
			d.discard(off/c*c, min(3*c, d.size()-off/c*c))
		case 1:
			d.zero(off/c*c, c, block.MayUnmap)
		default:
			d.write(off, n)
		}
	}
	d.verify()
	d.reopen()
	d.write(3*c-2, 3)
	d.close()
}
