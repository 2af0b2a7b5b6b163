package qed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// A valid image with edits in the places that matter is inspected, read, mapped,
// checked, written to and repaired. Nothing of that panics, hangs or takes much
// memory; no file is opened but the one that the header names; the header and
// its names stay as they are; an image that was fine stays fine and holds what
// was written; a repair leaves the guest's data alone and an image that checks
// clean, or says that it can't.

const (
	fuzzHeap  = 64 << 20 // taken in all, for an image of 100 KiB
	fuzzRead  = 1 << 20
	fuzzEdits = 32
	fuzzOps   = 40
	patience  = 20 * time.Second
)

// Whatever a header holds, it is refused, or comes back from encoding as it was.
func FuzzHeader(f *testing.F) {
	for _, o := range []CreateOptions{{Size: 1 << 20}, {Size: 1 << 30, ClusterSize: 4096, TableSize: 1, BackingFile: "base", BackingFormat: "raw"}} {
		o.setDefaults()
		f.Add(o.header().encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err == nil {
			err = h.validate()
		}
		if err != nil {
			known(t, err)
			return
		}
		if enc := h.encode(); !bytes.Equal(enc, b[:headerSize]) {
			t.Errorf("%x comes back as %x", b[:headerSize], enc)
		}
		if g := h.geometry(); g.tableBytes > maxTableBytes || g.entries<<3 != g.tableBytes || g.firstHost <= 0 {
			t.Errorf("%+v", g)
		}
		again, err := parseHeader(h.encode())
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v comes back as %+v, %v", h, again, err)
		}
	})
}

// known fails unless an error is one of those that a caller can tell apart, and
// a sentence.
func known(t testing.TB, err error) {
	t.Helper()
	if bytes.ContainsAny([]byte(err.Error()), "\n\t\x00") {
		t.Errorf("%q is not a sentence", err)
	}
	for _, kind := range []error{block.ErrFormat, block.ErrCorrupt, block.ErrUnsupported, block.ErrInvalid, block.ErrNoSpace, block.ErrReadOnly, block.ErrBounds} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Errorf("%v is of no kind", err)
}

