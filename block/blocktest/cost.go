package blocktest

import (
	"runtime"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// The limits of what a hostile image may cost, in bytes: to be described, and
// to be opened or refused, if it takes up no more than a megabyte.
const (
	InspectReads = 1 << 20
	InspectHeap  = 2 << 20
	OpenHeap     = 8 << 20
)

// Cost is what something took: bytes read of a file, and memory, that which was
// given back included.
type Cost struct{ Reads, Heap int64 }

// CostOf measures what f takes of a file.
func CostOf(file block.File, f func(block.File)) Cost {
	m := &meter{File: file}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f(m)
	runtime.ReadMemStats(&after)
	return Cost{Reads: m.read.Load(), Heap: int64(after.TotalAlloc - before.TotalAlloc)}
}

// meter is a file that counts what is read, and no more than a file.
type meter struct {
	block.File
	read atomic.Int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.File.ReadAt(p, off)
	m.read.Add(int64(n))
	return n, err
}
