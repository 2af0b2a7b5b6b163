package model

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
)

// register is the history of one sector. Values are numbers of writes; zero is
// zeros, and initial is what the sector held at first.
type register struct {
	off    int64
	puts   []put
	looks  []look
	events []event // for messages
}

// initial is the value that a sector has at first.
const initial = math.MaxUint32

// put is an operation that gave the register a value, or may have: a discard
// may change nothing.
type put struct {
	value      uint32
	begin, end int64
	perhaps    bool
}

// look is a read and the values that it has found in the words of the sector.
type look struct {
	values     []uint32
	begin, end int64
}

// register returns the history of the sector at off. The first event is the
// read of the initial content.
func (h *history) register(off int64) *register {
	first := h.events[0].got[off : off+sector]
	r := &register{off: off, puts: []put{{value: initial}}}
	if zero.Is(first) {
		r.puts[0].value = 0
	}
	for _, e := range h.events[1:] {
		if off < e.Off || off >= e.Off+e.Len {
			continue
		}
		r.events = append(r.events, e)
		p := put{begin: e.begin, end: e.end}
		switch e.Action {
		case write.Name:
			p.value = e.ID
		case discard.Name:
			p.perhaps = true
		case read.Name:
			got := e.got[off-e.Off:][:sector]
			r.looks = append(r.looks, look{values(got, first, off), e.begin, e.end})
			continue
		}
		r.puts = append(r.puts, p)
	}
	return r
}

// unknown is the value of a word that no write has put there.
const unknown = math.MaxUint32 - 1

// values returns the values that the words of a sector have.
func values(got, first []byte, off int64) (found []uint32) {
	for i := 0; i < len(got); i += 8 {
		word := got[i : i+8]
		v := uint32(unknown)
		if id, place, ok := stamp.Origin(word); ok && place == off+int64(i) {
			v = id
		}
		switch {
		case zero.Is(word):
			v = 0
		case bytes.Equal(word, first[i:i+8]):
			v = initial
		}
		if !slices.Contains(found, v) {
			found = append(found, v)
		}
	}
	return found
}

// judge demands that each look has found what it may have found.
func (r *register) judge() error {
	r.tighten()
	for _, l := range r.looks {
		if len(l.values) > 1 && !r.beingWritten(l) {
			return fmt.Errorf("sector at %#x: a read from %d to %d finds parts of writes %s, none of which was under way\n%s",
				r.off, l.begin, l.end, names(l.values), r)
		}
		for _, v := range l.values {
			if !r.possible(v, l) {
				return fmt.Errorf("sector at %#x: a read from %d to %d finds %s, which can't be there\n%s",
					r.off, l.begin, l.end, names([]uint32{v}), r)
			}
		}
	}
	return nil
}

// tighten moves the end of each write to the end of the first read that has
// seen it: it has happened by then, so older values can't be seen later. Zeros
// may come from several operations and tell nothing.
func (r *register) tighten() {
	for i, p := range r.puts {
		for _, l := range r.looks {
			if p.value != 0 && len(l.values) == 1 && l.values[0] == p.value {
				r.puts[i].end = min(r.puts[i].end, l.end)
			}
		}
	}
}

// beingWritten reports whether the sector was written during a look. A disk
// promises no more then than that each word is old or new.
func (r *register) beingWritten(l look) bool {
	return slices.ContainsFunc(r.puts, func(p put) bool { return p.begin < l.end && p.end > l.begin })
}

// possible reports whether a value may be found by a look: some operation has
// put it there before the look was over, and none has replaced it for certain
// before the look began.
func (r *register) possible(value uint32, l look) bool {
	return slices.ContainsFunc(r.puts, func(p put) bool {
		return p.value == value && p.begin <= l.end && !slices.ContainsFunc(r.puts, func(later put) bool {
			return !later.perhaps && later.begin > p.end && later.end < l.begin
		})
	})
}

// String lists what has been done to the sector.
func (r *register) String() string {
	var b strings.Builder
	for _, e := range r.events {
		fmt.Fprintf(&b, "%4d to %4d: %s", e.begin, e.end, e.Op)
		if e.Action == read.Name {
			fmt.Fprintf(&b, " finds %s", names(values(e.got[r.off-e.Off:][:sector], make([]byte, sector), r.off)))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func names(values []uint32) string {
	var list []string
	for _, v := range values {
		switch v {
		case 0:
			list = append(list, "zeros")
		case initial:
			list = append(list, "the first content")
		case unknown:
			list = append(list, "foreign bytes")
		default:
			list = append(list, fmt.Sprintf("write %d", v))
		}
	}
	return strings.Join(list, ", ")
}
