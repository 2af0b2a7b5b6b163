package job_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// unit is the smallest extent of a fake disk, cluster what it compresses, in
// bytes.
const (
	unit    = 512
	cluster = 16 << 10
)

// fake is a layer of any extents: data at scattered places of a file with
// holes, zeros with and without a place, special ranges, and what lies below.
type fake struct {
	mu      sync.Mutex
	kinds   []block.Kind // by unit
	places  []int64      // by unit, in the file, for data
	special map[int64][]byte
	file    block.File
	memory  *storage.Memory
	end     int64 // of what is used of memory
	size    int64
	backing *block.Image
	step    int64 // the longest extent that Resolve returns; 0 for no limit

	// failResolve and failWrite, if not nil, are asked first.
	failResolve func(off int64) error
	failWrite   func(off, n int64) error
	writes      []write // what has been done, in order
}

type write struct {
	op     string
	off, n int64
}

var (
	_ block.Layer     = (*fake)(nil)
	_ block.Backed    = (*fake)(nil)
	_ block.Describer = (*fake)(nil)
)

// newFake makes an empty disk above backing, which may be nil.
func newFake(size int64, backing *block.Image) *fake {
	m := storage.NewMemory()
	f := &fake{
		kinds: make([]block.Kind, (size+unit-1)/unit), places: make([]int64, (size+unit-1)/unit),
		special: map[int64][]byte{}, memory: m, file: m, size: size, backing: backing,
	}
	for i := range f.kinds {
		f.kinds[i] = block.Below
	}
	return f
}

func (f *fake) image() *block.Image {
	return block.NewImage(f, block.ImageOptions{Path: "fake", Format: "fake", Writable: true})
}

