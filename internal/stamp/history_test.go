package stamp

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestSector(t *testing.T) {
	const off = 3 * SectorSize
	fill := func(f func([]byte, int64, uint32), off int64) []byte {
		p := make([]byte, SectorSize)
		f(p, off, 7)
		return p
	}
	torn := fill(Fill, off)
	clear(torn[SectorSize-8:])
	mixed := fill(Fill, off)
	copy(mixed[256:], fill(Noise, off)[256:])
	for _, c := range []struct {
		name string
		p    []byte
		want uint32
	}{
		{"zeros", make([]byte, SectorSize), 0},
		{"a write", fill(Fill, off), 7},
		{"noise", fill(Noise, off), 7},
		{"what belongs elsewhere", fill(Fill, off+SectorSize), Garbage},
		{"a torn sector", torn, Garbage},
		{"half of it noise", mixed, Garbage},
		{"text", bytes.Repeat([]byte("no stamp"), SectorSize/8), Garbage},
	} {
		if got := Sector(c.p, off); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestHistory(t *testing.T) {
	var noted [][2]int
	h := History{
		First: func(at int) uint32 { return uint32(100 + at) },
		Noted: func(begun, safe int) { noted = append(noted, [2]int{begun, safe}) },
	}
	disk := make([]byte, 4*SectorSize)
	copy(disk, h.Write(Change{First: 0, End: 2})) // 1
	h.Note(true)
	h.Begin(Change{First: 1, End: 3}) // zeros
	copy(disk[2*SectorSize:], h.Write(Change{First: 2, End: 4}))
	h.Doubt(2)
	if want := [][2]int{{1, 0}, {1, 1}, {2, 1}, {3, 1}}; !slices.Equal(noted, want) {
		t.Errorf("noted %d, want %d", noted, want)
	}
	for _, c := range []struct {
		begun, safe int
		want        [4][]uint32
	}{
		{0, 0, [4][]uint32{{100}, {101}, {102}, {103}}},
		{1, 0, [4][]uint32{{100, 1}, {101, 1}, {102}, {103}}},
		{1, 1, [4][]uint32{{1}, {1}, {102}, {103}}},
		{2, 1, [4][]uint32{{1}, {1, 0}, {102, 0}, {103}}},
		{3, 2, [4][]uint32{{1}, {0}, {0, 3}, {103, 3}}},
		{3, 3, [4][]uint32{{1}, {0}, {0, 3}, {103, 3}}}, // it failed: nobody knows
	} {
		m := h.At(c.begun, c.safe)
		for at, want := range c.want {
			if got := m.May(at); !slices.Equal(got, want) {
				t.Errorf("%d begun, %d safe: sector %d may hold %d, want %d", c.begun, c.safe, at, got, want)
			}
		}
	}
	read := bytes.NewReader(disk).ReadAt
	if err := h.At(2, 1).Check(read, 0, 2); err != nil {
		t.Error(err)
	}
	if err := h.At(3, 1).Check(read, 2, 4); err != nil {
		t.Error(err)
	}
	if err := h.At(3, 2).Check(read, 0, 4); err == nil || !strings.Contains(err.Error(), "sector 1 holds 1, may hold [0]") {
		t.Errorf("a lost write: %v", err)
	}
	if ids, err := Sectors(read, 1, 2); err != nil || !slices.Equal(ids, []uint32{1, 3}) {
		t.Errorf("sectors 1 and 2 hold %d, %v", ids, err)
	}
}
