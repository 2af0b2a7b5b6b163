package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// heldWrite is a hook that lets the next write wait, once it is armed.
type heldWrite struct {
	mu      sync.Mutex
	armed   bool
	reached chan struct{}
	release chan struct{}
}

func (h *heldWrite) ask(op blocktest.IO, off, n int64) error {
	h.mu.Lock()
	hold := h.armed && op == blocktest.Write
	if hold {
		h.armed = false
	}
	h.mu.Unlock()
	if hold {
		close(h.reached)
		<-h.release
	}
	return nil
}

// While a flush is writing refcounts, something else writes some at once: what the
// flush has in hand is older and must not get to the disk last.
func TestCountsBesideFlush(t *testing.T) {
	for _, c := range []struct {
		name string
		op   func(img *block.Image) error
	}{
		{"a bitmap is added", func(img *block.Image) error {
			e, _ := block.As[block.BitmapEditor](img)
			return e.EditBitmaps(context.Background(), []block.BitmapEdit{{Op: block.AddBitmap, Name: "b"}}, nil)
		}},
		{"the state of a machine needs a longer L1 table", func(img *block.Image) error {
			k, _ := block.As[block.VMStateKeeper](img)
			return k.WriteVMState(make([]byte, 1<<10), 8<<20)
		}},
		{"the disk grows", func(img *block.Image) error {
			r, _ := block.As[block.Resizer](img)
			return r.Resize(context.Background(), 8<<20, block.ResizeOptions{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) { countsBesideFlush(t, c.op) })
	}
}

func countsBesideFlush(t *testing.T, op func(img *block.Image) error) {
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: 4 << 10}))
	h := &heldWrite{reached: make(chan struct{}), release: make(chan struct{})}
	img, err := qcow2.Open(blocktest.Hook(h.ask).Wrap(f.Reopen()), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	p := bytes.Repeat([]byte{7}, 64<<10)
	must(t, writeTo(img)(p, 0))
	h.armed = true
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := img.Flush(); err != nil {
			t.Error(err)
		}
	})
	<-h.reached
	done := make(chan error, 1)
	go func() { done <- op(img) }()
	select {
	case err = <-done:
		close(h.release)
	case <-time.After(50 * time.Millisecond): // it waits for the flush
		close(h.release)
		err = <-done
	}
	wg.Wait()
	must(t, err)
	// The power fails.
	again := openBitmaps(t, f, false)
	must(t, errors.Join(checkNoCorruption(again, false), again.Close(), img.Close()))
}

// Images are made empty while others write and flush.
func TestEmptyBesideFlush(t *testing.T) {
	const size, cluster = 1 << 20, 512
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: size, ClusterSize: cluster, RefcountBits: 64}))
	img := openBitmaps(t, f, true)
	e, _ := block.As[block.Emptier](img)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range int64(2) {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, 96<<10)
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := errors.Join(writeTo(img)(p, (n*3+i*5)%8*(100<<10)), img.Flush()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		if err := e.MakeEmpty(); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
	must(t, errors.Join(checkNoCorruption(img, false), img.Close()))
	again := openBitmaps(t, f, false)
	defer again.Close()
	must(t, checkNoCorruption(again, false))
}
