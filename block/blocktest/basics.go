package blocktest

// What holds for every request: size, bounds, the end of the disk, read-only
// and closed images.

import (
	"errors"
	"io"
	"math"
	"testing/iotest"

	"github.com/diskimg/diskimg/block"
)

func testSize(s *suite) {
	for _, size := range []int64{512, s.cluster, 3*s.cluster + 512, 5*s.cluster - 512, 1<<20 + 1536} {
		d := s.disk(size)
		d.verify()
		d.write(size-512, 512)
		d.reopen()
		if got := d.img.Size(); got != size {
			s.Errorf("size after reopening is %d, want %d", got, size)
		}
		d.close()
	}
}

func testBounds(s *suite) {
	d := s.disk(2*s.cluster + 512)
	d.write(0, d.size())
	size := d.size()
	for _, r := range []struct{ off, n int64 }{
		{-1, 1}, {-1, 0}, {math.MinInt64, 1}, {size, 1}, {size + 1, 0}, {size - 1, 2}, {size - 512, 1024},
		{0, size + 1}, {math.MaxInt64, 1}, {math.MaxInt64 - 1, 2},
	} {
		_, err := d.img.WriteAt(make([]byte, r.n), r.off)
		s.wantError("write", err, block.ErrBounds)
		s.wantError("write zeroes", d.img.WriteZeroes(r.off, r.n, 0), block.ErrBounds)
		s.wantError("discard", d.img.Discard(r.off, r.n), block.ErrBounds)
	}
	s.wantError("write zeroes", d.img.WriteZeroes(512, math.MaxInt64, 0), block.ErrBounds)
	s.wantError("discard", d.img.Discard(512, math.MaxInt64), block.ErrBounds)
	s.wantError("discard", d.img.Discard(512, -1), block.ErrBounds)
	_, err := d.img.ReadAt(make([]byte, 1), -1)
	s.wantError("read", err, block.ErrBounds)
	d.verify()
	d.close()
}

// wantError demands an error that is kind, and has said what was being done.
func (s *suite) wantError(op string, err, kind error) {
	s.Helper()
	if !errors.Is(err, kind) {
		s.Errorf("%s: error is %v, want %v", op, err, kind)
	}
	if e := (*block.Error)(nil); !errors.As(err, &e) {
		s.Errorf("%s: error %v is no *block.Error", op, err)
	}
}

func testEndOfDisk(s *suite) {
	d := s.disk(s.cluster + 512)
	size := d.size()
	d.write(size-700, 700)
	for _, r := range []struct{ off, n, want int64 }{
		{size - 512, 513, 512}, {size - 1, 1000, 1}, {size, 1, 0}, {size + 1, 1, 0}, {size + s.cluster, 10, 0},
		{0, size + 1, size}, {size - 700, 2 * s.cluster, 700}, {math.MaxInt64, 1, 0},
	} {
		p := make([]byte, r.n)
		n, err := d.img.ReadAt(p, r.off)
		if int64(n) != r.want || !errors.Is(err, io.EOF) {
			s.Errorf("read of %d bytes at %d of %d: %d, %v; want %d and io.EOF", r.n, r.off, size, n, err, r.want)
		}
		if r.want > 0 && string(p[:n]) != string(d.want[r.off:]) {
			s.Errorf("read of %d bytes at %d: wrong content", r.n, r.off)
		}
	}
	if n, err := d.img.ReadAt(make([]byte, 512), size-512); n != 512 || err != nil {
		s.Errorf("read up to the end: %d, %v", n, err)
	}
	tail := min(size, 64<<10) // TestReader reads byte by byte
	if err := iotest.TestReader(io.NewSectionReader(d.img, size-tail, tail), d.want[size-tail:]); err != nil {
		s.Error(err)
	}
	d.close()
}

func testReadOnly(s *suite) {
	d := s.disk(3 * s.cluster)
	d.write(s.cluster/2, s.cluster)
	d.close()
	d.open(false)
	for _, n := range []int64{0, 1, s.cluster} {
		k, err := d.img.WriteAt(make([]byte, n), 0)
		s.wantError("write", err, block.ErrReadOnly)
		if k != 0 {
			s.Errorf("write to a read-only image returns %d", k)
		}
		s.wantError("write zeroes", d.img.WriteZeroes(0, n, block.MayUnmap), block.ErrReadOnly)
		s.wantError("discard", d.img.Discard(0, n), block.ErrReadOnly)
	}
	if s.compress {
		s.wantError("compressed write", d.img.WriteCompressed(make([]byte, s.cluster), 0), block.ErrReadOnly)
	}
	if err := d.img.Flush(); err != nil {
		s.Errorf("flush of a read-only image: %v", err)
	}
	d.close()
}

// Requests for no bytes do nothing, anywhere on the disk and at its end.
func testEmpty(s *suite) {
	d := s.disk(2 * s.cluster)
	d.write(100, 800)
	for _, off := range []int64{0, 1, s.cluster, d.size()} {
		n, err := d.img.WriteAt(nil, off)
		if n != 0 || err != nil {
			s.Errorf("write of nothing at %d: %d, %v", off, n, err)
		}
		if n, err := d.img.ReadAt(nil, off); n != 0 || err != nil {
			s.Errorf("read of nothing at %d: %d, %v", off, n, err)
		}
		if err := errors.Join(d.img.WriteZeroes(off, 0, 0), d.img.Discard(off, 0)); err != nil {
			s.Errorf("zeroing or discarding nothing at %d: %v", off, err)
		}
		for e, err := range d.img.Extents(off, 0) {
			s.Errorf("extents of nothing at %d: %+v, %v", off, e, err)
		}
	}
	d.verify()
	d.close()
}

func testClosed(s *suite) {
	d := s.disk(s.cluster)
	d.write(0, 512)
	img := d.img
	d.close()
	_, err := img.ReadAt(make([]byte, 1), 0)
	s.wantError("read", err, block.ErrClosed)
	_, err = img.WriteAt(make([]byte, 1), 0)
	s.wantError("write", err, block.ErrClosed)
	s.wantError("write zeroes", img.WriteZeroes(0, 1, 0), block.ErrClosed)
	s.wantError("discard", img.Discard(0, 1), block.ErrClosed)
	s.wantError("flush", img.Flush(), block.ErrClosed)
	s.wantError("close", img.Close(), block.ErrClosed)
}
