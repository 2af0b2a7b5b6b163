package blocktest

// An image may be used by many goroutines at once. The heavier runs are those
// of package model.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
)

const goroutines = 8

// slow makes one kind of operation wait, so that others come between.
func slow(which IO, d time.Duration) Hook {
	return func(op IO, _, n int64) error {
		if op == which && n >= 512 {
			time.Sleep(d)
		}
		return nil
	}
}

// openSlow opens the image for writing with slow operations.
func (d *disk) openSlow(h Hook) {
	d.Helper()
	img, err := d.format.Open(d.path, OpenOptions{Writable: true, Wrap: h.Wrap})
	if err != nil {
		d.Fatal(err)
	}
	d.img = img
}

// testConcurrent gives each goroutine its own bytes, in stripes so narrow that
// all of them share clusters and sectors: what one does must not touch what
// the others have. It begins again with nothing allocated several times,
// because that is where goroutines meet.
func testConcurrent(s *suite) {
	d := s.disk(16*s.cluster + 512)
	d.close()
	d.openSlow(slow(Write, time.Microsecond))
	for round := range 5 {
		s.together(goroutines, func(g int) error {
			o := owner{disk: d, id: uint32(1000*(g+1) + 100*round), random: rand.New(rand.NewPCG(5, uint64(g)))}
			width := 3*s.cluster/8 + 13
			for range 20 {
				stripe := goroutines*o.random.Int64N(d.size()/width/goroutines) + int64(g)
				if err := o.act(stripe*width, width); err != nil {
					return fmt.Errorf("goroutine %d: %w", g, err)
				}
			}
			return nil
		})
		d.verify()
		d.discard(0, d.size())
	}
	d.close()
}

// together runs f in n goroutines and fails with what they return, or panic
// with.
func (s *suite) together(n int, f func(g int) error) {
	s.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for g := range n {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[g] = fmt.Errorf("goroutine %d: panic: %v\n%s", g, p, debug.Stack())
				}
			}()
			errs[g] = f(g)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

// owner is a goroutine that alone uses some ranges of a disk.
type owner struct {
	*disk
	id     uint32
	random *rand.Rand
}

// act does one random thing in a range of its own and looks at the result.
func (o *owner) act(start, width int64) (err error) {
	off := start + o.random.Int64N(width)
	n := 1 + o.random.Int64N(start+width-off)
	want := o.want[off : off+n]
	switch o.random.IntN(6) {
	case 0:
		err = o.img.WriteZeroes(off, n, block.ZeroFlags(o.random.IntN(2)))
		clear(want)
	case 1:
		err = o.img.Flush()
	case 2:
		return o.discardOwn(off, want)
	default:
		o.id++
		stamp.Fill(want, off, o.id)
		_, err = o.img.WriteAt(want, off)
	}
	got := make([]byte, width)
	_, readErr := o.img.ReadAt(got, start)
	if err := errors.Join(err, readErr); err != nil {
		return err
	}
	if diff := stamp.Diff(got, o.want[start:start+width], start); diff != "" {
		return errors.New(diff)
	}
	return nil
}

func (o *owner) discardOwn(off int64, want []byte) error {
	got := make([]byte, len(want))
	err := o.img.Discard(off, int64(len(want)))
	_, readErr := o.img.ReadAt(got, off)
	return errors.Join(err, readErr, settle(want, got, off))
}

// testReadersAndReuse frees clusters and takes them again while others read:
// no reader may see what belongs at another place.
func testReadersAndReuse(s *suite) {
	d := s.disk(8 * s.cluster)
	d.close()
	var turns, reading atomic.Int32
	d.openSlow(func(op IO, _, n int64) error { // reads wait for the others, but not for ever
		begin, now := turns.Load(), time.Now()
		for op == Read && n >= 512 && turns.Load() < begin+8 && time.Since(now) < time.Millisecond {
			runtime.Gosched()
		}
		return nil
	})
	reading.Store(goroutines / 2)
	s.together(goroutines, func(g int) error {
		random := rand.New(rand.NewPCG(6, uint64(g)))
		place := func() int64 { return random.Int64N(8) * s.cluster }
		if g < goroutines/2 {
			defer reading.Add(-1)
			for range 60 {
				if err := d.readOwn(place()); err != nil {
					return err
				}
			}
			return nil
		}
		for i := 0; reading.Load() > 0; i++ {
			if err := d.turnOver(i+g, place(), uint32(1+g)); err != nil {
				return err
			}
			turns.Add(1)
		}
		return nil
	})
	d.want = d.read(0, d.size())
	d.close()
}

// turnOver frees a cluster or writes it, in turns.
func (d *disk) turnOver(turn int, off int64, id uint32) error {
	if turn%2 == 0 {
		return d.img.Discard(off, d.cluster)
	}
	p := make([]byte, d.cluster)
	stamp.Fill(p, off, id)
	_, err := d.img.WriteAt(p, off)
	return err
}

// readOwn reads a cluster, in which all that is not zero must belong there.
func (d *disk) readOwn(off int64) error {
	p := make([]byte, d.cluster)
	if _, err := d.img.ReadAt(p, off); err != nil {
		return err
	}
	for i := 0; i < len(p); i += 8 {
		if zero.Is(p[i : i+8]) {
			continue
		}
		if id, place, ok := stamp.Origin(p[i : i+8]); !ok || place != off+int64(i) {
			return fmt.Errorf("a reader finds at %#x what write %d put at %#x (%x)", off+int64(i), id, place, p[i:i+8])
		}
	}
	return nil
}
