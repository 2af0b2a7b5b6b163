package job_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/job"
	"github.com/diskimg/diskimg/storage"
)

func mapOf(t *testing.T, img *block.Image, off, n int64) []job.MapEntry {
	t.Helper()
	var all []job.MapEntry
	for e, err := range job.Map(t.Context(), img, off, n) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// A map covers what was asked for without gaps, its entries can't be joined, and
// what it says of them is so.
func TestMapProperties(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := int64(r.IntN(400)+1) * unit
		img, want := randomChain(r, size, r.IntN(4))
		off := r.Int64N(size)
		n := r.Int64N(size) + 1
		at := off
		var last job.MapEntry
		for _, e := range mapOf(t, img, off, n) {
			if e.Start != at || e.Length <= 0 {
				t.Fatalf("seed %d: entry %+v after %+v", seed, e, last)
			}
			if joins(last, e) {
				t.Fatalf("seed %d: %+v and %+v are one", seed, last, e)
			}
			if err := checkEntry(e, want[e.Start:e.End()]); err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, e, err)
			}
			at, last = e.End(), e
		}
		if end := min(off+n, size); at != end {
			t.Fatalf("seed %d: map ends at %d, want %d", seed, at, end)
		}
	}
}

func joins(a, b job.MapEntry) bool {
	return a.Length > 0 && a.Depth == b.Depth && a.Present == b.Present && a.Zero == b.Zero && a.Data == b.Data &&
		a.HasOffset == b.HasOffset && a.File == b.File && (!a.HasOffset || a.Offset+a.Length == b.Offset)
}

func checkEntry(e job.MapEntry, want []byte) error {
	if e.Zero && len(bytes.Trim(want, "\x00")) > 0 {
		return errors.New("not zero")
	}
	if !e.Zero && !e.Data {
		return errors.New("neither zero nor data")
	}
	if e.File == nil {
		return nil
	}
	got := make([]byte, len(want))
	if err := block.ReadFull(e.File, got, e.Offset); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("not in the file where it says: %v", err)
	}
	return nil
}

func TestMapEnds(t *testing.T) {
	img, _ := randomChain(rand.New(rand.NewPCG(1, 2)), 8192, 1)
	for _, c := range []struct{ off, n int64 }{{0, 0}, {8192, 1}, {9000, 100}, {1 << 62, 1 << 62}} {
		if m := mapOf(t, img, c.off, c.n); len(m) != 0 {
			t.Errorf("map of %+v: %+v", c, m)
		}
	}
	for _, c := range []struct{ off, n int64 }{{-1, 10}, {0, -1}} {
		for _, err := range job.Map(t.Context(), img, c.off, c.n) {
			if !errors.Is(err, block.ErrBounds) {
				t.Errorf("map of %+v: error %v", c, err)
			}
		}
	}
}

func TestMapCancelled(t *testing.T) {
	f, _ := dataDisk(rand.New(rand.NewPCG(1, 3)), 1<<20)
	f.step = unit
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := 0
	f.failResolve = func(int64) error {
		if asked++; asked == 10 {
			cancel(errDisk)
		}
		return nil
	}
	var last error
	for _, err := range job.Map(ctx, f.image(), 0, f.size) {
		last = err
	}
	if !errors.Is(last, errDisk) || asked > 10 {
		t.Errorf("error %v after %d questions", last, asked)
	}
}

// errors of a layer and of a file say which image they are of.
func TestMapErrors(t *testing.T) {
	f, _ := dataDisk(rand.New(rand.NewPCG(1, 4)), 1<<20)
	f.failResolve = func(off int64) error {
		if off >= 4096 {
			return errDisk
		}
		return nil
	}
	f.step = 4096
	wantMapError(t, f.image())
	f, _ = dataDisk(rand.New(rand.NewPCG(1, 4)), 1<<20)
	f.file = blind{f.memory}
	wantMapError(t, f.image())
}

