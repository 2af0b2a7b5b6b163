package crashfile

import (
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/internal/stamp"
)

// A scenario that writes, syncs and tells so: the moment of each state is that
// of its instant, and the states are as many as were asked for.
func TestVisit(t *testing.T) {
	var states, seeds atomic.Int64
	Visit(t, 500, func(seed uint64) (*Scenario, error) {
		seeds.Add(1)
		h := &stamp.History{}
		f := New()
		f.Group().Record(h)
		for i := range 8 {
			p := h.Write(stamp.Change{First: i, End: i + 3})
			if _, err := f.WriteAt(p, int64(i)*stamp.SectorSize); err != nil {
				return nil, err
			}
			if i%3 == 2 {
				if err := f.Sync(); err != nil {
					return nil, err
				}
				h.Note(true)
			}
		}
		if err := f.Truncate(10 * stamp.SectorSize); err != nil {
			return nil, err
		}
		return &Scenario{Group: f.Group(), History: h, Survives: func(s *State, m *stamp.Moment) error {
			states.Add(1)
			file := s.Files[0]
			size, err := file.Size()
			if err != nil {
				return err
			}
			if m.Safe > 0 && size < int64(m.Safe+2)*stamp.SectorSize {
				t.Errorf("%d bytes, of %d writes that are safe", size, m.Safe)
			}
			return m.Check(file.ReadAt, 0, int(size/stamp.SectorSize))
		}}, nil
	})
	if states.Load() < 500 || seeds.Load() < 2 {
		t.Errorf("%d states of %d scenarios", states.Load(), seeds.Load())
	}
}

// Few instants are visited, but all around what matters most.
func TestNear(t *testing.T) {
	f := New()
	for i := range 200 {
		if _, err := f.WriteAt([]byte{1}, int64(i)*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	var total Stats
	seen := map[int]bool{}
	for s := range f.Group().States(Options{Instants: 1, Stats: &total, Near: func(op Op) bool { return op.Index == 100 }}) {
		seen[s.Instant] = true
	}
	for at := 100 - vicinity; at <= 100+vicinity; at++ {
		if !seen[at] {
			t.Errorf("instant %d was not visited", at)
		}
	}
	if total.Instants > 2*vicinity+20 {
		t.Errorf("%d instants were visited", total.Instants)
	}
}
