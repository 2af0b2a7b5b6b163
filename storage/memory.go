package storage

// This file is memory as a block.File. It is as sparse as a file on disk: only
// pages that were written or reserved cost anything, so a file of a terabyte
// with nothing in it is free.

import (
	"cmp"
	"io"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

const (
	pageSize   = 4 << 10
	chunkPages = 256
	chunkSize  = pageSize * chunkPages

	maxMemory = 1 << 62 // bytes that a file can be long
)

type page [pageSize]byte

// zeroPage stands for all pages that are allocated and hold zeros. It is
// never written.
var zeroPage page

// chunk is a piece of a Memory in which something is allocated.
type chunk struct {
	index int64 // offset / chunkSize
	used  int   // pages that are not nil
	pages [chunkPages]*page
}

// content is what a Memory holds, whoever has it open.
type content struct {
	mu     sync.RWMutex
	size   int64
	chunks []*chunk // by index
}

// Memory is a file in memory. Its methods may be called concurrently.
type Memory struct {
	c      *content
	closed atomic.Bool
}

var (
	_ block.File           = (*Memory)(nil)
	_ block.HoleFinder     = (*Memory)(nil)
	_ block.HolePuncher    = (*Memory)(nil)
	_ block.ZeroWriter     = (*Memory)(nil)
	_ block.Reserver       = (*Memory)(nil)
	_ block.AllocatedSizer = (*Memory)(nil)
)

// NewMemory returns an empty file.
func NewMemory() *Memory { return &Memory{c: &content{}} }

// Reopen returns another open file on the same content, as opening a path
// again does. It works on a closed Memory too.
func (m *Memory) Reopen() *Memory { return &Memory{c: m.c} }

// Close makes all later calls fail. The content stays for Reopen.
func (m *Memory) Close() error {
	if m.closed.Swap(true) {
		return memoryError("close", fs.ErrClosed)
	}
	return nil
}

func memoryError(op string, err error) error {
	return &fs.PathError{Op: op, Path: "memory", Err: err}
}

// check refuses calls on a closed file and what is not a range.
func (m *Memory) check(op string, off, n int64) error {
	switch {
	case m.closed.Load():
		return memoryError(op, fs.ErrClosed)
	case off < 0 || n < 0 || off > math.MaxInt64-n:
		return memoryError(op, block.Invalidf("%d bytes at offset %d are not a range", n, off))
	}
	return nil
}

// checkRoom is check for what may make the file longer.
func (m *Memory) checkRoom(op string, off, n int64) error {
	if err := m.check(op, off, n); err != nil {
		return err
	}
	if off+n > maxMemory {
		return memoryError(op, block.Errorf(block.ErrNoSpace, "%d bytes are more than the %d a file can have", off+n, int64(maxMemory)))
	}
	return nil
}

// find returns where the chunk with that index is, or would be.
func (c *content) find(index int64) (int, bool) {
	return slices.BinarySearchFunc(c.chunks, index, func(k *chunk, index int64) int {
		return cmp.Compare(k.index, index)
	})
}

// chunk returns the chunk with that index, nil if there is none and make is
// not set.
func (c *content) chunk(index int64, make bool) *chunk {
	i, ok := c.find(index)
	switch {
	case ok:
		return c.chunks[i]
	case !make:
		return nil
	}
	k := &chunk{index: index}
	c.chunks = slices.Insert(c.chunks, i, k)
	return k
}

// set puts page p, which may be nil, at position i.
func (k *chunk) set(i int64, p *page) {
	if k.pages[i] != nil {
		k.used--
	}
	if p != nil {
		k.used++
	}
	k.pages[i] = p
}

// writable returns the page at position i, for writing.
func (k *chunk) writable(i int64) *page {
	if p := k.pages[i]; p == nil || p == &zeroPage {
		k.set(i, new(page))
	}
	return k.pages[i]
}

// drop forgets chunks in which nothing is allocated any more.
func (c *content) drop() {
	c.chunks = slices.DeleteFunc(c.chunks, func(k *chunk) bool { return k.used == 0 })
}

// locate splits an offset: the chunk, the page in it, the byte in that.
func locate(off int64) (index, i, at int64) {
	return off / chunkSize, off % chunkSize / pageSize, off % pageSize
}

// ReadAt reads len(p) bytes at off, as io.ReaderAt says.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	if err := m.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	m.c.mu.RLock()
	defer m.c.mu.RUnlock()
	n := int(max(0, min(int64(len(p)), m.c.size-off)))
	for done := 0; done < n; {
		done += m.c.readPage(p[done:n], off+int64(done))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPage reads up to the end of the page that off lies in.
func (c *content) readPage(p []byte, off int64) int {
	index, i, at := locate(off)
	p = p[:min(len(p), int(pageSize-at))]
	k := c.chunk(index, false)
	if k == nil || k.pages[i] == nil {
		clear(p)
		return len(p)
	}
	return copy(p, k.pages[i][at:])
}

// WriteAt writes p at off.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.checkRoom("write", off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for done := 0; done < len(p); {
		index, i, at := locate(off + int64(done))
		done += copy(c.chunk(index, true).writable(i)[at:], p[done:])
	}
	c.size = max(c.size, off+int64(len(p)))
	return len(p), nil
}