// fuzzSeeds are the images that edits are made to: two L2 tables, data, zero
// clusters, and a backing file.
func fuzzSeeds(t testing.TB) (list [][]byte) {
	for _, o := range []CreateOptions{
		{ClusterSize: 4096, TableSize: 1, Size: 3 << 20},
		{ClusterSize: 8192, TableSize: 2, Size: 20 << 20, BackingFile: "base", BackingFormat: "raw"},
	} {
		f := storage.NewMemory()
		img, err := o.createAndOpen(f)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 3*o.ClusterSize)
		for i, off := range []int64{0, 8 * o.ClusterSize, 64 * o.ClusterSize, o.Size - 4*o.ClusterSize} {
			stamp.Fill(data, off, uint32(i+1))
			if _, err := img.WriteAt(data, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(img.WriteZeroes(20*o.ClusterSize, 4*o.ClusterSize, 0), img.Close()); err != nil {
			t.Fatal(err)
		}
		list = append(list, contentOf(t, f))
	}
	return list
}

func (o *CreateOptions) createAndOpen(f *storage.Memory) (*block.Image, error) {
	if err := Create(f, o); err != nil {
		return nil, err
	}
	return Open(f.Reopen(), &OpenOptions{Writable: true, Policy: &fuzzed{}})
}

func contentOf(t testing.TB, f block.File) []byte {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

func memoryOf(t testing.TB, b []byte) *storage.Memory {
	t.Helper()
	f := storage.NewMemory()
	put(t, f, 0, b)
	return f
}

// edit makes one edit to the image b: where, at which offset, of which kind,
// with what.
func edit(b, e []byte) []byte {
	le := binary.LittleEndian
	cluster := int(le.Uint32(b[4:])) & (1<<14 - 1)
	at := []int{0, atFeatures, cluster, 4 * cluster, 2 * cluster, 0}[e[0]%6] + int(le.Uint16(e[1:]))
	v := e[4:8]
	if kind := e[3] % 8; kind < 6 && at+8 <= len(b) {
		switch kind {
		case 0:
			b[at] = v[0]
		case 1:
			b[at] ^= 1 << (v[0] % 8)
		case 2:
			le.PutUint32(b[at:], le.Uint32(v))
		case 3:
			le.PutUint64(b[at:], uint64(le.Uint32(v))<<32|uint64(v[3]))
		case 4: // lead to a cluster
			le.PutUint64(b[at&^7:], uint64(v[0]%64)*uint64(cluster)+uint64(v[1]&1))
		case 5: // repeat what stands before
			copy(b[at+8:], b[at:at+8])
		}
		return b
	}
	n := int(le.Uint32(v) % (256 << 10))
	if e[3]%2 == 0 {
		return b[:min(len(b), max(n, headerSize))]
	}
	return append(b, make([]byte, max(0, n-len(b)))...)
}

func FuzzImage(f *testing.F) {
	seeds := fuzzSeeds(f)
	for i := range seeds {
		f.Add(uint8(i), []byte{}, []byte("\x00\x00\x08\x01\x02\x04\x02\x03\x20\x03\x04\x10\x04\x08\x08"))
		for where := range byte(6) {
			f.Add(uint8(i), []byte{where, 0, 0, 4, where + 1, 0, 1, 0}, []byte("\x00\x00\x40\x01\x40\x40\x05\x00\x00"))
			f.Add(uint8(i), []byte{where, 8, 0, 3, 0xff, 0xff, 0xff, 0xff}, []byte("\x02\x00\x40\x03\x40\x40"))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, edits, ops []byte) {
		b := slices.Clone(seeds[int(kind)%len(seeds)])
		for at := 0; at+8 <= len(edits) && at < 8*fuzzEdits; at += 8 {
			b = edit(b, edits[at:at+8])
		}
		(&fuzzed{t: t, b: b, ops: ops[:min(len(ops), 3*fuzzOps)]}).run()
	})
}

var hostileImages = flag.Int("hostile.images", 1500, "how many images with random edits to try")

// The same with random edits, without looking for new ones: fewer of them, and
// all of a kind that can do harm.
func TestRandomEdits(t *testing.T) {
	seeds := fuzzSeeds(t)
	for i := range *hostileImages {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		b := slices.Clone(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(4) {
			e := le64(r.Uint64())
			binary.LittleEndian.PutUint16(e[1:], uint16(r.IntN(1<<r.IntN(13)))&^7)
			b = edit(b, e)
		}
		ops := make([]byte, 3*r.IntN(12))
		for k := range ops {
			ops[k] = byte(r.Uint32())
		}
		if (&fuzzed{t: t, b: b, ops: ops}).run(); t.Failed() {
			t.Fatalf("image %d", i)
		}
	}
}

// fuzzed is an image that may be anything.
type fuzzed struct {
	t     *testing.T
	b     []byte
	ops   []byte
	clean bool // a check finds nothing bad, and all can be read
	asked int
}

func (z *fuzzed) run() {
	watch := time.AfterFunc(patience, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("an image hangs\n%s", buf[:runtime.Stack(buf, true)]))
	})
	defer watch.Stop()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	z.inspect()
	z.read()
	z.write()
	z.repair()
	runtime.ReadMemStats(&after)
	if heap := after.TotalAlloc - before.TotalAlloc; heap > fuzzHeap {
		z.t.Errorf("%d bytes of memory taken for an image of %d bytes", heap, len(z.b))
	}
}

// OpenImage serves a small backing image.
func (z *fuzzed) OpenImage(block.Ref) (*block.Image, error) {
	z.asked++
	f, data := storage.NewMemory(), make([]byte, 80<<10)
	stamp.Fill(data, 0, firstBaseID)
	if _, err := f.WriteAt(data, 0); err != nil {
		return nil, err
	}
	return raw.Open(f, nil)
}

// OpenFile refuses.
func (z *fuzzed) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

// open opens the image, nil if it can't be.
func (z *fuzzed) open(f block.File, writable bool) *block.Image {
	z.asked = 0
	img, err := Open(f, &OpenOptions{Writable: writable, Policy: z})
	if err != nil {
		known(z.t, err)
	}
	if z.asked > 1 {
		z.t.Errorf("%d files were asked for", z.asked)
	}
	return img
}

func (z *fuzzed) inspect() {
	if _, err := Inspect(memoryOf(z.t, z.b)); err != nil {
		known(z.t, err)
	}
}

// content reads the disk; ok is false if not all can be read.
func (z *fuzzed) content(img *block.Image) (b []byte, ok bool) {
	b = make([]byte, min(img.Size(), fuzzRead))
	_, err := img.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		known(z.t, err)
	}
	return b, err == nil
}

func (z *fuzzed) check(img *block.Image, o block.CheckOptions) (block.CheckResult, bool) {
	c, _ := block.As[block.Checker](img)
	res, err := c.Check(context.Background(), o)
	if err != nil {
		known(z.t, err)
	}
	return res, err == nil && res.Corruptions == res.CorruptionsFixed
}

func (z *fuzzed) read() {
	file := memoryOf(z.t, z.b)
	img := z.open(file.Reopen(), false)
	if img == nil {
		return
	}
	extents := 0
	for _, err := range img.Extents(0, img.Size()) {
		if err != nil {
			known(z.t, err)
		}
		if extents++; err != nil || extents > 2000 {
			break
		}
	}
	_, readable := z.content(img)
	_, sound := z.check(img, block.CheckOptions{})
	z.clean = readable && sound
	if err := img.Close(); err != nil || !bytes.Equal(contentOf(z.t, file), z.b) {
		z.t.Errorf("the file was opened for reading and has changed, %v", err)
	}
}

