package stamp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/diskimg/diskimg/internal/zero"
)

// SectorSize is how many bytes of a disk belong together: a History tells what
// may be in each sector.
const SectorSize = 512

// Garbage stands for the content of a sector that no write put there.
const Garbage = ^uint32(0)

// Sector returns which write all of a sector holds: 0 for zeros, Garbage if it
// is none, or one that belongs elsewhere. p begins with the sector at the disk
// offset off.
func Sector(p []byte, off int64) uint32 {
	if p = p[:SectorSize]; zero.Is(p) {
		return 0
	}
	id, place, ok := Origin(p[:size])
	if !ok || place != off {
		return Garbage
	}
	word, encode := uint64(id)<<placeLen|uint64(off/size), mix
	if binary.LittleEndian.Uint64(p) == word {
		encode = func(w uint64) uint64 { return w }
	}
	for at := 0; at < len(p); at += size {
		if binary.LittleEndian.Uint64(p[at:]) != encode(word+uint64(at/size)) {
			return Garbage
		}
	}
	return id
}

// Reader reads a disk as io.ReaderAt does.
type Reader func(p []byte, off int64) (int, error)

// Sectors reads n sectors of a disk and returns which write each of them holds.
func Sectors(read Reader, first, n int) ([]uint32, error) {
	p, ids := make([]byte, n*SectorSize), make([]uint32, n)
	if _, err := read(p, int64(first)*SectorSize); err != nil {
		return nil, err
	}
	for i := range ids {
		ids[i] = Sector(p[i*SectorSize:], int64(first+i)*SectorSize)
	}
	return ids, nil
}

// Change is what an operation does to the sectors from First to before End.
type Change struct {
	First, End int
	ID         uint32 // the number of the write, 0 for zeros
	// Maybe says that each sector may as well hold what it did before: the
	// operation returned an error, or promises nothing.
	Maybe bool
}

// History is what was done to a disk. Its methods must not be called
// concurrently.
type History struct {
	Changes []Change
	// First, if not nil, returns what a sector held before all changes.
	First func(sector int) uint32
	// Safe is how many of the changes had surely reached the disk with the last
	// flush.
	Safe int
	// Noted, if not nil, is told how many changes have begun and how many are
	// safe.
	Noted func(begun, safe int)
}

// Note passes on how far the history has come. If flushed, all of it is safe.
func (h *History) Note(flushed bool) {
	if flushed {
		h.Safe = len(h.Changes)
	}
	if h.Noted != nil {
		h.Noted(len(h.Changes), h.Safe)
	}
}

// Begin notes that a change is about to happen.
func (h *History) Begin(c Change) {
	h.Changes = append(h.Changes, c)
	h.Note(false)
}

// Write is Begin for a write, which gets its number. It returns what to write.
func (h *History) Write(c Change) []byte {
	c.ID = uint32(len(h.Changes) + 1)
	p := make([]byte, (c.End-c.First)*SectorSize)
	Fill(p, int64(c.First)*SectorSize, c.ID)
	h.Begin(c)
	return p
}

// Doubt says of all changes from number n on that they may not have happened.
func (h *History) Doubt(n int) {
	for i := range h.Changes[n:] {
		h.Changes[n+i].Maybe = true
	}
}

// At returns the moment at which so many changes had begun, the first of them
// safe. It does not know of what the history tells later.
func (h *History) At(begun, safe int) *Moment {
	return &Moment{Begun: begun, Safe: safe, may: map[int][]uint32{}, history: History{Changes: slices.Clone(h.Changes[:begun]), First: h.First}}
}

// Now returns the moment at which all changes so far are safe.
func (h *History) Now() *Moment { return h.At(len(h.Changes), len(h.Changes)) }

// Moment is an instant at which the power failed. Its methods must not be called
// concurrently.
type Moment struct {
	Begun, Safe int
	history     History
	may         map[int][]uint32 // of sectors that were asked for
	buf         []byte
}

// May returns what a sector may hold: what the last change that is safe put
// there, or a later one.
func (m *Moment) May(sector int) []uint32 {
	may, ok := m.may[sector]
	if !ok {
		may = m.history.may(sector, m.Safe)
		m.may[sector] = may
	}
	return may
}

func (h *History) may(sector, safe int) []uint32 {
	may := []uint32{0}
	if h.First != nil {
		may[0] = h.First(sector)
	}
	for i, c := range h.Changes {
		if sector < c.First || sector >= c.End {
			continue
		}
		if i < safe && !c.Maybe {
			may = may[:0]
		}
		may = append(may, c.ID)
	}
	return may
}

// Check reads the sectors from first to before end, and finds one that holds
// what it may not.
func (m *Moment) Check(read Reader, first, end int) error {
	p := slices.Grow(m.buf[:0], (end-first)*SectorSize)[:(end-first)*SectorSize]
	m.buf = p
	if _, err := read(p, int64(first)*SectorSize); err != nil {
		return err
	}
	for at := first; at < end; at++ {
		is := Sector(p[(at-first)*SectorSize:], int64(at)*SectorSize)
		if may := m.May(at); !slices.Contains(may, is) {
			return fmt.Errorf("sector %d holds %d, may hold %d; changes 1 to %d are safe, %d had begun", at, int32(is), may, m.Safe, m.Begun)
		}
	}
	return nil
}
