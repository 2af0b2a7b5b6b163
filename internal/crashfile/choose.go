package crashfile

// This file decides which of the ways for the power to fail at an instant are
// tried. If nothing but the newest operation has changed since the instant
// before, only those in which it survives are new.

import (
	"iter"
	"math/bits"
)

const (
	manySingles = 32 // operations that are tried alone, and left out alone
	manyTorn    = 12 // operations that are tried torn
)

// choices yields what to try. The slices in a choice are used again for the
// next.
func (e *enumerator) choices(newest bool) iter.Seq[choice] {
	return func(yield func(choice) bool) {
		keep := make([]bool, len(e.flight))
		for fill := range e.subsets(newest) {
			for _, l := range []length{natural, full, short} {
				fill(keep)
				if !yield(choice{keep: keep, torn: -1, length: l}) {
					return
				}
			}
			if newest && e.lengthened {
				// The length that it made can survive without it.
				fill(keep)
				keep[len(keep)-1] = false
				if !yield(choice{keep: keep, torn: -1, length: full}) {
					return
				}
			}
		}
		for _, torn := range e.tornOnes(newest) {
			for masks := range e.tears(e.flight[torn]) {
				for _, fill := range e.around(torn, newest) {
					fill(keep)
					if !yield(choice{keep: keep, torn: torn, masks: masks}) {
						return
					}
				}
			}
		}
	}
}

// subset fills in which operations survive.
type subset func(keep []bool)

func all(keep []bool) {
	for i := range keep {
		keep[i] = true
	}
}

// only keeps the operations in set, and these too.
func only(set uint64, these ...int) subset {
	return func(keep []bool) {
		for i := range keep {
			keep[i] = i < 64 && set>>i&1 != 0
		}
		for _, i := range these {
			keep[i] = true
		}
	}
}

// without keeps all but one.
func without(i int) subset {
	return func(keep []bool) {
		all(keep)
		keep[i] = false
	}
}

// some keeps a random half, or quarter, and these too.
func (e *enumerator) some(these ...int) subset {
	return func(keep []bool) {
		of := 2 << e.random.IntN(2)
		for i := range keep {
			keep[i] = e.random.IntN(of) == 0
		}
		for _, i := range these {
			keep[i] = true
		}
	}
}

// always is what has to survive for a subset to be new.
func (e *enumerator) always(newest bool) []int {
	if newest {
		return []int{len(e.flight) - 1}
	}
	return nil
}

// subsets yields sets of operations that survive whole.
func (e *enumerator) subsets(newest bool) iter.Seq[subset] {
	return func(yield func(subset) bool) {
		must := e.always(newest)
		free := len(e.flight) - len(must)
		if len(e.flight) <= max(e.Exhaustive, 1) {
			for set := range uint64(1) << free {
				if !yield(only(set, must...)) {
					return
				}
			}
			return
		}
		tries := []subset{only(0, must...), all}
		for _, i := range e.sample(free, manySingles) {
			tries = append(tries, only(0, append(must, i)...), without(i))
		}
		for range e.Samples {
			pair := []int{e.random.IntN(free), e.random.IntN(free)}
			tries = append(tries, only(0, append(must, pair...)...), e.some(must...))
		}
		for _, s := range tries {
			if !yield(s) {
				return
			}
		}
	}
}

// sample returns all numbers below n, or most of them at random.
func (e *enumerator) sample(n, most int) []int {
	p := e.random.Perm(n)
	return p[:min(n, most)]
}

// tornOnes are the operations to be tried torn.
func (e *enumerator) tornOnes(newest bool) []int {
	n := len(e.flight)
	if !newest {
		return e.sample(n, manyTorn)
	}
	torn := []int{n - 1}
	if n > 1 {
		torn = append(torn, e.random.IntN(n-1))
	}
	return torn
}

// around are sets of operations that survive together with a torn one.
func (e *enumerator) around(torn int, newest bool) []subset {
	with := append(e.always(newest), torn)
	return []subset{only(0, with...), all, e.some(with...)}
}

// tears yields the ways for an operation to survive in part: cut between
// sectors, and cut between pages.
func (e *enumerator) tears(op *Op) iter.Seq[[]uint8] {
	return func(yield func([]uint8) bool) {
		masks := make([]uint8, len(op.touches))
		sectors := 0
		for _, t := range op.touches {
			sectors += bits.OnesCount8(t.mask)
		}
		for _, survives := range e.parts(sectors) {
			k := 0
			for i, t := range op.touches {
				masks[i] = 0
				for s := range pageSectors {
					if t.mask>>s&1 == 0 {
						continue
					}
					if survives(k) {
						masks[i] |= 1 << s
					}
					k++
				}
			}
			if !yield(masks) {
				return
			}
		}
		for _, survives := range e.parts(len(op.touches)) {
			for i := range op.touches {
				masks[i] = 0
				if survives(i) {
					masks[i] = allSectors
				}
			}
			if !yield(masks) {
				return
			}
		}
	}
}

// parts are ways for some of n units to survive: all ways for up to three,
// otherwise a beginning, an end, a middle, and what comes at random.
func (e *enumerator) parts(n int) (ways []func(unit int) bool) {
	if n < 2 {
		return nil
	}
	if n <= 3 {
		for set := 1; set < 1<<n-1; set++ {
			ways = append(ways, func(unit int) bool { return set>>unit&1 != 0 })
		}
		return ways
	}
	between := func(from, to int) func(int) bool {
		return func(unit int) bool { return unit >= from && unit < to }
	}
	chance := func(int) bool { return e.random.IntN(2) == 0 }
	return append(ways, between(0, 1), between(0, n-1), between(n-1, n), between(1, n),
		between(0, n/2), between(1, n-1), chance, chance)
}
