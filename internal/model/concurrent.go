package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
)

// ConcurrentOptions say how goroutines meet on one image.
type ConcurrentOptions struct {
	// Create holds creation options, in qemu-img's names.
	Create map[string]string
	// Goroutines, 0 for 8, do Ops operations each, 0 for 40, in each of Rounds
	// rounds, 0 for 10. DISKIMG_LONG=1 makes Rounds 50 times as many.
	Goroutines, Ops, Rounds int
	// Clusters is the number of clusters they share, 0 for 6.
	Clusters int64
	// Wrap, if not nil, goes around the files of the image: to make them slow.
	Wrap func(block.File) block.File
}

// RunConcurrent has many goroutines write, zero, discard and read the same few
// clusters at the same time. Each sector must behave as a register does: a read
// returns the value of a write that had begun before the read ended and had not
// been overwritten before the read began; a value that was seen is not followed
// by one that is older. After each round the image is closed, must hold what
// the last reads saw, and check clean.
func RunConcurrent(t testing.TB, f blocktest.Format, o ConcurrentOptions) {
	t.Helper()
	o.Goroutines, o.Ops, o.Rounds = orDefault(o.Goroutines, 8), orDefault(o.Ops, 40), runs(orDefault(o.Rounds, 10))
	if o.Clusters == 0 {
		o.Clusters = 6
	}
	p, err := newPlan(f, Options{Create: o.Create}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(o.Rounds) {
		seed := *seedFlag + i
		if err := p.meet(o, seed); err != nil {
			t.Fatalf("%s image, round with -model.seed=%d: %v", f.Name, seed, err)
		}
	}
}

// meet is one round, on an image of its own. Every other one has a backing
// image, where the format can.
func (p plan) meet(o ConcurrentOptions, seed int64) error {
	dir, err := os.MkdirTemp(p.dir, "round")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	seq := Sequence{Size: o.Clusters*p.cluster + sector, Base: -1, Cluster: p.cluster, Options: o.Create}
	if p.format.Backing && seed%2 == 0 {
		seq.Base = seq.Size
	}
	s := session{plan: p, dir: dir, seq: seq}
	if err := s.create(); err != nil {
		return err
	}
	img, err := p.format.Open(filepath.Join(dir, "disk"), blocktest.OpenOptions{Writable: true, Wrap: o.Wrap})
	if err != nil {
		return err
	}
	h := &history{size: seq.Size}
	if err := h.begin(img); err != nil {
		return err
	}
	err = together(o.Goroutines, func(g int) error { return h.act(img, g, o.Ops, source(seed*1000+int64(g)), p.cluster) })
	if err == nil {
		var last []byte
		last, err = h.end(img)
		s.disk = NewDisk(seq.Size, last)
	}
	if err := errors.Join(err, img.Close()); err != nil {
		return err
	}
	return s.inspect()
}

// together runs f in n goroutines; a panic is an error.
func together(n int, f func(g int) error) error {
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
	return errors.Join(errs...)
}

// history is what goroutines have done to an image and seen in it, with times.
type history struct {
	size   int64
	clock  atomic.Int64
	mu     sync.Mutex
	events []event
}

// event is one operation on a range of sectors that took place at some moment
// between begin and end.
type event struct {
	Op
	begin, end int64
	got        []byte // what a read has read
}

// do does one operation and notes it.
func (h *history) do(img *block.Image, o Op) (err error) {
	e := event{Op: o, begin: h.clock.Add(1)}
	switch o.Action {
	case read.Name:
		e.got, err = readAt(img, o.Off, o.Len)
	case write.Name:
		err = write.Do(img, nil, o)
	case writeZeroes.Name:
		err = writeZeroes.Do(img, nil, o)
	case discard.Name:
		err = discard.Do(img, nil, o)
	default:
		err = img.Flush()
	}
	if err != nil {
		return fmt.Errorf("operation %s: %w", o, err)
	}
	e.end = h.clock.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	return nil
}

// begin notes what the image holds, as a write that has come before all.
func (h *history) begin(img *block.Image) error {
	return h.do(img, Op{Action: read.Name, Len: h.size})
}

// act does n random operations of goroutine g.
func (h *history) act(img *block.Image, g, n int, r *rand.Rand, cluster int64) error {
	gen := &Gen{Rand: r, Size: h.size, Cluster: cluster}
	for i := range n {
		o := Op{ID: uint32(g*n + i + 1), Action: meetings[r.IntN(len(meetings))].Name}
		if o.Action != flush.Name {
			o.Off, o.Len = gen.Range()
			o.Off -= o.Off % sector
			o.Len = min((o.Len+sector-1)/sector*sector, h.size-o.Off)
		}
		if o.Action == write.Name {
			o.Fill = Stamp
		}
		o.Unmap = o.Action == writeZeroes.Name && r.IntN(2) == 0
		if err := h.do(img, o); err != nil {
			return err
		}
		gen.remember(o)
	}
	return nil
}

// meetings are the actions of goroutines, as often as they come.
var meetings = []Action{write, write, write, write, writeZeroes, discard, read, read, read, flush}

// end reads the image for the last time, judges the history, and returns what
// was read.
func (h *history) end(img *block.Image) ([]byte, error) {
	if err := h.do(img, Op{Action: read.Name, Len: h.size}); err != nil {
		return nil, err
	}
	for off := int64(0); off < h.size; off += sector {
		if err := h.register(off).judge(); err != nil {
			return nil, err
		}
	}
	return h.events[len(h.events)-1].got, nil
}
