package blocktest

// This file is the suite for a block.File: what every place that the bytes of
// an image live in guarantees to the formats above it.

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// TestFile runs the suite on a kind of file, each part as a subtest of t. Each
// call of open returns another file: empty, writable, and for the suite to
// close. The optional interfaces that it has are tested too.
func TestFile(t *testing.T, open func(t *testing.T) block.File) {
	parts := []struct {
		name string
		run  func(*fileTest)
	}{
		{"Ends", (*fileTest).ends},
		{"Bounds", (*fileTest).bounds},
		{"Gap", (*fileTest).gap},
		{"Truncate", (*fileTest).truncates},
		{"KeepsNoSlice", (*fileTest).keepsNoSlice},
		{"PunchHole", (*fileTest).punches},
		{"WriteZeroes", (*fileTest).zeroes},
		{"Reserve", (*fileTest).reserves},
		{"NextData", (*fileTest).holes},
		{"CopyFrom", func(ft *fileTest) { ft.copies(open) }},
		{"Random", (*fileTest).random},
		{"Concurrent", (*fileTest).concurrent},
		{"Closed", (*fileTest).closed},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			ft := &fileTest{T: t, f: open(t)}
			p.run(ft)
			_ = ft.f.Close() // closed has done it already
		})
	}
}

// fileTest is a file together with the content it must have.
type fileTest struct {
	*testing.T
	f    block.File
	want []byte
}

// must ends the test on an error.
func (ft *fileTest) must(what string, err error) {
	ft.Helper()
	if err != nil {
		ft.Fatalf("%s: %v", what, err)
	}
}

// grow makes the wanted content at least end bytes long.
func (ft *fileTest) grow(end int64) {
	if n := end - int64(len(ft.want)); n > 0 {
		ft.want = append(ft.want, make([]byte, n)...)
	}
}

// inside clips a range to the wanted content.
func (ft *fileTest) inside(off, n int64) []byte {
	size := int64(len(ft.want))
	return ft.want[min(off, size):min(off+n, size)]
}

func (ft *fileTest) write(p []byte, off int64) {
	ft.Helper()
	n, err := ft.f.WriteAt(p, off)
	if err != nil || n != len(p) {
		ft.Fatalf("WriteAt of %d bytes at %d: %d, %v", len(p), off, n, err)
	}
	if len(p) > 0 {
		ft.grow(off + int64(n))
		copy(ft.want[off:], p)
	}
}

func (ft *fileTest) truncate(size int64) {
	ft.Helper()
	ft.must("Truncate", ft.f.Truncate(size))
	ft.want = ft.inside(0, size)
	ft.want = ft.want[:len(ft.want):len(ft.want)]
	ft.grow(size)
}

// punch reports whether the file could.
func (ft *fileTest) punch(off, n int64) bool {
	ft.Helper()
	err := block.PunchHole(ft.f, off, n)
	if errors.Is(err, block.ErrUnsupported) {
		return false
	}
	ft.must("PunchHole", err)
	clear(ft.inside(off, n))
	return true
}

func (ft *fileTest) zero(off, n int64) {
	ft.Helper()
	ft.must("WriteZeroes", block.WriteZeroes(ft.f, off, n))
	if n > 0 {
		ft.grow(off + n)
		clear(ft.inside(off, n))
	}
}

// reserve reports whether the file could.
func (ft *fileTest) reserve(off, n int64) bool {
	ft.Helper()
	r, ok := ft.f.(block.Reserver)
	if !ok {
		return false
	}
	err := r.Reserve(off, n)
	if errors.Is(err, block.ErrUnsupported) {
		return false
	}
	ft.must("Reserve", err)
	if n > 0 {
		ft.grow(off + n)
	}
	return true
}

// read compares one read with what it must give.
func (ft *fileTest) read(off, n int64) {
	ft.Helper()
	want := ft.inside(off, n)
	got := bytes.Repeat([]byte{0xA5}, int(n))
	k, err := ft.f.ReadAt(got, off)
	if k != len(want) || !bytes.Equal(got[:k], want) {
		ft.Fatalf("ReadAt of %d bytes at %d of %d: got %d bytes, want %d, equal up to %d",
			n, off, len(ft.want), k, len(want), equalPrefix(got[:k], want))
	}
	if atEnd := errors.Is(err, io.EOF); err != nil && !atEnd || k < int(n) && !atEnd {
		ft.Fatalf("ReadAt of %d bytes at %d of %d: error %v", n, off, len(ft.want), err)
	}
}

