package crashfile

// This file goes through the log, and at each instant through what may have
// survived: which of the operations in flight, which part of a torn one, and
// what length. What to try is in choose.go.

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
)

// Options say how many of the legal states to visit. The zero value visits
// every instant, and there all subsets of up to 6 operations in flight.
type Options struct {
	// Exhaustive is up to how many operations in flight all their subsets are
	// visited; 0 stands for 6. With more in flight it is none, all, each alone,
	// all but each, and samples.
	Exhaustive int
	// Samples is how many pairs and how many random subsets are tried at each
	// instant with more operations in flight; 0 stands for 4.
	Samples int
	// Instants, if not 0, is about how many instants are visited, taken at
	// random.
	Instants int
	// Near, if not nil, finds operations that matter most: of the instants around
	// them all are visited.
	Near func(Op) bool
	// Seed is for all that is random. The same log, Options and Seed give the
	// same states in the same order.
	Seed uint64
	// Stats, if not nil, is counted up.
	Stats *Stats
}

// Stats count what States did.
type Stats struct {
	Instants  int // at which the power failed
	Generated int // states that were built
	Distinct  int // those of them that had not been seen, and were yielded
}

// State is what a power cut may have left.
type State struct {
	// Files are what a new start of the machine finds, durable as they are, in
	// the order in which the group made them, in a group of their own: the
	// power can fail again while they are being repaired.
	Files []*File
	// Instant is how many operations of the log had been issued.
	Instant int
	// Durable is how many operations, from the beginning of the log, had
	// surely become durable.
	Durable int
	// Marks are the labels that had been put into the log.
	Marks []any

	text func() string
}

// Group returns the group of the files.
func (s *State) Group() *Group { return s.Files[0].g }

// String tells how the state came about.
func (s *State) String() string { return s.text() }

// States yields states in which a power cut during the log so far can leave
// the files, each of them once for each number of marks made. Operations that
// are recorded later do not count.
func (g *Group) States(o Options) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		e := g.enumerate(o)
		for i := 0; i <= len(e.ops); i++ {
			if !e.instant(i, yield) {
				return
			}
		}
	}
}

// enumerator goes through a log.
type enumerator struct {
	Options
	random *rand.Rand
	ops    []Op
	near   []bool // by instant
	marks  []mark
	labels []any // of marks

	// These are as of the instant.
	at         int       // operations issued
	marked     int       // marks made
	durable    []content // by file
	sizes      []int64   // by file, as the writer sees them
	flight     []*Op     // issued, not surely durable, in order
	pending    bool      // more than the newest operation is new
	lengthened bool      // the newest operation changed the length
	seen       map[uint64]struct{}
	merged     map[merging]*page
}

func (g *Group) enumerate(o Options) *enumerator {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o.Exhaustive == 0 {
		o.Exhaustive = 6
	}
	if o.Samples == 0 {
		o.Samples = 4
	}
	if o.Stats == nil {
		o.Stats = new(Stats)
	}
	e := &enumerator{
		Options: o,
		random:  rand.New(rand.NewPCG(o.Seed, 1)),
		ops:     slices.Clone(g.ops),
		marks:   slices.Clone(g.marks),
		seen:    make(map[uint64]struct{}),
		merged:  make(map[merging]*page),
		pending: true,
	}
	for _, d := range g.disks {
		e.durable = append(e.durable, d.durable.summed())
		e.sizes = append(e.sizes, d.durable.size)
	}
	e.near = e.nearOnes()
	for _, m := range e.marks {
		e.labels = append(e.labels, m.label)
	}
	return e
}

// vicinity is how many instants before and after an operation are near it.
const vicinity = 12

// nearOnes tells which instants are near an operation that matters most.
func (e *enumerator) nearOnes() []bool {
	near := make([]bool, len(e.ops)+1)
	for i := range e.ops {
		if e.Near == nil || !e.Near(e.ops[i]) {
			continue
		}
		for n := max(0, i-vicinity); n <= min(len(e.ops), i+vicinity); n++ {
			near[n] = true
		}
	}
	return near
}

// instant goes on to the instant after n operations and yields what a crash
// leaves then.
func (e *enumerator) instant(n int, yield func(*State) bool) bool {
	if n > 0 {
		e.issue(&e.ops[n-1])
	}
	e.at = n
	for e.marked < len(e.marks) && e.marks[e.marked].ops <= n {
		e.marked++
		e.pending = true
		clear(e.seen) // no state from here on can be one of before
	}
	if e.Instants > 0 && e.Instants < len(e.ops) && !e.near[n] && e.random.IntN(len(e.ops)) >= e.Instants {
		e.pending = true
		return true
	}
	e.Stats.Instants++
	// Unless something else has changed, only what has the newest operation
	// in it is new.
	newest := !e.pending && len(e.flight) > 0
	e.pending = false
	for c := range e.choices(newest) {
		if s := e.build(c); s != nil && !yield(s) {
			return false
		}
	}
	return true
}

// issue takes the next operation from the log.
func (e *enumerator) issue(op *Op) {
	if op.Kind != Sync {
		e.flight = append(e.flight, op)
		e.lengthened = e.sizes[op.File] != op.Size
		e.sizes[op.File] = op.Size
		return
	}
	c := &e.durable[op.File]
	e.flight = slices.DeleteFunc(e.flight, func(f *Op) bool {
		if f.File == op.File {
			e.apply(c, f, nil)
			c.size = f.Size
		}
		return f.File == op.File
	})
	e.pending = true
	clear(e.merged) // most of it won't be asked for any more
}

