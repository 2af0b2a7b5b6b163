package cache_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskimg/diskimg/internal/cache"
)

const size = 512

func data() []byte { return make([]byte, size) }

// full returns a cache of four blocks, at 0, 512, 1024 and 1536.
func full(t *testing.T) *cache.Cache {
	t.Helper()
	c := cache.New(size, 4*size)
	for i := range int64(4) {
		c.Put(i*size, data())
	}
	if c.Len() != 4 || c.BlockSize() != size {
		t.Fatalf("%d blocks of %d bytes", c.Len(), c.BlockSize())
	}
	return c
}

// cached lists which of the first 64 blocks are there, without using them.
func cached(c *cache.Cache) []int64 {
	var list []int64
	for i := range int64(64) {
		if c.Get(i*size) != nil {
			list = append(list, i)
		}
	}
	return list
}

func TestGet(t *testing.T) {
	c := cache.New(size, 4*size)
	if c.Get(0) != nil {
		t.Error("an empty cache has something")
	}
	p := data()
	b := c.Put(1024, p)
	if b.Off != 1024 || &b.Data[0] != &p[0] || c.Get(1024) != b || c.Get(512) != nil {
		t.Errorf("%+v", b)
	}
	if allocs := testing.AllocsPerRun(100, func() { c.Get(1024) }); allocs != 0 {
		t.Errorf("a hit allocates %v times", allocs)
	}
}

func TestPutAgain(t *testing.T) {
	c := full(t)
	p := data()
	if b := c.Put(512, p); c.Len() != 4 || &c.Get(512).Data[0] != &p[0] || c.Get(512) != b {
		t.Errorf("%+v", b)
	}
}

// The least number of blocks is four, whatever memory is given.
func TestLeastSize(t *testing.T) {
	for _, bytes := range []int{0, 1, size, 4*size + 1} {
		c := cache.New(size, bytes)
		for i := range int64(20) {
			c.Put(i*size, data())
		}
		if c.Len() != 4 {
			t.Errorf("%d bytes: %d blocks", bytes, c.Len())
		}
	}
}

// What was used since the hand last passed stays, what was not goes.
func TestClock(t *testing.T) {
	c := full(t)
	c.Put(4*size, data()) // the hand passes all and takes one
	if c.Get(0) == nil {
		t.Fatal("the first block is gone first: the hand begins elsewhere")
	}
	c.Put(5*size, data())
	c.Put(6*size, data())
	if list := cached(c); !slices.Equal(list, []int64{0, 4, 5, 6}) {
		t.Errorf("left are %d", list)
	}
}

// A full cycle without use evicts each block once.
func TestClockGoesRound(t *testing.T) {
	c := full(t)
	for i := int64(4); i < 8; i++ {
		c.Put(i*size, data())
	}
	if list := cached(c); !slices.Equal(list, []int64{4, 5, 6, 7}) {
		t.Errorf("left are %d", list)
	}
}

func TestDirtyIsNotEvicted(t *testing.T) {
	c := full(t)
	c.MarkDirty(c.Get(0))
	c.MarkDirty(c.Get(512))
	c.MarkDirty(c.Get(0)) // once is enough
	if c.Dirty() != 2 || c.Pressed() {
		t.Errorf("%d dirty blocks, pressed %v", c.Dirty(), c.Pressed())
	}
	c.MarkDirty(c.Get(1024))
	if !c.Pressed() {
		t.Error("three dirty blocks of four do not press")
	}
	for i := int64(4); i < 64; i++ {
		c.Put(i*size, data())
	}
	if list := cached(c); !slices.Equal(list, []int64{0, 1, 2, 63}) {
		t.Errorf("left are %d", list)
	}
	// With nothing to evict it grows, and shrinks no more.
	c.MarkDirty(c.Get(63 * size))
	c.Put(10*size, data())
	if c.Len() != 5 {
		t.Errorf("%d blocks", c.Len())
	}
}

// What is on its way to the disk is clean and stays until it is there, also if
// it becomes dirty and is taken again meanwhile.
func TestWriting(t *testing.T) {
	c := full(t)
	b := c.Get(0)
	c.MarkDirty(b)
	first := c.TakeDirty()
	if len(first) != 1 || first[0] != b || c.Dirty() != 0 || c.TakeDirty() != nil {
		t.Fatalf("taken: %v", first)
	}
	b.Data[0] = 1
	c.MarkDirty(b)
	second := c.TakeDirty()
	if len(second) != 1 || second[0] != b {
		t.Fatalf("taken the second time: %v", second)
	}
	churn := func() {
		for i := int64(8); i < 64; i++ {
			c.Put(i*size, data())
		}
	}
	churn()
	c.Written(first)
	churn()
	if c.Get(0) != b {
		t.Fatal("gone while a copy is on its way")
	}
	c.Written(second)
	churn()
	churn()
	if c.Get(0) != nil {
		t.Error("still there, though nobody has used it")
	}
}

