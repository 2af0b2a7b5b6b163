package qcow2

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What has been unlinked at some instant is free when all requests that ran
// then are done: not before, and not never.

func TestPins(t *testing.T) {
	type unlink struct {
		epoch   uint32
		running []int // requests that ran then
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		var p pins
		tokens := map[int]uint32{} // of running requests
		var waiting []unlink
		for step := range 200 {
			switch r.IntN(5) {
			case 0, 1:
				tokens[step] = p.pin()
			case 2:
				for id, token := range tokens {
					p.unpin(token)
					delete(tokens, id)
					break
				}
			case 3:
				u := unlink{epoch: p.epoch.Load()}
				for id := range tokens {
					u.running = append(u.running, id)
				}
				waiting = append(waiting, u)
			case 4:
				p.advance()
			}
			waiting = slices.DeleteFunc(waiting, func(u unlink) bool {
				if !p.ended(u.epoch) {
					return false
				}
				for _, id := range u.running {
					if _, still := tokens[id]; still {
						t.Fatalf("seed %d, step %d: epoch %d has ended, but a request that ran then still does", seed, step, u.epoch)
					}
				}
				return true
			})
		}
		for _, token := range tokens {
			p.unpin(token)
		}
		p.advance()
		p.advance()
		for _, u := range waiting {
			if !p.ended(u.epoch) {
				t.Fatalf("seed %d: epoch %d has not ended, nothing runs", seed, u.epoch)
			}
		}
	}
}

// The epoch wraps around.
func TestPinsWrap(t *testing.T) {
	var p pins
	p.epoch.Store(1<<32 - 2)
	for range 6 {
		e := p.epoch.Load()
		token := p.pin()
		p.advance()
		p.advance()
		if p.ended(e) {
			t.Fatalf("epoch %d has ended while a request runs", e)
		}
		p.unpin(token)
		p.advance()
		if !p.ended(e) {
			t.Fatalf("epoch %d has not ended", e)
		}
	}
}

// Readers look up a place and use it; a writer unlinks it, waits for the epoch
// to end and then takes it back.
func TestPinsConcurrently(t *testing.T) {
	type place struct{ freed atomic.Bool }
	var current atomic.Pointer[place]
	current.Store(new(place))
	var p pins
	var stop atomic.Bool
	var requests atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				token := p.pin()
				c := current.Load()
				for range 10 {
					if c.freed.Load() {
						t.Error("a place was taken back while a request used it")
						stop.Store(true)
					}
				}
				p.unpin(token)
				requests.Add(1)
				runtime.Gosched()
			}
		})
	}
	freed := 0
	for begin := time.Now(); !stop.Load() && time.Since(begin) < 200*time.Millisecond; freed++ {
		old := current.Swap(new(place))
		e := p.epoch.Load()
		for !p.ended(e) && !stop.Load() {
			p.advance()
			runtime.Gosched()
		}
		old.freed.Store(true)
	}
	stop.Store(true)
	wg.Wait()
	if freed == 0 || requests.Load() == 0 {
		t.Errorf("%d places were taken back, %d requests made", freed, requests.Load())
	}
}