// apply does op again, but only in the sectors that masks has for each page
// that it touched. It leaves the length to the caller, but for what was cut.
func (e *enumerator) apply(c *content, op *Op, masks []uint8) {
	if op.Kind == Truncate {
		c.resize(op.Size)
	}
	for i, t := range op.touches {
		mask := t.mask
		if masks != nil {
			mask &= masks[i]
		}
		if mask != 0 {
			c.set(t.index, e.merge(c.page(t.index), t.after, mask))
		}
	}
}

// merging is which sectors of a page are taken from another.
type merging struct {
	page, other *page
	mask        uint8
}

// merge is page.merge, which is asked for the same again and again.
func (e *enumerator) merge(p, other *page, mask uint8) *page {
	if mask == allSectors {
		return other
	}
	k := merging{p, other, mask}
	after, ok := e.merged[k]
	if !ok {
		after = p.merge(other, mask)
		e.merged[k] = after
	}
	return after
}

// length says what became of the length of the files.
type length uint8

const (
	natural length = iota // long enough for what survived
	full                  // as the writer saw it
	short                 // as it was durable
)

// choice is one way for the power to fail at an instant.
type choice struct {
	keep   []bool  // which operations in flight survived
	torn   int     // the one that did so in part, -1 if there is none
	masks  []uint8 // the sectors of it that survived, by page
	length length
}

// build makes the state of a choice, nil if it was seen before or is no state
// of its own.
func (e *enumerator) build(c choice) *State {
	e.keepCuts(c.keep)
	files := make([]content, len(e.durable))
	for i := range files {
		files[i] = e.durable[i].copy()
	}
	for i, op := range e.flight {
		if c.keep[i] {
			e.survive(&files[op.File], op, c.masksOf(i))
		}
	}
	if !e.setLengths(files, c) {
		return nil
	}
	e.Stats.Generated++
	key := uint64(0)
	for i := range files {
		key += files[i].key()
	}
	if _, old := e.seen[key]; old {
		return nil
	}
	e.seen[key] = struct{}{}
	e.Stats.Distinct++
	return e.state(files, c)
}

func (c *choice) masksOf(i int) []uint8 {
	if i == c.torn {
		return c.masks
	}
	return nil
}

// survive applies op, and with it as much of its length as it needs.
func (e *enumerator) survive(c *content, op *Op, masks []uint8) {
	e.apply(c, op, masks)
	if op.Kind != Truncate && op.Kind != Punch {
		c.size = max(c.size, min(op.Off+op.Len, op.Size))
	}
}

// keepCuts keeps each cut of a file that something behind it was done after:
// file systems change the length in order.
func (e *enumerator) keepCuts(keep []bool) {
	for i, cut := range e.flight {
		if !cut.shrinks || keep[i] {
			continue
		}
		for k, op := range e.flight[i+1:] {
			if keep[i+1+k] && op.File == cut.File && (op.Kind == Truncate || op.Off+op.Len > cut.Size) {
				keep[i] = true
			}
		}
	}
}

// setLengths gives the files the lengths of the choice. It reports whether
// that makes a difference to the natural ones.
func (e *enumerator) setLengths(files []content, c choice) bool {
	differs := c.length == natural
	for i := range files {
		size := files[i].size
		switch c.length {
		case full:
			if !e.allCutsKept(i, c.keep) {
				return false
			}
			size = e.sizes[i]
		case short:
			size = min(size, e.durable[i].size)
		}
		differs = differs || size != files[i].size
		files[i].resize(size)
	}
	return differs
}

func (e *enumerator) allCutsKept(file int, keep []bool) bool {
	for i, op := range e.flight {
		if op.File == file && op.shrinks && !keep[i] {
			return false
		}
	}
	return true
}

// state makes the files of a state and the sentence about it.
func (e *enumerator) state(files []content, c choice) *State {
	g := NewGroup()
	s := &State{Instant: e.at, Durable: e.at, Marks: e.labels[:e.marked:e.marked]}
	for i := range files {
		s.Files = append(s.Files, g.add(files[i]))
	}
	if len(e.flight) > 0 {
		s.Durable = e.flight[0].Index
	}
	flight, keep, masks := slices.Clone(e.flight), slices.Clone(c.keep), slices.Clone(c.masks)
	torn, length, at := c.torn, c.length, e.at
	s.text = func() string {
		return describe(at, flight, choice{keep: keep, torn: torn, masks: masks, length: length})
	}
	return s
}

func describe(at int, flight []*Op, c choice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "crash after %d operations, %d in flight", at, len(flight))
	for i, op := range flight {
		switch {
		case !c.keep[i]:
			fmt.Fprintf(&b, "\n\tlost  %v", op)
		case i == c.torn:
			fmt.Fprintf(&b, "\n\ttorn  %v, sectors by page %08b", op, c.masks)
		default:
			fmt.Fprintf(&b, "\n\tkept  %v", op)
		}
	}
	switch c.length {
	case full:
		b.WriteString("\n\tfile lengths are new")
	case short:
		b.WriteString("\n\tfile lengths are old")
	}
	return b.String()
}
