// Package cow fills new space with what is written and the old bytes around
// it: copy on write. It takes no lock; who calls it holds the range.
package cow

import (
	"sync"

	"github.com/diskimg/diskimg/block"
)

// OneWrite is up to which size, in bytes, old and new bytes are put together in
// memory, to be written at once.
const OneWrite = 256 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Buffer returns a buffer of n bytes with anything in it, to be given back with
// Release.
func Buffer(n int64) *[]byte {
	b := buffers.Get().(*[]byte)
	if int64(cap(*b)) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

// Release gives a buffer back, which nobody may use any more.
func Release(b *[]byte) { buffers.Put(b) }

// Space is what is to be filled. Offsets are those of the guest disk.
type Space interface {
	// ReadOld reads what is there before the write, zeros past the end of the
	// disk.
	ReadOld(p []byte, off int64) error
	// WriteNew writes to the new space.
	WriteNew(p []byte, off int64) error
	// Event is told of what is done next.
	Event(e block.Event)
}

// Fill writes p at off, and the old bytes of [from, to) around it.
func Fill(s Space, p []byte, off, from, to int64) error {
	end := off + int64(len(p))
	switch {
	case from == off && to == end:
		s.Event(block.EventWriteAIO)
		return s.WriteNew(p, off)
	case to-from > OneWrite:
		return fillInParts(s, p, off, from, to)
	}
	buf := Buffer(to - from)
	defer Release(buf)
	b := *buf
	s.Event(block.EventCOWRead)
	if err := readOld(s, b[:off-from], from); err != nil {
		return err
	}
	copy(b[off-from:], p)
	if err := readOld(s, b[end-from:], end); err != nil {
		return err
	}
	s.Event(block.EventWriteAIO)
	return s.WriteNew(b, from)
}

func readOld(s Space, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	return s.ReadOld(p, off)
}

// fillInParts is Fill for what is too large to be copied.
func fillInParts(s Space, p []byte, off, from, to int64) error {
	if err := copyOld(s, from, off); err != nil {
		return err
	}
	if err := copyOld(s, off+int64(len(p)), to); err != nil {
		return err
	}
	s.Event(block.EventWriteAIO)
	return s.WriteNew(p, off)
}

// copyOld copies [from, to) as it reads now into the new space.
func copyOld(s Space, from, to int64) error {
	for from < to {
		n := min(to-from, OneWrite)
		if err := copyPiece(s, from, n); err != nil {
			return err
		}
		from += n
	}
	return nil
}

func copyPiece(s Space, off, n int64) error {
	buf := Buffer(n)
	defer Release(buf)
	s.Event(block.EventCOWRead)
	if err := s.ReadOld(*buf, off); err != nil {
		return err
	}
	s.Event(block.EventCOWWrite)
	return s.WriteNew(*buf, off)
}
