package vhd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// A valid image with edits is inspected, read, checked, written to, resized and
// repaired. Nothing of that panics, hangs or takes much memory. An image that
// can be written and checks clean stays so and holds what was written; a repair
// leaves the guest's data alone and an image that checks clean, or says that it
// can't.

const (
	fuzzHeap   = 96 << 20 // taken in all, for an image of some kilobytes
	fuzzRead   = 256 << 10
	fuzzEdits  = 16
	fuzzMemory = 1 << 30
	fuzzTime   = 20 * time.Second
)

var hostileImages = flag.Int("hostile.images", 3000, "how many images with random edits to try")

func FuzzImage(f *testing.F) {
	debug.SetMemoryLimit(fuzzMemory)
	kinds := fuzzKinds(f)
	for i := range kinds {
		f.Add(uint8(i), []byte{})
		for _, at := range []uint16{0, 16, 48, 60, 64, 512, 528, 540, 544, 576, 600, 1088, 1096, 1104, 1536, 1540, 2048} {
			f.Add(uint8(i), binary.BigEndian.AppendUint64(nil, uint64(at)<<48|0x10000|uint64(at)<<3&0xff))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, edits []byte) {
		newFuzzed(t, kinds[int(kind)%len(kinds)], edits).run()
	})
}

// The same with random edits, without looking for new ones.
func TestRandomEdits(t *testing.T) {
	kinds := fuzzKinds(t)
	for i := range *hostileImages {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		var edits []byte
		for range 1 + r.IntN(3) {
			e := binary.BigEndian.AppendUint64(nil, r.Uint64())
			binary.BigEndian.PutUint16(e, uint16(r.IntN(1<<(7+r.IntN(7)))))
			edits = append(edits, e...)
		}
		kind := r.IntN(len(kinds))
		if newFuzzed(t, kinds[kind], edits).run(); t.Failed() {
			t.Fatalf("image %d: kind %d, edits %x", i, kind, edits)
		}
	}
}

// fuzzKinds lists the images that edits are made to: with a few blocks, with a
// parent, fixed.
func fuzzKinds(t testing.TB) (list [][]byte) {
	for _, o := range []vhd.CreateOptions{
		{Size: 64 << 10, BlockSize: 4 << 10},
		{Size: 64 << 10, BlockSize: 16 << 10, Parent: &vhd.Parent{Identity: vhd.Identity{UUID: vhd.UUID{1}}, Name: "parent"}},
		{Size: 20 << 10, Type: vhd.Fixed},
	} {
		f := storage.NewMemory()
		if err := vhd.Create(f, &o); err != nil {
			t.Fatal(err)
		}
		img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true, Policy: theParent{}})
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, 9000, 17 << 10} {
			if _, err := img.WriteAt(bytes.Repeat([]byte{7}, 1500), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		list = append(list, readAll(t, f))
	}
	return list
}

func readAll(t testing.TB, f *storage.Memory) []byte {
	size, _ := f.Size()
	b := make([]byte, size)
	if err := block.ReadFull(f, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// theParent serves a parent under any name, of the UUID that fuzzKinds has.
type theParent struct{}

func (theParent) OpenImage(block.Ref) (*block.Image, error) {
	f := storage.NewMemory()
	if err := vhd.Create(f, &vhd.CreateOptions{Size: 40 << 10, Type: vhd.Fixed, UUID: &vhd.UUID{1}}); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{9}, 40<<10), 0); err != nil {
		return nil, err
	}
	return vhd.Open(f, nil)
}

func (theParent) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

// fuzzed is an image with edits.
type fuzzed struct {
	t *testing.T
	b []byte
}

// newFuzzed makes the edits: where, how, with what. Most of them make checksums
// right again, as nothing else gets far.
func newFuzzed(t *testing.T, b, edits []byte) *fuzzed {
	b = slices.Clone(b)
	tail := len(b) - 512
	sums := true
	for i := 0; i+8 <= len(edits) && i < 8*fuzzEdits; i += 8 {
		e := edits[i : i+8]
		at, how := int(binary.BigEndian.Uint16(e)), e[2]
		if how&1 != 0 {
			at += tail - at%512 // in the footer at the end, at first
		}
		at %= len(b)
		switch how >> 1 % 4 {
		case 0:
			copy(b[at:], e[4:])
		case 1:
			b[at] += e[4]
		case 2:
			binary.BigEndian.PutUint32(append(b[at:at:len(b)], 0, 0, 0, 0), uint32(e[4])<<(e[5]%32))
		case 3:
			b = b[:max(at, 512)]
		}
		sums = sums && how>>3%8 != 0
	}
	if sums {
		resum(b)
	}
	return &fuzzed{t, b}
}

