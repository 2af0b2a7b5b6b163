package job_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/job"
)

// convertTo makes an image of the content of srcs.
func convertTo(t *testing.T, path, format string, o *job.ConvertOptions, srcs ...*block.Image) {
	t.Helper()
	var size int64
	for _, src := range srcs {
		size += src.Size()
	}
	if err := diskimg.Create(path, &diskimg.CreateOptions{Format: format, Size: size}); err != nil {
		t.Fatal(err)
	}
	convertInto(t, path, format, o, srcs...)
}

func convertInto(t *testing.T, path, format string, o *job.ConvertOptions, srcs ...*block.Image) {
	t.Helper()
	dst := openImage(t, path, format, true)
	if err := errors.Join(job.Convert(t.Context(), dst, srcs, o), dst.Close()); err != nil {
		t.Fatal(err)
	}
}

// A raw target has its holes where qemu-img convert leaves them.
func TestConvertRawAsQemu(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for seed := range uint64(16) {
		r := rand.New(rand.NewPCG(seed, 20))
		dir := t.TempDir()
		src, ours, theirs := filepath.Join(dir, "src"), filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
		randomRaw(t, r, src, int64(r.IntN(6<<20)))
		sparse := []int64{0, 4096, 16384, 64 << 10, 1 << 20, -1}[r.IntN(6)]
		args := []string{"convert", "-f", "raw", "-O", "raw", src, theirs}
		if sparse != 0 {
			args = append(args, "-S", strconv.FormatInt(max(sparse, 0), 10))
		}
		qemu.Img(t, args...)
		convertTo(t, ours, "raw", &job.ConvertOptions{TargetIsZero: true, Sparse: sparse}, openImage(t, src, "raw", false))
		qemu.Compare(t, src, "raw", ours, "raw")
		if a, b := qemu.Map(t, ours, "raw"), qemu.Map(t, theirs, "raw"); qemuLines(a) != qemuLines(b) {
			t.Errorf("seed %d, sparse %d: %sqemu-img leaves %s", seed, sparse, qemuLines(a), qemuLines(b))
		}
	}
}

const convertImages = `
head -c 3000000 /dev/urandom > a.raw
truncate -s 5M a.raw
dd if=/dev/urandom of=a.raw bs=4096 seek=1000 count=3 conv=notrunc status=none
fallocate -p -o 1M -l 200k a.raw
qemu-img create -q -f qcow2 -F raw -b a.raw over.qcow2 7M
qemu-io -c 'write -q -P 9 64k 64k' -c 'write -q -z 512k 64k' -c 'write -q -P 7 5100k 4k' over.qcow2
qemu-img create -q -f qcow2 -F qcow2 -b over.qcow2 top.qcow2 7M
qemu-io -c 'write -q -P 5 2M 10k' -c 'write -q -z 5M 1M' -c 'write -q -P 0 6M 64k' top.qcow2
qemu-img convert -c -O qcow2 top.qcow2 packed.qcow2
qemu-img convert -c -o compression_type=zstd -O qcow2 top.qcow2 zstd.qcow2
qemu-img convert -o extended_l2=on -O qcow2 top.qcow2 ext.qcow2
qemu-img convert -o cluster_size=2M -O qcow2 top.qcow2 big.qcow2
qemu-img convert -o cluster_size=512 -O qcow2 top.qcow2 small.qcow2
qemu-img create -q -f qcow2 -F raw -b a.raw short.qcow2 1M
qemu-img create -q -f qcow2 -F qcow2 -b short.qcow2 long.qcow2 4M
`

// All kinds of sources to all kinds of targets; qemu-img finds each the same
// disk, and the target clean.
func TestConvertBetweenFormats(t *testing.T) {
	dir := folder(t, convertImages)
	all, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil || len(all) < 8 {
		t.Fatalf("%d images, %v", len(all), err)
	}
	for i, src := range all {
		from := strings.TrimPrefix(filepath.Ext(src), ".")
		for k, c := range []struct {
			format string
			o      job.ConvertOptions
		}{
			{"raw", job.ConvertOptions{TargetIsZero: true}},
			{"qcow2", job.ConvertOptions{TargetIsZero: true}},
			{"qcow2", job.ConvertOptions{TargetIsZero: true, Compress: true}},
			{"qcow2", job.ConvertOptions{Sparse: -1, Unordered: true}},
			{"qcow2", job.ConvertOptions{}},
		} {
			dst := filepath.Join(t.TempDir(), "dst")
			convertTo(t, dst, c.format, &c.o, openImage(t, src, from, false))
			qemu.Compare(t, src, from, dst, c.format)
			qemu.Check(t, dst, c.format)
			if (i+k)%4 == 0 {
				again := filepath.Join(t.TempDir(), "again")
				convertTo(t, again, "raw", nil, openImage(t, dst, c.format, false))
				qemu.Compare(t, src, from, again, "raw")
			}
		}
	}
}

// With a backing image the target takes on what qemu-img gives it, and is right
// where qemu-img 7.2 is not: in a chain with a short image between.
func TestConvertBackingAsQemu(t *testing.T) {
	dir := folder(t, convertImages)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		src, base string
		depth     int
		asQemu    bool
	}{
		{"top.qcow2", "over.qcow2", 1, true},
		{"top.qcow2", "a.raw", 2, false},
		{"over.qcow2", "a.raw", 1, true},
		{"long.qcow2", "a.raw", 2, false},
	} {
		format := strings.TrimPrefix(filepath.Ext(c.base), ".")
		ours, theirs := at("ours"), at("theirs")
		for _, args := range [][]string{
			{"create", "-q", "-f", "qcow2", "-b", at(c.base), "-F", format, ours, fmt.Sprint(qemu.Info(t, at(c.src), "qcow2").VirtualSize)},
			{"convert", "-O", "qcow2", "-B", at(c.base), "-F", format, at(c.src), theirs},
		} {
			qemu.Img(t, args...)
		}
		o := &job.ConvertOptions{TargetIsZero: true, BackingDepth: c.depth}
		convertInto(t, ours, "qcow2", o, openImage(t, at(c.src), "qcow2", false))
		qemu.Compare(t, at(c.src), "qcow2", ours, "qcow2")
		qemu.Check(t, ours, "qcow2")
		if a, b := places(t, ours), places(t, theirs); c.asQemu && !slices.Equal(a, b) {
			t.Errorf("%s on %s: %v, qemu-img makes %v", c.src, c.base, a, b)
		}
	}
}

// place is a range that an image has itself.
type place struct {
	start, end int64
	asZeros    bool // without space for it
}

// places are such ranges. What of their space is a hole in the file is left out:
// QEMU reserves it, we don't.
func places(t *testing.T, path string) []place {
	t.Helper()
	var own []place
	for _, e := range qemu.Map(t, path, "qcow2") {
		if e.Depth != 0 || !e.Present {
			continue
		}
		if k := len(own) - 1; k >= 0 && own[k].end == e.Start && own[k].asZeros == !e.Data {
			own[k].end += e.Length
			continue
		}
		own = append(own, place{e.Start, e.Start + e.Length, !e.Data})
	}
	return own
}