func TestForget(t *testing.T) {
	c := full(t)
	c.MarkDirty(c.Get(512))
	c.MarkDirty(c.Get(1536))
	c.Forget(512, 2*size)
	if list := cached(c); !slices.Equal(list, []int64{0, 3}) || c.Len() != 2 || c.Dirty() != 1 {
		t.Errorf("left are %d, %d dirty", list, c.Dirty())
	}
	if taken := c.TakeDirty(); len(taken) != 1 || taken[0].Off != 1536 {
		t.Errorf("taken: %v", taken)
	}
	c.Forget(0, 64*size)
	if c.Len() != 0 {
		t.Errorf("%d blocks are left", c.Len())
	}
	for i := range int64(8) {
		c.Put(i*size, data())
	}
	if c.Len() != 4 {
		t.Errorf("%d blocks after all were forgotten", c.Len())
	}
}

// A block that is forgotten while it is written is not there any more, and what
// comes to its place is another block.
func TestForgetWhileWriting(t *testing.T) {
	c := full(t)
	c.MarkDirty(c.Get(0))
	taken := c.TakeDirty()
	c.Forget(0, size)
	b := c.Put(0, data())
	c.Written(taken)
	if b == taken[0] || c.Get(0) != b || c.Len() != 4 {
		t.Error("the new block is the old one")
	}
	for i := int64(8); i < 64; i++ {
		c.Put(i*size, data())
	}
	if c.Get(0) != nil || c.Len() != 4 {
		t.Error("the new block counts as being written")
	}
}

// Nothing dirty is ever lost, and the cache stays near its size.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	c := cache.New(size, 8*size)
	disk, want := map[int64]byte{}, map[int64]byte{}
	var taken []*cache.Block
	var copies [][]byte
	written := func() {
		for i, b := range taken {
			disk[b.Off] = copies[i][0]
		}
		c.Written(taken)
		taken, copies = nil, nil
	}
	get := func(off int64) *cache.Block {
		b := c.Get(off)
		if b == nil {
			p := data()
			p[0] = disk[off]
			b = c.Put(off, p)
		}
		if b.Data[0] != want[off] {
			t.Fatalf("block %d holds %d, want %d", off/size, b.Data[0], want[off])
		}
		return b
	}
	for range 50_000 {
		off := r.Int64N(40) * size
		switch r.IntN(8) {
		case 0, 1, 2, 3:
			get(off)
		case 4, 5:
			b := get(off)
			b.Data[0]++
			want[off]++
			c.MarkDirty(b)
		case 6:
			if taken == nil && (c.Pressed() || r.IntN(8) == 0) {
				taken = c.TakeDirty()
				for _, b := range taken {
					copies = append(copies, slices.Clone(b.Data))
				}
			} else {
				written()
			}
		case 7:
			if taken == nil && r.IntN(4) == 0 {
				c.Forget(off, size)
				want[off] = disk[off]
			}
		}
		if c.Len() > 8+c.Dirty()+len(taken)+40 {
			t.Fatalf("%d blocks, %d of them dirty", c.Len(), c.Dirty())
		}
	}
}

// While a block is read nobody else reads it, and all have it afterwards.
func TestLoad(t *testing.T) {
	c := cache.New(4, 1<<20)
	var mu sync.RWMutex
	var reads atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Load(&mu, 8, func(p []byte) error {
				reads.Add(1)
				time.Sleep(time.Millisecond)
				copy(p, "data")
				return nil
			}); err != nil {
				t.Error(err)
			}
			mu.RLock()
			defer mu.RUnlock()
			if b := c.Get(8); b == nil || string(b.Data) != "data" {
				t.Errorf("the block is %v", b)
			}
		})
	}
	if wg.Wait(); reads.Load() != 1 {
		t.Errorf("it was read %d times", reads.Load())
	}
}

// What could not be read, or is out of date when it has been, is not there.
func TestLoadKeepsNothing(t *testing.T) {
	c := cache.New(4, 1<<20)
	var mu sync.RWMutex
	failure := errors.New("failure")
	if err := c.Load(&mu, 8, func([]byte) error { return failure }); err != failure || c.Get(8) != nil {
		t.Errorf("%v, %v", err, c.Get(8))
	}
	for name, forget := range map[string]func(){"Clear": c.Clear, "Forget": func() { c.Forget(0, 16) }} {
		err := c.Load(&mu, 8, func(p []byte) error {
			mu.Lock()
			forget()
			mu.Unlock()
			return c.Load(&mu, 8, func(p []byte) error { copy(p, "new "); return nil })
		})
		if b := c.Get(8); err != nil || b == nil || string(b.Data) != "new " {
			t.Errorf("%s: %v, %v", name, err, b)
		}
		c.Clear()
	}
}