// resum makes checksums right where they are expected.
func resum(b []byte) {
	for _, at := range []int{0, len(b) - 512} {
		if at >= 0 && string(b[at:at+8]) == "conectix" {
			sum(b[at:at+512], 64)
		}
	}
	if len(b) >= 1536 && string(b[512:520]) == "cxsparse" {
		sum(b[512:1536], 36)
	}
}

func (z *fuzzed) file() *storage.Memory {
	f := storage.NewMemory()
	if _, err := f.WriteAt(z.b, 0); err != nil {
		z.t.Fatal(err)
	}
	return f
}

func (z *fuzzed) open(f *storage.Memory, repair bool) *block.Image {
	img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true, Policy: theParent{}, AnyParentTime: true, Repair: repair})
	if err != nil {
		return nil
	}
	return img
}

// run does all of it, and looks at time and memory.
func (z *fuzzed) run() {
	start := time.Now()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = vhd.Inspect(z.file())
	z.read()
	z.write()
	z.repair()
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > fuzzHeap {
		z.t.Errorf("took %d MiB of memory", taken>>20)
	}
	if d := time.Since(start); d > fuzzTime {
		z.t.Errorf("took %v", d)
	}
}

func (z *fuzzed) read() {
	img, err := vhd.Open(z.file(), &vhd.OpenOptions{Policy: theParent{}, AnyParentTime: true})
	if err != nil {
		return
	}
	defer img.Close()
	z.content(img)
	n := 0
	for _, err := range img.Extents(0, img.Size()) {
		if n++; err != nil || n > 1000 {
			break
		}
	}
}

// content reads the beginning of an image, as far as it can be read.
func (z *fuzzed) content(img *block.Image) []byte {
	p := make([]byte, min(img.Size(), fuzzRead))
	for at := 0; at < len(p); at += 512 {
		if _, err := img.ReadAt(p[at:at+512], int64(at)); err != nil {
			clear(p[at : at+512])
		}
	}
	return p
}

func (z *fuzzed) check(img *block.Image, o block.CheckOptions) (block.CheckResult, bool) {
	k, _ := block.As[block.Checker](img)
	r, err := k.Check(context.Background(), o)
	return r, err == nil
}

// write writes to the image and changes its size.
func (z *fuzzed) write() {
	f := z.file()
	img := z.open(f, false)
	if img == nil {
		return
	}
	first, ok := z.check(img, block.CheckOptions{})
	if !ok || first.Corruptions > 0 {
		z.t.Errorf("an image that can be written checks with %+v, %v", first, ok)
	}
	off := max(0, min(img.Size(), 30000)-2000)
	p := bytes.Repeat([]byte{3}, int(min(img.Size()-off, 2000)))
	_, werr := img.WriteAt(p, off)
	size := img.Size() + 5000/512*512
	r, _ := block.As[block.Resizer](img)
	rerr := r.Resize(context.Background(), size, block.ResizeOptions{})
	if err := img.Close(); err != nil {
		return
	}
	img = z.open(f, false)
	if img == nil {
		z.t.Error("after writing it can't be opened")
		return
	}
	defer img.Close()
	got := make([]byte, len(p))
	if _, err := img.ReadAt(got, off); werr == nil && (err != nil || !bytes.Equal(got, p)) {
		z.t.Errorf("what was written reads back otherwise: %v", err)
	}
	if rerr == nil && img.Size() != size {
		z.t.Errorf("the size is %d, want %d", img.Size(), size)
	}
	if again, ok := z.check(img, block.CheckOptions{}); !ok || again.Corruptions > 0 {
		z.t.Errorf("after writing it checks with %+v, %v", again, ok)
	}
}

// repair mends the image and compares what the guest sees.
func (z *fuzzed) repair() {
	f := z.file()
	img := z.open(f, true)
	if img == nil {
		return
	}
	before := z.content(img)
	r, ok := z.check(img, block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	left, again := z.check(img, block.CheckOptions{})
	if ok && (!again || left.Corruptions != r.Corruptions-r.CorruptionsFixed) {
		z.t.Errorf("of %+v there is %+v left, %v", r, left, again)
	}
	if !bytes.Equal(before, z.content(img)) {
		z.t.Error("the repair has changed what the guest sees")
	}
	img.Close()
	if img := z.open(f, false); img != nil {
		if !bytes.Equal(before, z.content(img)) {
			z.t.Error("after the repair the guest sees something else")
		}
		img.Close()
	} else if ok && left.Corruptions == 0 {
		z.t.Error("after the repair it can't be opened")
	}
}