// Size returns the length in bytes.
func (m *Memory) Size() (int64, error) {
	if err := m.check("size", 0, 0); err != nil {
		return 0, err
	}
	m.c.mu.RLock()
	defer m.c.mu.RUnlock()
	return m.c.size, nil
}

// Truncate sets the length; new bytes read as zero.
func (m *Memory) Truncate(size int64) error {
	if err := m.checkRoom("truncate", size, 0); err != nil {
		return err
	}
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if size < c.size {
		// All allocated pages behind the end go, reserved ones too.
		c.free(size, math.MaxInt64-size)
	}
	c.size = size
	return nil
}

// Sync does nothing: there is nothing below memory.
func (m *Memory) Sync() error { return m.check("sync", 0, 0) }

// PunchHole makes [off, off+n) read as zero and frees its whole pages.
func (m *Memory) PunchHole(off, n int64) error {
	if err := m.check("punch hole", off, n); err != nil || n == 0 {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.free(off, n)
	return nil
}

// free zeroes a range and takes its whole pages away.
func (c *content) free(off, n int64) {
	end := off + n
	from, _ := c.find(off / chunkSize)
	for _, k := range c.chunks[from:] {
		base := k.index * chunkSize
		if base >= end {
			break
		}
		k.free(max(off-base, 0), min(end-base, chunkSize))
	}
	c.drop()
}

// free does it for the range [from, to) of one chunk.
func (k *chunk) free(from, to int64) {
	for at := from; at < to; {
		i, in := at/pageSize, at%pageSize
		n := min(pageSize-in, to-at)
		switch {
		case n == pageSize:
			k.set(i, nil)
		case k.pages[i] != nil:
			clear(k.writable(i)[in : in+n])
		}
		at += n
	}
}

// WriteZeroes makes [off, off+n) read as zero and be allocated.
func (m *Memory) WriteZeroes(off, n int64) error {
	return m.reserve("write zeroes", off, n, true)
}

// Reserve allocates [off, off+n) and keeps what is in it.
func (m *Memory) Reserve(off, n int64) error {
	return m.reserve("reserve", off, n, false)
}

func (m *Memory) reserve(op string, off, n int64, zero bool) error {
	if err := m.checkRoom(op, off, n); err != nil || n == 0 {
		return err
	}
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if zero {
		c.free(off, n)
	}
	for at := off - off%pageSize; at < off+n; at += pageSize {
		index, i, _ := locate(at)
		if k := c.chunk(index, true); k.pages[i] == nil {
			k.set(i, &zeroPage)
		}
	}
	c.size = max(c.size, off+n)
	return nil
}

// NextData returns the first run of allocated pages at or after off.
func (m *Memory) NextData(off int64) (start, end int64, err error) {
	if err := m.check("seek data", off, 0); err != nil {
		return 0, 0, err
	}
	c := m.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	start = c.nextPage(off, true)
	end = c.nextPage(start, false)
	return min(start, c.size), min(end, c.size), nil
}

// nextPage returns the first offset from off on that lies in an allocated page
// or, if not allocated is asked for, in no such page: at the latest the end.
func (c *content) nextPage(off int64, allocated bool) int64 {
	from, _ := c.find(off / chunkSize)
	for _, k := range c.chunks[from:] {
		base := k.index * chunkSize
		if base > off {
			if !allocated {
				return off
			}
			off = base
		}
		for ; off < base+chunkSize; off += pageSize - off%pageSize {
			if _, i, _ := locate(off); (k.pages[i] != nil) == allocated {
				return off
			}
		}
	}
	if allocated {
		return max(off, c.size)
	}
	return off
}

// AllocatedSize returns the bytes of all allocated pages.
func (m *Memory) AllocatedSize() (int64, error) {
	if err := m.check("stat", 0, 0); err != nil {
		return 0, err
	}
	m.c.mu.RLock()
	defer m.c.mu.RUnlock()
	var pages int64
	for _, k := range m.c.chunks {
		pages += int64(k.used)
	}
	return pages * pageSize, nil
}
