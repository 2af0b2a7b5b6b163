package model

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
)

const sector = 512

// Disk is the model: what an image must read as. After a discard a sector may
// hold what it held or zeros; what it is seen to hold, it keeps.
//
// It is used by one goroutine at a time.
type Disk struct {
	data []byte
	// loose holds for each byte the discard that left it open, 0 for none. All
	// bytes of one sector that one discard has left open are zero, or none is.
	loose []uint32
	again uint32 // numbers what more than one discard has left open
}

// manyDiscards is where the numbers in loose begin that are not those of one
// discard.
const manyDiscards = 1 << 24

// NewDisk returns a model of size bytes that begins with content, cut or
// followed by zeros.
func NewDisk(size int64, content []byte) *Disk {
	d := &Disk{data: make([]byte, size), loose: make([]uint32, size)}
	copy(d.data, content)
	return d
}

// Size returns the size in bytes.
func (d *Disk) Size() int64 { return int64(len(d.data)) }

// Clone returns a copy.
func (d *Disk) Clone() *Disk {
	return &Disk{data: slices.Clone(d.data), loose: slices.Clone(d.loose), again: d.again}
}

// Resize cuts the disk or adds zeros.
func (d *Disk) Resize(size int64) {
	n := min(size, d.Size())
	c := NewDisk(size, d.data[:n])
	copy(c.loose, d.loose[:n])
	c.again = d.again
	*d = *c
}

// Write puts p at off.
func (d *Disk) Write(p []byte, off int64) {
	copy(d.data[off:], p)
	clear(d.loose[off : off+int64(len(p))])
}

// Zero makes the range zero.
func (d *Disk) Zero(off, n int64) {
	clear(d.data[off : off+n])
	clear(d.loose[off : off+n])
}

// Discard leaves the range open; id tells this discard from others.
func (d *Disk) Discard(off, n int64, id uint32) {
	// What another discard has left open and this one covers in part has no
	// longer one fate with the rest.
	group := map[uint32]uint32{0: id}
	for i := off; i < off+n; {
		old := d.loose[i]
		if group[old] == 0 {
			d.again++
			group[old] = manyDiscards + d.again
		}
		for ; i < off+n && d.loose[i] == old; i++ {
			d.loose[i] = group[old]
		}
	}
}

// Settle compares got, read at off, with the model. Where a discard has left
// the content open, the model becomes what was read.
func (d *Disk) Settle(got []byte, off int64) error {
	for i := int64(0); i < int64(len(got)); {
		n := d.piece(off+i, int64(len(got))-i)
		if err := d.settle(got[i:i+n], off+i); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// piece returns how many of the n bytes at off are judged together: in one
// sector and left open by one discard, or all not open.
func (d *Disk) piece(off, n int64) int64 {
	id := d.loose[off]
	if id == 0 {
		end := off + n
		if i := slices.IndexFunc(d.loose[off:end], func(l uint32) bool { return l != 0 }); i >= 0 {
			return int64(i)
		}
		return n
	}
	n = min(n, sector-off%sector)
	k := int64(1)
	for k < n && d.loose[off+k] == id {
		k++
	}
	return k
}

func (d *Disk) settle(got []byte, off int64) error {
	want := d.data[off : off+int64(len(got))]
	id := d.loose[off]
	switch {
	case bytes.Equal(got, want):
	case id != 0 && zero.Is(got):
		clear(want)
	case id != 0:
		return fmt.Errorf("after discard %d neither zero nor as before: %s", id, stamp.Diff(got, want, off))
	default:
		return fmt.Errorf("wrong content: %s", stamp.Diff(got, want, off))
	}
	if id != 0 {
		clear(d.loose[off : off+int64(len(got))])
	}
	return nil
}