func equalPrefix(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// verify compares length and content, and reads past the end.
func (ft *fileTest) verify() {
	ft.Helper()
	size, err := ft.f.Size()
	ft.must("Size", err)
	if size != int64(len(ft.want)) {
		ft.Fatalf("Size is %d, want %d", size, len(ft.want))
	}
	ft.read(0, size+1)
}

func (ft *fileTest) ends() {
	ft.verify()
	ft.read(0, 1)
	ft.read(100, 1)
	ft.write(pattern(1, 5000), 0)
	ft.must("Sync", ft.f.Sync())
	for _, off := range []int64{0, 1, 4095, 4096, 4999, 5000, 5001, 1 << 20} {
		for _, n := range []int64{0, 1, 512, 4096, 5000} {
			if off < 5000 || n > 0 {
				ft.read(off, n)
			}
		}
	}
	ft.write(nil, 9000)
	ft.verify()
}

func (ft *fileTest) bounds() {
	ft.write(pattern(2, 100), 0)
	if n, err := ft.f.ReadAt(make([]byte, 1), -1); err == nil || n != 0 {
		ft.Errorf("ReadAt at -1: %d, %v", n, err)
	}
	if n, err := ft.f.WriteAt(make([]byte, 1), -1); err == nil || n != 0 {
		ft.Errorf("WriteAt at -1: %d, %v", n, err)
	}
	if err := ft.f.Truncate(-1); err == nil {
		ft.Error("Truncate to -1: no error")
	}
	for _, r := range [][2]int64{{-1, 2}, {0, -1}, {1<<63 - 1, 2}} {
		if p, ok := ft.f.(block.HolePuncher); ok && p.PunchHole(r[0], r[1]) == nil {
			ft.Errorf("PunchHole of %d bytes at %d: no error", r[1], r[0])
		}
		if z, ok := ft.f.(block.ZeroWriter); ok && z.WriteZeroes(r[0], r[1]) == nil {
			ft.Errorf("WriteZeroes of %d bytes at %d: no error", r[1], r[0])
		}
		if z, ok := ft.f.(block.Reserver); ok && z.Reserve(r[0], r[1]) == nil {
			ft.Errorf("Reserve of %d bytes at %d: no error", r[1], r[0])
		}
	}
	ft.verify()
}

func (ft *fileTest) gap() {
	ft.write([]byte("end"), 300_000)
	ft.write([]byte("start"), 17)
	ft.write([]byte("further"), 700_001)
	ft.verify()
}

func (ft *fileTest) truncates() {
	ft.write(pattern(3, 100_000), 0)
	for _, size := range []int64{70_000, 69_999, 90_000, 4096, 4097, 0, 65_536, 65_536, 1} {
		ft.truncate(size)
		ft.verify()
	}
	ft.write(pattern(4, 10), 8190)
	ft.verify()
}

func (ft *fileTest) keepsNoSlice() {
	p := pattern(5, 8192)
	ft.write(p, 512)
	clear(p)
	ft.verify()
	got := make([]byte, 512)
	if _, err := ft.f.ReadAt(got, 512); err != nil {
		ft.Fatal(err)
	}
	clear(got)
	ft.verify()
}

// needs skips a part that the file can't do.
func (ft *fileTest) needs(ok bool) {
	ft.Helper()
	if !ok {
		ft.Skip("the file can't do it")
	}
}

// edges are ranges that begin and end at, before and after the borders of
// blocks of up to 4 KiB, and around an end of file at 100_000.
func (ft *fileTest) edges(visit func(off, n int64)) {
	places := []int64{0, 1, 511, 512, 4096, 4097, 8191, 65_536, 99_999, 100_000, 110_000}
	for i, off := range places {
		for _, end := range places[i:] {
			visit(off, end-off)
		}
	}
}

func (ft *fileTest) punches() {
	ft.write(pattern(6, 100_000), 0)
	ft.needs(ft.punch(4096, 8192))
	ft.verify()
	ft.edges(func(off, n int64) {
		ft.write(pattern(byte(off+n), 100_000), 0)
		ft.punch(off, n)
		ft.verify()
	})
}

func (ft *fileTest) zeroes() {
	ft.edges(func(off, n int64) {
		ft.truncate(0)
		ft.write(pattern(byte(off+n), 100_000), 0)
		ft.zero(off, n)
		ft.verify()
	})
}

func (ft *fileTest) reserves() {
	ft.needs(ft.reserve(0, 4096))
	ft.verify()
	ft.edges(func(off, n int64) {
		ft.truncate(0)
		ft.write(pattern(7, 70_000), 20_000)
		ft.reserve(off, n)
		ft.verify()
	})
}

func (ft *fileTest) holes() {
	ft.checkHoles()
	ft.write(pattern(8, 65_536), 65_536)
	ft.write(pattern(9, 1), 1<<20)
	ft.punch(65_536+4096, 8192)
	ft.truncate(3 << 20)
	ft.checkHoles()
	for _, off := range []int64{3 << 20, 3<<20 + 1, 1 << 40} {
		start, end, err := block.NextData(ft.f, off)
		if err != nil || start != 3<<20 || end != 3<<20 {
			ft.Errorf("NextData at %d, past the end: [%d, %d), %v", off, start, end, err)
		}
	}
}

// checkHoles walks over the runs of data: between them all is zero.
func (ft *fileTest) checkHoles() {
	ft.Helper()
	size := int64(len(ft.want))
	for off := int64(0); off < size; {
		start, end, err := block.NextData(ft.f, off)
		ft.must("NextData", err)
		if start < off || end < start || end > size || start == end && start != size {
			ft.Fatalf("NextData at %d of %d: [%d, %d)", off, size, start, end)
		}
		if !zero.Is(ft.want[off:start]) {
			ft.Fatalf("NextData at %d: skips data before %d", off, start)
		}
		if mid := (start + end) / 2; mid > start {
			if s, e, err := block.NextData(ft.f, mid); err != nil || s != mid || e != end {
				ft.Fatalf("NextData at %d: [%d, %d), %v; it is within [%d, %d)", mid, s, e, err, start, end)
			}
		}
		off = end
	}
}

func (ft *fileTest) copies(open func(t *testing.T) block.File) {
	c, ok := ft.f.(block.RangeCopier)
	ft.needs(ok)
	src := open(ft.T)
	defer src.Close()
	data := pattern(10, 200_000)
	if _, err := src.WriteAt(data, 0); err != nil {
		ft.Fatal(err)
	}
	ft.write(pattern(11, 300_000), 0)
	for _, r := range [][3]int64{{0, 0, 65_536}, {100, 7, 50_000}, {4096, 299_000, 65_536}, {0, 0, 0}} {
		n, err := c.CopyFrom(src, r[0], r[1], r[2])
		if errors.Is(err, block.ErrUnsupported) && n == 0 {
			continue
		}
		if err != nil || n < 0 || n > r[2] {
			ft.Fatalf("CopyFrom of %v: %d, %v", r, n, err)
		}
		ft.grow(r[1] + n)
		copy(ft.want[r[1]:], data[r[0]:r[0]+n])
		ft.verify()
	}
}

// random does what comes and compares with a byte slice.
func (ft *fileTest) random() {
	const most = 1 << 20
	seed := rand.Uint64()
	ft.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	span := func() (off, n int64) {
		off, n = r.Int64N(most), r.Int64N(1<<r.IntN(18))
		if r.IntN(2) == 0 {
			off, n = off&^4095, n&^4095
		}
		return off, n
	}
	for range 2000 {
		off, n := span()
		switch r.IntN(12) {
		case 0, 1, 2, 3:
			ft.write(pattern(byte(r.Uint32()), int(n)), off)
		case 4, 5, 6:
			if off < int64(len(ft.want)) || n > 0 {
				ft.read(off, n)
			}
		case 7:
			ft.punch(off, n)
		case 8:
			ft.zero(off, n)
		case 9:
			ft.reserve(off, n)
		case 10:
			ft.truncate(off)
		case 11:
			ft.checkHoles()
			ft.must("Sync", ft.f.Sync())
		}
	}
	ft.verify()
}

// pattern makes n bytes, none of them zero, that differ from those of other
// seeds.
func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)*7 + byte(i>>8) ^ seed | 1
	}
	return p
}

