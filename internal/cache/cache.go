// Package cache holds pieces of on-disk tables in memory: blocks of one size,
// each at a host offset, clean or dirty. It does no I/O. The owner's lock guards
// it: Get and the reading of a Block's bytes need it shared, everything else
// exclusive, and Load takes it. What must be on disk before what is the
// owner's to know; it takes the dirty blocks with TakeDirty, writes them in its
// order, and says Written.
package cache

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Block is a piece of a table. Its bytes are as they are on disk.
type Block struct {
	Off     int64
	Data    []byte
	dirty   bool
	writing int         // copies on their way to the disk
	used    atomic.Bool // since the clock hand last passed
}

// Cache is a set of blocks, evicted by the clock algorithm.
type Cache struct {
	size   int
	limit  int
	blocks map[int64]*Block
	ring   []*Block // all blocks, in the order of the clock
	hand   int
	dirty  []*Block
	loads  map[int64]chan struct{} // blocks that are being read, see Load
}

// New makes a cache of blocks of size bytes that keeps about bytes in memory.
func New(size, bytes int) *Cache {
	return &Cache{size: size, limit: max(4, bytes/size), blocks: make(map[int64]*Block), loads: make(map[int64]chan struct{})}
}

// BlockSize returns the size of a block in bytes.
func (c *Cache) BlockSize() int { return c.size }

// Get returns the block at off, nil if it is not cached.
func (c *Cache) Get(off int64) *Block {
	b := c.blocks[off]
	if b != nil && !b.used.Load() {
		b.used.Store(true)
	}
	return b
}

// Load has read fill the block at off and puts it into the cache, unless it is
// there. mu is the owner's lock, which is not held, neither when Load is called
// nor while read runs. While one goroutine reads a block others wait for it, so
// it can't change on disk between being read and being cached. Afterwards the
// block may not be there, because others needed the room or it was forgotten
// meanwhile: the caller looks again.
func (c *Cache) Load(mu sync.Locker, off int64, read func(p []byte) error) error {
	done := c.begin(mu, off)
	if done == nil {
		return nil
	}
	data := make([]byte, c.size)
	err := read(data)
	mu.Lock()
	defer mu.Unlock()
	defer close(done)
	if c.loads[off] != done {
		return nil // forgotten
	}
	delete(c.loads, off)
	if err == nil {
		c.Put(off, data)
	}
	return err
}

// begin announces the reading of a block. It returns nil if the block is there,
// or when somebody else has read it.
func (c *Cache) begin(mu sync.Locker, off int64) (done chan struct{}) {
	mu.Lock()
	if c.Get(off) != nil {
		mu.Unlock()
		return nil
	}
	if others, ok := c.loads[off]; ok {
		mu.Unlock()
		<-others
		return nil
	}
	done = make(chan struct{})
	c.loads[off] = done
	mu.Unlock()
	return done
}

// Put adds a clean block at off that keeps data. It evicts a clean block when
// the cache is full and grows past its limit when there is none.
func (c *Cache) Put(off int64, data []byte) *Block {
	if old := c.blocks[off]; old != nil {
		old.Data = data
		return old
	}
	b := &Block{Off: off, Data: data}
	b.used.Store(true)
	c.blocks[off] = b
	if i, ok := c.victim(); ok {
		delete(c.blocks, c.ring[i].Off)
		c.ring[i] = b
	} else {
		c.ring = append(c.ring, b)
	}
	return b
}

// DropUnused drops clean blocks that have not been used since it was called
// before, or since the clock hand passed.
func (c *Cache) DropUnused() {
	c.ring = slices.DeleteFunc(c.ring, func(b *Block) bool {
		unused := !b.used.Swap(false) && !b.dirty && b.writing == 0
		if unused {
			delete(c.blocks, b.Off)
		}
		return unused
	})
	c.hand = 0
}

// victim finds the place in the ring of a clean block that was not used
// lately. ok is false while there is room, and when all blocks are held.
func (c *Cache) victim() (i int, ok bool) {
	if len(c.ring) < c.limit {
		return 0, false
	}
	for range 2 * len(c.ring) {
		c.hand = (c.hand + 1) % len(c.ring)
		b := c.ring[c.hand]
		if b.dirty || b.writing > 0 {
			continue
		}
		if !b.used.Swap(false) {
			return c.hand, true
		}
	}
	return 0, false
}

// MarkDirty notes that the bytes of b differ from the disk.
func (c *Cache) MarkDirty(b *Block) {
	if !b.dirty {
		b.dirty = true
		c.dirty = append(c.dirty, b)
	}
}

// Dirty returns how many blocks wait to be written.
func (c *Cache) Dirty() int { return len(c.dirty) }

// Pressed reports whether so much waits to be written that eviction suffers.
func (c *Cache) Pressed() bool { return len(c.dirty) > c.limit/2 }

// TakeDirty returns the dirty blocks and counts them as clean, but holds them
// in memory until Written. The owner copies their bytes before it lets go of
// its lock.
func (c *Cache) TakeDirty() []*Block {
	taken := c.dirty
	c.dirty = nil
	for _, b := range taken {
		b.dirty = false
		b.writing++
	}
	return taken
}

// Unwritten returns the blocks whose bytes the disk may not have yet: those that
// are dirty, and those that have been taken and not been written.
func (c *Cache) Unwritten() (list []*Block) {
	for _, b := range c.ring {
		if b.dirty || b.writing > 0 {
			list = append(list, b)
		}
	}
	return list
}

// Written ends what TakeDirty began.
func (c *Cache) Written(taken []*Block) {
	for _, b := range taken {
		b.writing--
	}
}

// Forget drops the blocks in [off, off+n), dirty or not: the table they belong
// to is no more, or is another one. What is being read there now is not kept.
func (c *Cache) Forget(off, n int64) {
	for at := off; at < off+n; at += int64(c.size) {
		delete(c.loads, at)
		if b := c.blocks[at]; b != nil {
			delete(c.blocks, at)
			c.remove(b)
		}
	}
}

// Clear drops all blocks, dirty or not.
func (c *Cache) Clear() {
	for _, b := range c.ring {
		b.dirty = false
	}
	clear(c.blocks)
	clear(c.loads) // what is being read now is not kept
	c.ring, c.dirty, c.hand = nil, nil, 0
}

func (c *Cache) remove(b *Block) {
	b.dirty = false
	c.dirty = without(c.dirty, b)
	c.ring = without(c.ring, b)
}

func without(list []*Block, b *Block) []*Block {
	for i, x := range list {
		if x == b {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// Len returns how many blocks are cached.
func (c *Cache) Len() int { return len(c.ring) }
