package blocktest

import (
	"math/rand/v2"
	"testing"
)

// Reading 4 KiB of what is allocated allocates no memory, here or below.
func testAllocations(s *suite) {
	if s.format.MayAllocate {
		s.Skip("reading this may allocate")
	}
	d := s.disk(max(16*s.cluster, 1<<20))
	d.write(0, d.size())
	d.close()
	s.readsAllocateNothing(d)
	if s.format.Backing {
		over := s.overlay(d, d.size())
		over.close()
		s.readsAllocateNothing(over)
	}
}

func (s *suite) readsAllocateNothing(d *disk) {
	s.Helper()
	img, err := s.format.Open(d.path, OpenOptions{})
	if err != nil {
		s.Fatal(err)
	}
	defer img.Close()
	p := make([]byte, 4096)
	random := rand.New(rand.NewPCG(7, 8))
	read := func() {
		if _, err := img.ReadAt(p, random.Int64N(d.size()-4096)); err != nil {
			s.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(500, read); n > 0 {
		s.Errorf("a read of 4 KiB allocates %v times", n)
	}
}