func (f *fake) Size() int64                { return f.size }
func (f *fake) Backing() *block.Image      { return f.backing }
func (f *fake) Flush() error               { return f.note("flush") }
func (f *fake) Close() error               { return f.note("close") }
func (f *fake) Discard(off, n int64) error { return block.ErrUnsupported }
func (f *fake) Describe() (block.Description, error) {
	return block.Description{ClusterSize: cluster}, nil
}
func (f *fake) note(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log(op, 0, 0)
	return nil
}
func (f *fake) log(op string, off, n int64) { f.writes = append(f.writes, write{op, off, n}) }
func (f *fake) unitEnd(u int64) int64       { return min((u+1)*unit, f.size) }
func (f *fake) ReadSpecial(e block.Extent, p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		n := copy(p, f.special[off/unit][off%unit:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (f *fake) Resolve(off, n int64) (block.Extent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failResolve != nil {
		if err := f.failResolve(off); err != nil {
			return block.Extent{}, err
		}
	}
	if f.step > 0 {
		n = min(n, f.step)
	}
	e := f.extent(off)
	for e.Length < n {
		next := f.extent(e.End())
		continues := next.Kind == e.Kind && next.HasOffset == e.HasOffset && (!e.HasOffset || e.Offset+e.Length == next.Offset)
		if !continues {
			break
		}
		e.Length += next.Length
	}
	e.Length = min(e.Length, n)
	return e, nil
}

// extent is the rest of the unit that off lies in.
func (f *fake) extent(off int64) block.Extent {
	u := off / unit
	e := block.Extent{Start: off, Length: f.unitEnd(u) - off, Kind: f.kinds[u], Allocated: f.kinds[u] != block.Below}
	switch e.Kind {
	case block.Data:
		e.File, e.Offset, e.HasOffset, e.MayBeZero = f.file, f.places[u]+off%unit, true, true
	case block.Zero:
		if u%7 > 3 { // some have space of their own
			e.Offset, e.HasOffset = off, true
		}
	case block.Special:
		e.Compressed, e.Stored = true, 100
	}
	return e
}

// put makes [off, off+len(p)) of a kind, with that content. off lies at the
// start of a unit.
func (f *fake) put(kind block.Kind, off int64, p []byte) {
	if kind == block.Data {
		f.store(p)
	}
	for len(p) > 0 {
		u := off / unit
		n := min(int64(len(p)), f.unitEnd(u)-off)
		f.kinds[u] = kind
		switch kind {
		case block.Data:
			f.places[u] = f.end
			f.end += unit
		case block.Special:
			f.special[u] = append(bytes.Clone(p[:n]), make([]byte, unit-n)...)
		}
		p, off = p[n:], off+n
	}
}

// store writes p to the end of the file, and leaves holes where it is zero.
func (f *fake) store(p []byte) {
	for at := 0; at < len(p); at += 64 << 10 {
		piece := p[at:min(at+64<<10, len(p))]
		if len(bytes.Trim(piece, "\x00")) == 0 {
			continue
		}
		if _, err := f.memory.WriteAt(piece, f.end+int64(at)); err != nil {
			panic(err)
		}
	}
}

func (f *fake) WriteAt(p []byte, off int64) error { return f.change("write", block.Data, p, off) }

func (f *fake) WriteZeroes(off, n int64, _ block.ZeroFlags) error {
	return f.change("zero", block.Zero, make([]byte, n), off)
}

func (f *fake) change(op string, kind block.Kind, p []byte, off int64) error {
	if f.failWrite != nil {
		if err := f.failWrite(off, int64(len(p))); err != nil {
			return err
		}
	}
	// Whole units, with what is around the range as it was.
	start := off - off%unit
	end := min((off+int64(len(p))+unit-1)/unit*unit, f.size)
	whole := make([]byte, end-start)
	if start != off || end != off+int64(len(p)) {
		if err := f.image().ReadZeroFilled(whole, start); err != nil {
			return err
		}
		kind = block.Data
	}
	copy(whole[off-start:], p)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log(op, off, int64(len(p)))
	f.put(kind, start, whole)
	return nil
}

// packer is a fake that compresses.
type packer struct{ *fake }

func (p packer) WriteCompressed(data []byte, off int64) error {
	end := off + int64(len(data))
	if off%cluster != 0 || end%cluster != 0 && end != p.size {
		return fmt.Errorf("[%#x, %#x) are not whole clusters", off, end)
	}
	return p.change("compress", block.Special, data, off)
}

func (p packer) image() *block.Image {
	return block.NewImage(p, block.ImageOptions{Path: "packer", Format: "packer", Writable: true})
}

// randomChain makes a chain of images with random extents, the top one of the
// given size, and returns their content.
func randomChain(r *rand.Rand, size int64, depth int) (*block.Image, []byte) {
	var backing *block.Image
	var below []byte
	if depth > 0 {
		lower := max(unit, size*int64(r.IntN(20)+1)/12/unit*unit)
		backing, below = randomChain(r, lower, depth-1)
	}
	return randomDisk(r, size, backing, below)
}

func randomDisk(r *rand.Rand, size int64, backing *block.Image, below []byte) (*block.Image, []byte) {
	f := newFake(size, backing)
	if r.IntN(3) == 0 {
		f.step = int64(r.IntN(64)+1) * unit
	}
	want := make([]byte, size)
	copy(want, below)
	for off := int64(0); off < size; {
		n := min(size-off, randomLength(r))
		kind := block.Kind(r.IntN(4))
		if kind != block.Below {
			clear(want[off : off+n])
		}
		if kind == block.Data || kind == block.Special {
			scatter(r, want[off:off+n])
		}
		if kind != block.Below {
			f.put(kind, off, want[off:off+n])
		}
		if r.IntN(2) == 0 {
			f.end += int64(r.IntN(20)) * 4096
		}
		off += n
	}
	return f.image(), want
}

// randomLength is a number of units, often small and sometimes large, in bytes.
func randomLength(r *rand.Rand) int64 { return int64(1+r.IntN(1<<r.IntN(10))) * unit }

// scatter writes runs of random bytes between runs of zeros.
func scatter(r *rand.Rand, p []byte) {
	for len(p) > 0 {
		n := int(min(int64(len(p)), randomLength(r)/2+1))
		if r.IntN(3) > 0 {
			for i := range p[:n] {
				p[i] = byte(r.Uint32())
			}
		}
		p = p[n:]
	}
}

func content(t *testing.T, img *block.Image) []byte {
	t.Helper()
	p := make([]byte, img.Size())
	if len(p) == 0 {
		return p
	}
	if _, err := img.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// firstDifference is the offset of the first sector in which two disks differ,
// -1 if there is none; the shorter one goes on as zeros.
func firstDifference(a, b []byte) int64 {
	for off := 0; off < max(len(a), len(b)); off += 512 {
		if !bytes.Equal(sector(a, off), sector(b, off)) {
			return int64(off)
		}
	}
	return -1
}

func sector(p []byte, off int) []byte {
	s := make([]byte, 512)
	if off < len(p) {
		copy(s, p[off:])
	}
	return s
}

func mustEqual(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	if at := firstDifference(got, want); at >= 0 {
		t.Fatalf("%s: other content from offset %#x of %#x on", what, at, len(want))
	}
}

// noGoroutineLeft fails the test if there are more goroutines than before.
func noGoroutineLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 1000 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 64<<10)
		t.Errorf("goroutines left:\n%s", stacks[:runtime.Stack(stacks, true)])
	})
}

var errDisk = errors.New("disk on fire")

// badFile fails to read some places.
type badFile struct {
	block.File
	bad func(off, n int64) bool
}

func (f *badFile) ReadAt(p []byte, off int64) (int, error) {
	if f.bad(off, int64(len(p))) {
		return 0, errDisk
	}
	return f.File.ReadAt(p, off)
}

func randomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], r.Uint64()|0x0101010101010101)
		copy(p[i:], b[:])
	}
	return p
}

// dataDisk is a disk of data without a zero in it.
func dataDisk(r *rand.Rand, size int64) (*fake, []byte) {
	f := newFake(size, nil)
	p := randomBytes(r, int(size))
	f.put(block.Data, 0, p)
	return f, p
}
