package rangelock

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// acquired starts to acquire a range in a goroutine and returns when it is in
// the queue. The channel gets the range.
func acquired(l *Lock, off, n int64) <-chan *Range {
	l.mu.Lock()
	queued := len(l.queue)
	l.mu.Unlock()
	got := make(chan *Range, 1)
	go func() { got <- l.Acquire(off, n) }()
	for {
		l.mu.Lock()
		now := len(l.queue)
		l.mu.Unlock()
		if now > queued {
			return got
		}
		runtime.Gosched()
	}
}

// holds reports whether the range has been acquired. One that has not must
// not come for a while.
func holds(got <-chan *Range) (*Range, bool) {
	select {
	case r := <-got:
		return r, true
	case <-time.After(20 * time.Millisecond):
		return nil, false
	}
}

func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		aOff, aLen, bOff, bLen int64
		overlap                bool
	}{
		{0, 10, 10, 10, false},
		{10, 10, 0, 10, false},
		{0, 11, 10, 10, true},
		{10, 10, 0, 11, true},
		{0, 100, 50, 1, true},
		{50, 1, 0, 100, true},
		{5, 5, 5, 5, true},
		{0, 0, 0, 10, false},
		{5, 0, 0, 10, false},
		{0, 10, 5, 0, false},
		{0, 10, 5, -3, false},
		{0, math.MaxInt64, math.MaxInt64 - 1, 1, true},
		{math.MaxInt64 - 1, math.MaxInt64, 0, math.MaxInt64, true},
		{math.MaxInt64 - 1, math.MaxInt64, 0, 100, false},
		{-10, 20, 0, 1, true},
	} {
		var l Lock
		a := l.Acquire(test.aOff, test.aLen)
		got := acquired(&l, test.bOff, test.bLen)
		b, ok := holds(got)
		if ok == test.overlap {
			t.Errorf("%+v: both are held: %v", test, ok)
		}
		l.Release(a)
		if !ok {
			b = <-got
		}
		l.Release(b)
		if len(l.queue) != 0 {
			t.Errorf("%+v: %d ranges are left", test, len(l.queue))
		}
	}
}

// Who comes later does not overtake who waits for a part of the same, even if
// the part that he wants is free.
func TestFirstComeFirstServed(t *testing.T) {
	var l Lock
	a := l.Acquire(0, 10)
	wide := acquired(&l, 5, 20)  // waits for a
	late := acquired(&l, 15, 5)  // free now, but wide was there before
	other := acquired(&l, 30, 5) // nobody's business
	if r, ok := holds(other); ok {
		l.Release(r)
	} else {
		t.Error("a range of its own has to wait")
	}
	if _, ok := holds(late); ok {
		t.Fatal("who came later overtook")
	}
	l.Release(a)
	w := <-wide
	if _, ok := holds(late); ok {
		t.Fatal("two hold overlapping ranges")
	}
	l.Release(w)
	l.Release(<-late)
}

// Each byte counts who is in it: never more than one.
func TestExclusion(t *testing.T) {
	const size, workers, rounds = 64, 16, 2000
	var l Lock
	var inside [size]int // without a lock: the race detector looks on
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				off := r.Int64N(size)
				n := r.Int64N(size-off) + 1
				held := l.Acquire(off, n)
				for i := off; i < off+n; i++ {
					if inside[i]++; inside[i] != 1 {
						t.Errorf("%d are in byte %d", inside[i], i)
					}
				}
				runtime.Gosched()
				for i := off; i < off+n; i++ {
					inside[i]--
				}
				l.Release(held)
			}
		})
	}
	wg.Wait()
	if len(l.queue) != 0 {
		t.Errorf("%d ranges are left", len(l.queue))
	}
	if len(l.free) > workers {
		t.Errorf("%d ranges were made for %d goroutines", len(l.free), workers)
	}
}

func TestAllocatesNothing(t *testing.T) {
	var l Lock
	l.Release(l.Acquire(0, 1))
	if n := testing.AllocsPerRun(100, func() { l.Release(l.Acquire(5, 10)) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestReleaseTwice(t *testing.T) {
	var l Lock
	a, b := l.Acquire(0, 1), l.Acquire(1, 1)
	l.Release(a)
	l.Release(a)
	if c, d := l.Acquire(0, 1), l.Acquire(2, 1); c == d {
		t.Error("one Range stands for two")
	}
	if len(l.queue) != 3 {
		t.Errorf("%d ranges are held, want 3", len(l.queue))
	}
	l.Release(b)
}

// What a lock costs with that many other ranges held.
func BenchmarkUncontended(b *testing.B) {
	for _, others := range []int{0, 16, 64} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			var l Lock
			for i := range others {
				l.Acquire(int64(i+1)<<20, 4096)
			}
			for b.Loop() {
				l.Release(l.Acquire(0, 4096))
			}
		})
	}
}
