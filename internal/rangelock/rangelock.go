// Package rangelock locks ranges of a disk, each for one goroutine at a time.
// Ranges that do not overlap never wait for each other; those that do are
// served in the order in which they were asked for, so that none starves. It
// costs no goroutine, and once warm no memory.
//
// There can be no deadlock as long as a goroutine that holds a range does not
// acquire another one of the same Lock before it has released the first.
package rangelock

import (
	"math"
	"slices"
	"sync"
)

// Lock locks ranges of int64. The zero value is ready; it must not be copied
// after use. All methods may be called concurrently.
type Lock struct {
	mu sync.Mutex
	// queue is all who hold or wait for a range, in the order in which they
	// came. Who comes later waits for all before him that overlap.
	queue []entry
	free  []*Range
}

// entry has the borders next to each other, for looking through the queue.
type entry struct {
	start, end int64 // [start, end)
	r          *Range
}

// Range is a range that is held, from Acquire to Release.
type Range struct {
	before int           // how many it waits for; guarded by Lock.mu
	turn   chan struct{} // gets one value when before comes down to 0
}

// Acquire waits until nobody holds a part of [off, off+n), nor has been
// waiting for one, and holds it. A range that is empty holds nothing. One that
// would end after the greatest int64 ends there.
func (l *Lock) Acquire(off, n int64) *Range {
	e := entry{start: off, end: off + min(max(n, 0), math.MaxInt64-max(off, 0))}
	l.mu.Lock()
	r := l.newRange()
	for _, other := range l.queue {
		if e.overlaps(other) {
			r.before++
		}
	}
	e.r = r
	l.queue = append(l.queue, e)
	wait := r.before > 0
	l.mu.Unlock()
	if wait {
		<-r.turn
	}
	return r
}

// Release lets go of a range and passes it on to who has waited for it. The
// Range must not be used any more: it can be handed out again. To release one
// that is not held does nothing.
func (l *Lock) Release(r *Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.queue, func(e entry) bool { return e.r == r })
	if i < 0 {
		return
	}
	held := l.queue[i]
	for _, later := range l.queue[i+1:] {
		if !held.overlaps(later) {
			continue
		}
		if later.r.before--; later.r.before == 0 {
			later.r.turn <- struct{}{}
		}
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	l.free = append(l.free, r)
}

func (e entry) overlaps(other entry) bool { return max(e.start, other.start) < min(e.end, other.end) }

func (l *Lock) newRange() *Range {
	n := len(l.free)
	if n == 0 {
		return &Range{turn: make(chan struct{}, 1)}
	}
	r := l.free[n-1]
	l.free = l.free[:n-1]
	return r
}