// write does what ops say. If the image was clean, it stays so, and holds what
// was written; otherwise nothing is written.
func (z *fuzzed) write() {
	file := memoryOf(z.t, z.b)
	img := z.open(file.Reopen(), true)
	if img == nil {
		if !z.marked() && !bytes.Equal(contentOf(z.t, file), z.b) {
			z.t.Error("the image did not open, and has changed")
		}
		return
	}
	want, _ := z.content(img)
	for at := 0; at+3 <= len(z.ops); at += 3 {
		z.mustIfClean(z.operate(img, want, z.ops[at], z.ops[at+1], z.ops[at+2]))
	}
	z.holds(img, want)
	z.mustIfClean(img.Close())
	z.sameHeader(contentOf(z.t, file))
	if img = z.open(file.Reopen(), false); img == nil {
		z.t.Fatal("the image does not open any more")
	}
	z.holds(img, want)
	if res, sound := z.check(img, block.CheckOptions{}); z.clean && !sound {
		z.t.Errorf("the image was clean, and now: %+v", res)
	}
}

// marked reports whether opening the image for writing checks it.
func (z *fuzzed) marked() bool { return z.b[atFeatures]&featureNeedCheck != 0 }

func (z *fuzzed) mustIfClean(err error) {
	z.t.Helper()
	if err == nil {
		return
	}
	known(z.t, err)
	if z.clean && !errors.Is(err, block.ErrInvalid) && !errors.Is(err, block.ErrUnsupported) {
		z.t.Errorf("the image was clean, and now: %v", err)
	}
}

func (z *fuzzed) holds(img *block.Image, want []byte) {
	z.t.Helper()
	if got, ok := z.content(img); z.clean && (!ok || !bytes.Equal(got[:len(want)], want)) {
		z.t.Error("the disk does not hold what was written")
	}
}

// operate does one operation on the image and on want.
func (z *fuzzed) operate(img *block.Image, want []byte, op, where, size byte) error {
	if len(want) == 0 {
		return img.Flush()
	}
	off := int64(where) * int64(len(want)) / 256
	n := min(1+int64(size)*int64(size), int64(len(want))-off)
	p := make([]byte, n)
	switch op % 6 {
	case 0, 1:
		stamp.Fill(p, off, uint32(op)+100)
		_, err := img.WriteAt(p, off)
		if err == nil {
			copy(want[off:], p)
		}
		return err
	case 2:
		err := img.WriteZeroes(off, n, block.ZeroFlags(op>>3&1))
		if err == nil {
			copy(want[off:], p)
		}
		return err
	case 3:
		return img.Discard(off, n)
	case 4:
		return img.Flush()
	}
	r, _ := block.As[block.Resizer](img)
	return r.Resize(context.Background(), (img.Size()+511)&^511+512*int64(size), block.ResizeOptions{})
}

// sameHeader finds nothing changed in the first cluster but what may change.
func (z *fuzzed) sameHeader(now []byte) {
	n := min(4096, len(z.b), len(now))
	was, is := slices.Clone(z.b[:n]), slices.Clone(now[:n])
	for _, at := range []int{atFeatures, atAutoclear, atSize} {
		copy(is[at:at+8], was[at:at+8])
	}
	if !bytes.Equal(was, is) {
		z.t.Error("the header has changed where nothing may change it")
	}
}

// repair mends what it can; if that is all, a check is clean after.
func (z *fuzzed) repair() {
	file := memoryOf(z.t, z.b)
	img, err := Open(file.Reopen(), &OpenOptions{Writable: true, Repair: true, Policy: z})
	if err != nil {
		known(z.t, err)
		return
	}
	before, readable := z.content(img)
	res, all := z.check(img, block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	if after, ok := z.content(img); all && readable && (!ok || !bytes.Equal(before, after)) {
		z.t.Errorf("the repair has changed the guest's data: %+v", res)
	}
	if err := img.Close(); err != nil {
		known(z.t, err)
		all = false
	}
	z.sameHeader(contentOf(z.t, file))
	if !all {
		return
	}
	if img = z.open(file.Reopen(), true); img == nil {
		z.t.Fatalf("the image does not open any more after a repair: %+v", res)
	}
	if again, _ := z.check(img, block.CheckOptions{}); again.Corruptions > 0 || again.Leaks != res.Leaks && res.CorruptionsFixed == 0 {
		z.t.Errorf("a check after a repair that fixed all finds %+v; the repair said %+v", again, res)
	}
}