// concurrent has each goroutine work on its own stripes, which lie side by
// side, while another looks at the whole.
func (ft *fileTest) concurrent() {
	const workers, stripe, rounds = 8, 1000, 40
	ft.truncate(workers * stripe * rounds)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { ft.work(w, workers*stripe, stripe, rounds) })
	}
	wg.Go(func() {
		for off := int64(0); off < workers*stripe*rounds; off += 7 * stripe {
			_, _, err := block.NextData(ft.f, off)
			if err = errors.Join(err, ft.f.Sync()); err != nil {
				ft.Error(err)
			}
		}
	})
	wg.Wait()
	for w := range workers {
		for i := range rounds {
			if i%4 != 3 {
				copy(ft.want[i*workers*stripe+w*stripe:], pattern(byte(w*rounds+i), stripe))
			}
		}
	}
	ft.verify()
}

// work writes stripe after stripe, reads each back, and zeroes every fourth.
func (ft *fileTest) work(w, step, stripe, rounds int) {
	got := make([]byte, stripe)
	for i := range rounds {
		off, p := int64(i*step+w*stripe), pattern(byte(w*rounds+i), stripe)
		if _, err := ft.f.WriteAt(p, off); err != nil {
			ft.Error(err)
		}
		if i%4 == 3 {
			clear(p)
			if err := block.WriteZeroes(ft.f, off, int64(stripe)); err != nil {
				ft.Error(err)
			}
		}
		if _, err := ft.f.ReadAt(got, off); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, p) {
			ft.Errorf("worker %d, round %d: not what was written, error %v", w, i, err)
		}
		if size, err := ft.f.Size(); err != nil || size != int64(step*rounds) {
			ft.Errorf("Size is %d, %v", size, err)
		}
	}
}

func (ft *fileTest) closed() {
	ft.write(pattern(12, 100), 0)
	ft.must("Close", ft.f.Close())
	_, readErr := ft.f.ReadAt(make([]byte, 1), 0)
	_, writeErr := ft.f.WriteAt(make([]byte, 1), 0)
	_, sizeErr := ft.f.Size()
	for what, err := range map[string]error{
		"ReadAt": readErr, "WriteAt": writeErr, "Size": sizeErr,
		"Truncate": ft.f.Truncate(0), "Sync": ft.f.Sync(), "Close": ft.f.Close(),
	} {
		if err == nil || errors.Is(err, io.EOF) {
			ft.Errorf("%s on a closed file: %v", what, err)
		}
	}
}