func wantMapError(t *testing.T, img *block.Image) {
	t.Helper()
	var last error
	for _, err := range job.Map(t.Context(), img, 0, img.Size()) {
		last = err
	}
	var e *block.Error
	if !errors.As(last, &e) || !errors.Is(last, errDisk) || e.Path != "fake" || e.Op != "map" {
		t.Errorf("error %v", last)
	}
}

type blind struct{ block.File }

func (blind) NextData(int64) (start, end int64, err error) { return 0, 0, errDisk }

// folder is a place in which qemu-img and qemu-io run a script, a line each.
func folder(t *testing.T, script string) string {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	cmd := exec.Command("sh", "-e")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func openImage(t *testing.T, path, format string, writable bool) *block.Image {
	t.Helper()
	img, err := diskimg.Open(path, &diskimg.OpenOptions{Format: format, Writable: writable, Policy: diskimg.Permissive{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// lines are entries as text, without the names of files.
func lines(m []job.MapEntry) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d+%d depth %d present %t zero %t data %t", e.Start, e.Length, e.Depth, e.Present, e.Zero, e.Data)
		if e.HasOffset {
			fmt.Fprintf(&b, " at %d", e.Offset)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func qemuLines(m []qemu.MapEntry) string {
	var all []job.MapEntry
	for _, e := range m {
		if e.Length == 0 {
			continue // how qemu-img says that there is nothing
		}
		o := job.MapEntry{Start: e.Start, Length: e.Length, Depth: e.Depth, Present: e.Present, Zero: e.Zero, Data: e.Data}
		if e.Offset != nil {
			o.Offset, o.HasOffset = *e.Offset, true
		}
		all = append(all, o)
	}
	return lines(all)
}

func mapAsQemu(t *testing.T, path, format string) {
	t.Helper()
	want := qemuLines(qemu.Map(t, path, format))
	got := lines(mapOf(t, openImage(t, path, format, false), 0, 1<<62))
	if got != want {
		t.Errorf("%s:\n%sqemu-img map says\n%s", filepath.Base(path), got, want)
	}
}

const mapImages = `
head -c 1000 /dev/urandom > odd.raw
: > empty.raw
truncate -s 4097 hole.raw
truncate -s 700000 part.raw
dd if=/dev/urandom of=part.raw bs=4096 seek=10 count=5 conv=notrunc status=none
dd if=/dev/urandom of=part.raw bs=4096 seek=100 count=1 conv=notrunc status=none
head -c 8192 /dev/zero > zeros.raw
qemu-img create -q -f raw -o preallocation=falloc falloc.raw 1M
qemu-img create -q -f qcow2 new.qcow2 1M
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-io -c 'write -q -P 1 0 64k' -c 'write -q -P 2 64k 64k' -c 'write -q -z 128k 64k' -c 'write -q -z 192k 64k' -c 'write -q -P 3 512k 4k' a.qcow2
qemu-img create -q -f qcow2 z.qcow2 1M
qemu-io -c 'write -q -P 1 0 128k' -c 'write -q -z -u 0 64k' -c 'write -q -z 64k 64k' z.qcow2
qemu-img create -q -f qcow2 c.qcow2 1M
qemu-io -c 'write -q -c -P 1 0 64k' -c 'write -q -c -P 2 64k 64k' -c 'write -q -P 3 128k 64k' -c 'write -q -c -P 2 192k 64k' c.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata meta.qcow2 4M
qemu-io -c 'write -q -P 1 0 128k' -c 'write -q -P 1 1M 12k' meta.qcow2
qemu-img create -q -f qcow2 -o preallocation=falloc falloc.qcow2 1M
qemu-img create -q -f qcow2 -o preallocation=full full.qcow2 1M
qemu-img create -q -f qcow2 -F qcow2 -b a.qcow2 over.qcow2 1536k
qemu-io -c 'write -q -P 9 64k 64k' -c 'write -q -z 512k 64k' over.qcow2
qemu-img create -q -f qcow2 -F qcow2 -b over.qcow2 over2.qcow2 2M
qemu-img create -q -f qcow2 -F raw -b part.raw onraw.qcow2 1M
qemu-io -c 'write -q -P 9 64k 64k' onraw.qcow2
qemu-img create -q -f qcow2 -F raw -b odd.raw onodd.qcow2 1M
qemu-img create -q -f qcow2 -F qcow2 -b meta.qcow2 onmeta.qcow2 8M
qemu-img create -q -f qcow2 -F qcow2 -b a.qcow2 small.qcow2 100000
qemu-img create -q -f qcow2 -o compat=0.10 -F qcow2 -b a.qcow2 v2.qcow2
qemu-io -c 'write -q -z 0 64k' -c 'write -q -P 1 200k 1k' v2.qcow2
qemu-img create -q -f qcow2 -F qcow2 -b c.qcow2 onc.qcow2 1M
qemu-img create -q -f qcow2 -o extended_l2=on ext.qcow2 1M
qemu-io -c 'write -q -P 1 4k 4k' -c 'write -q -z 16k 8k' ext.qcow2
qemu-img create -q -f qcow2 -o extended_l2=on -F qcow2 -b a.qcow2 ext2.qcow2 2M
qemu-io -c 'write -q -P 1 4k 4k' -c 'write -q -z 16k 8k' -c 'write -q -P 1 1100k 4k' ext2.qcow2
qemu-img create -q -f qcow2 -F qcow2 -b ext.qcow2 onext.qcow2 2M
`

// The map of all kinds of images is what qemu-img map says.
func TestMapAsQemu(t *testing.T) {
	dir := folder(t, mapImages)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		path := filepath.Join(dir, f.Name())
		mapAsQemu(t, path, strings.TrimPrefix(filepath.Ext(path), "."))
	}
}

func TestMapRangeAsQemu(t *testing.T) {
	dir := folder(t, mapImages)
	for _, c := range []struct {
		name   string
		off, n int64
	}{
		{"a.qcow2", 100, 65536}, {"a.qcow2", 100000, 300000}, {"a.qcow2", 1 << 20, 1}, {"odd.raw", 512, 512},
		{"odd.raw", 1000, 24}, {"odd.raw", 1010, 100}, {"over2.qcow2", 70000, 1 << 20}, {"part.raw", 41000, 3000},
	} {
		path := filepath.Join(dir, c.name)
		format := strings.TrimPrefix(filepath.Ext(path), ".")
		var m []qemu.MapEntry
		out := qemu.Img(t, "map", "--output=json", "-f", format, fmt.Sprintf("--start-offset=%d", c.off), fmt.Sprintf("--max-length=%d", c.n), path)
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			t.Fatal(err)
		}
		want := qemuLines(m)
		if got := lines(mapOf(t, openImage(t, path, format, false), c.off, c.n)); got != want {
			t.Errorf("%+v:\n%sqemu-img map says\n%s", c, got, want)
		}
	}
}

// Random holes in raw files.
func TestMapRawAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 5))
		path := filepath.Join(t.TempDir(), "disk")
		randomRaw(t, r, path, int64(r.IntN(8<<20)))
		mapAsQemu(t, path, "raw")
	}
}

// randomRaw makes a sparse file and returns its content, up to a whole sector.
func randomRaw(t *testing.T, r *rand.Rand, path string, size int64) []byte {
	t.Helper()
	f, err := storage.CreateFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, (size+511)/512*512)
	for off := int64(0); off < size; {
		n := min(size-off, randomLength(r)*8)
		if r.IntN(2) == 0 {
			scatter(r, want[off:off+n])
			if _, err := f.WriteAt(want[off:off+n], off); err != nil {
				t.Fatal(err)
			}
		}
		off += n
	}
	return want
}
