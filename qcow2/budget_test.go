package qcow2_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// What a hostile image may cost: bytes read, memory, time, goroutines; and
// which other files it may have opened: none.

const (
	inspectReads = 1 << 20
	inspectHeap  = 2 << 20
	openHeap     = 8 << 20 // for images of up to a megabyte
	patience     = 20 * time.Second
)

// meter is a file that counts what is read, and no more than a file.
type meter struct {
	m     *storage.Memory
	read  atomic.Int64
	wrote atomic.Int64
}

func (f *meter) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.m.ReadAt(p, off)
	f.read.Add(int64(n))
	return n, err
}

func (f *meter) WriteAt(p []byte, off int64) (int, error) {
	f.wrote.Add(int64(len(p)))
	return f.m.WriteAt(p, off)
}

func (f *meter) Size() (int64, error)      { return f.m.Size() }
func (f *meter) Truncate(size int64) error { return f.m.Truncate(size) }
func (f *meter) Sync() error               { return nil }
func (f *meter) Close() error              { return nil }

// spy is a policy that refuses and remembers what it was asked for.
type spy struct{ asked []string }

func (s *spy) OpenImage(ref block.Ref) (*block.Image, error) {
	s.asked = append(s.asked, fmt.Sprintf("%v %q %q", ref.Role, ref.Name, ref.Format))
	return block.Deny{}.OpenImage(ref)
}

func (s *spy) OpenFile(ref block.Ref) (block.File, error) {
	s.asked = append(s.asked, fmt.Sprintf("%v %q", ref.Role, ref.Name))
	return block.Deny{}.OpenFile(ref)
}

// within fails the whole test run with all stacks if f takes longer than
// anybody waits: nothing else would end it.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	watch := time.AfterFunc(patience, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s: %s hangs\n%s", t.Name(), what, buf[:runtime.Stack(buf, true)]))
	})
	defer watch.Stop()
	f()
}

// allocates returns how many bytes f takes from the heap, those that it gives
// back included.
func allocates(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// goroutines fails if there are more of them than before, some time after.
func goroutines(t testing.TB, before int) {
	t.Helper()
	for wait := time.Microsecond; ; wait *= 4 {
		now := runtime.NumGoroutine()
		if now <= before {
			return
		}
		if wait > time.Second {
			t.Errorf("%d goroutines, there were %d before", now, before)
			return
		}
		time.Sleep(wait)
	}
}

// refused checks an error of the package: its kind, one sentence that has text
// in it, and whose it is.
func refused(t testing.TB, what string, err, kind error, text string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: no error, want %q", what, text)
	case !errors.Is(err, kind):
		t.Errorf("%s: %q is not of the kind %q", what, err, kind)
	case !strings.Contains(err.Error(), text):
		t.Errorf("%s: %q, want %q in it", what, err, text)
	case strings.ContainsAny(err.Error(), "\n\t\x00"):
		t.Errorf("%s: %q is not a sentence", what, err)
	}
	var e *block.Error
	if err != nil && (!errors.As(err, &e) || e.Format != "qcow2") {
		t.Errorf("%s: %q does not say which format it is about", what, err)
	}
}

// readAll reads the disk up to a limit, by small and large reads, and returns
// the first error.
func readAll(img *block.Image, limit int64) error {
	n := min(img.Size(), limit)
	var first error
	p := make([]byte, 256<<10)
	for off := int64(0); off < n; off += int64(len(p)) {
		if _, err := img.ReadAt(p[:min(int64(len(p)), n-off)], off); err != nil && err != io.EOF && first == nil {
			first = err
		}
	}
	for off := int64(0); off < n; off += max(4096, n/64) {
		if _, err := img.ReadAt(p[:min(700, n-off)], off); err != nil && err != io.EOF && first == nil {
			first = err
		}
	}
	return first
}
