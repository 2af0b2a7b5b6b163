package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
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
	fuzzHeap   = 192 << 20 // taken in all, for an image of half a megabyte
	fuzzRead   = 1 << 20
	fuzzEdits  = 48
	fuzzOps    = 40
	fuzzMemory = 1 << 30
)

func FuzzImage(f *testing.F) {
	debug.SetMemoryLimit(fuzzMemory)
	kinds := fuzzKinds(f)
	for i := range kinds {
		f.Add(uint8(i), []byte{}, []byte("\x00\x00\x08\x01\x02\x04\x02\x03\x20\x03\x04\x10\x04\x08\x08"))
		for where := range byte(places) {
			f.Add(uint8(i), []byte{where, 0, 0, 5, where + 1, 0, 1, 0}, []byte("\x00\x00\x40\x01\x40\x40\x05\x00\x00"))
			f.Add(uint8(i), []byte{where, 0, 8, 3, 0xff, 0xff, 0xff, 0xff}, []byte("\x02\x00\x40\x03\x40\x40"))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, edits, ops []byte) {
		img := &forge{slices.Clone(kinds[int(kind)%len(kinds)])}
		for at := 0; at+8 <= len(edits) && at < 8*fuzzEdits; at += 8 {
			img.fuzz(edits[at : at+8])
		}
		(&fuzzed{t: t, b: img.b, ops: ops[:min(len(ops), 3*fuzzOps)]}).run()
	})
}

var hostileImages = flag.Int("hostile.images", 1500, "how many images with random edits to try")

// The same with random edits, without looking for new ones: fewer of them, and
// all of a kind that can do harm.
func TestRandomEdits(t *testing.T) {
	kinds := fuzzKinds(t)
	for i := range *hostileImages {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		kind := r.IntN(len(kinds))
		img := &forge{slices.Clone(kinds[kind])}
		var edits []byte
		for range 1 + r.IntN(4) {
			e := be.AppendUint64(nil, r.Uint64())
			be.PutUint16(e[1:], uint16(r.IntN(1<<r.IntN(13)))&^7)
			edits = append(edits, e...)
			img.fuzz(e)
		}
		ops := make([]byte, 3*r.IntN(12))
		for k := range ops {
			ops[k] = byte(r.Uint32())
		}
		if (&fuzzed{t: t, b: img.b, ops: ops}).run(); t.Failed() {
			t.Fatalf("image %d: kind %d, edits %x, operations %x", i, kind, edits, ops)
		}
	}
}

// fuzzKinds lists the images that edits are made to.
func fuzzKinds(f testing.TB) (list [][]byte) {
	for _, kind := range slices.Sorted(maps.Keys(seedOptions)) {
		if seedOptions[kind].ClusterSize > 16<<10 {
			continue
		}
		s := seed(f, kind)
		list = append(list, slices.Clone(s.b))
		if s.refcountBits() == 16 && !s.has(bitDataFile) && s.cluster() <= 4096 {
			s.addSnapshots("one", "two")
			list = append(list, slices.Clone(s.b))
			if s.v3() && s.cluster() == 4096 {
				s.addBitmap("all")
				list = append(list, s.b)
			}
		}
	}
	return list
}

// Places of a valid image that an edit can begin at.
const places = 12

// place returns where a structure begins, the start of the file if it is not
// there any more.
func (f *forge) place(n byte) (at int64) {
	defer func() {
		if recover() != nil || at < 0 || at > int64(len(f.b)) {
			at = 0
		}
	}()
	switch n % places {
	case 1:
		return hIncompat
	case 2:
		return f.l1(0)
	case 3:
		return f.table(0)
	case 4:
		return f.l2(seedCompressed * f.cluster())
	case 5:
		return f.reftable(0)
	case 6:
		return f.refblock(0)
	case 7:
		return int64(f.u64(hSnapshotsOffset))
	case 8:
		return int64(f.u64(int64(f.u64(hSnapshotsOffset))))
	case 9:
		return int64(f.u32(hHeaderLength))
	case 10:
		return int64(f.u64(f.l2(seedCompressed*f.cluster())) & 0xffffffff)
	case 11:
		return int64(f.u64(f.l2(0)) & anOffset)
	}
	return 0
}

// fuzz makes one edit: where, at which offset, of which kind, with what.
func (f *forge) fuzz(e []byte) {
	at := f.place(e[0]) + int64(be.Uint16(e[1:]))
	if e[3]%10 >= 8 {
		f.resize(e)
		return
	}
	if at+8 > int64(len(f.b)) {
		return
	}
	switch v := e[4:]; e[3] % 10 {
	case 0:
		f.b[at] = v[0]
	case 1:
		f.put16(at, be.Uint16(v))
	case 2:
		f.put32(at, be.Uint32(v))
	case 3:
		f.put64(at, uint64(be.Uint32(v))<<32|uint64(v[3]))
	case 4:
		f.b[at] ^= 1 << (v[0] % 8)
	case 5: // lead to a structure
		f.put64(at, uint64(f.place(v[0])&^511+int64(v[1])*4096)|uint64(v[2]&3)<<62|uint64(v[2]>>2&1)|uint64(v[3]&1)<<9)
	case 6: // lead anywhere
		f.put64(at, uint64(v[0])<<40|uint64(v[1])<<20|uint64(v[2])<<12|uint64(v[3]&3)<<62)
	case 7: // repeat what stands before
		for i := range min(int64(v[0])*8, int64(len(f.b))-at-8) {
			f.b[at+8+i] = f.b[at+i]
		}
	}
}

// resize cuts the file, or makes it longer.
func (f *forge) resize(e []byte) {
	n := int(be.Uint32(e[4:]) % (512 << 10))
	if e[3]%2 == 0 {
		f.b = f.b[:min(len(f.b), max(n, 512))]
	} else if n > len(f.b) {
		f.b = append(f.b, make([]byte, n-len(f.b))...)
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
	heap := allocates(func() {
		within(z.t, "inspecting", z.inspect)
		within(z.t, "reading", z.read)
		within(z.t, "writing", z.write)
		within(z.t, "repairing", z.repair)
	})
	if heap > fuzzHeap {
		z.t.Errorf("%d bytes of memory taken for an image of %d bytes", heap, len(z.b))
	}
}

// The policy of a fuzzed image: a small backing image, and the data file.
func (z *fuzzed) OpenImage(block.Ref) (*block.Image, error) {
	z.asked++
	return raw.Open(memoryOf(seedData(0, 20*4096)), nil)
}

func (z *fuzzed) OpenFile(block.Ref) (block.File, error) {
	z.asked++
	return memoryOf(seedData(0, seedClusters*4096)), nil
}

func (z *fuzzed) open(f block.File, writable bool) *block.Image {
	z.asked = 0
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: writable, Policy: z})
	if err != nil {
		z.known(err)
	}
	if z.asked > 1+1 { // a data file, and a backing image
		z.t.Errorf("%d files were asked for", z.asked)
	}
	return img
}

// known fails unless an error is one of those that a caller can tell apart.
func (z *fuzzed) known(err error) {
	z.t.Helper()
	for _, kind := range []error{block.ErrFormat, block.ErrCorrupt, block.ErrUnsupported, block.ErrInvalid, block.ErrNoSpace, block.ErrBroken, block.ErrReadOnly, block.ErrBounds} {
		if errors.Is(err, kind) {
			return
		}
	}
	z.t.Errorf("%v is of no kind", err)
}

func (z *fuzzed) inspect() {
	file := &meter{m: memoryOf(z.b)}
	_, err := qcow2.Inspect(file)
	if err != nil {
		z.known(err)
	}
	if n := file.read.Load(); n > inspectReads {
		z.t.Errorf("inspecting reads %d bytes", n)
	}
}

func (z *fuzzed) read() {
	file := memoryOf(z.b)
	img := z.open(file.Reopen(), false)
	if img == nil {
		return
	}
	extents := 0
	for _, err := range img.Extents(0, img.Size()) {
		if err != nil {
			z.known(err)
		}
		if extents++; err != nil || extents > 2000 {
			break
		}
	}
	err := readAll(img, fuzzRead)
	if err != nil {
		z.known(err)
	}
	res, cerr := z.check(img, block.CheckOptions{})
	z.clean = err == nil && cerr == nil && res.Corruptions+res.Errors == 0 && img.Size() <= fuzzRead
	must(z.t, img.Close())
	if !bytes.Equal(contentOf(z.t, file), z.b) {
		z.t.Error("the file was opened for reading and has changed")
	}
}

func (z *fuzzed) check(img *block.Image, o block.CheckOptions) (block.CheckResult, error) {
	o.Report = func(f block.Finding) {
		if f.Text == "" {
			z.t.Error("a finding without a text")
		}
	}
	c, _ := block.As[block.Checker](img)
	res, err := c.Check(context.Background(), o)
	if err != nil {
		z.known(err)
	}
	return res, err
}

// write does what ops say. If the image was clean, it stays so, and holds what
// was written.
func (z *fuzzed) write() {
	file := memoryOf(z.b)
	img := z.open(file.Reopen(), true)
	if img == nil {
		if (&forge{z.b}).dirty() {
			return // a repair that was not enough may have changed counts
		}
		if !bytes.Equal(contentOf(z.t, file), z.b) {
			z.t.Error("the image did not open, and has changed")
		}
		return
	}
	want := make([]byte, min(img.Size(), fuzzRead))
	if z.clean {
		_, err := img.ReadAt(want, 0)
		z.mustIfClean(err)
	}
	for at := 0; at+3 <= len(z.ops); at += 3 {
		z.mustIfClean(z.operate(img, want, z.ops[at], z.ops[at+1], z.ops[at+2]))
	}
	if z.clean {
		got := make([]byte, len(want))
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			z.t.Errorf("the disk does not hold what was written: %v", err)
		}
	}
	z.mustIfClean(img.Close())
	z.sameHeader(contentOf(z.t, file))
	z.after(file, want)
}

func (f *forge) dirty() bool { return len(f.b) >= 104 && f.v3() && f.u64(hIncompat)&bitDirty != 0 }

func (z *fuzzed) mustIfClean(err error) {
	z.t.Helper()
	if err == nil || err == io.EOF {
		return
	}
	z.known(err)
	if z.clean && !errors.Is(err, block.ErrNoSpace) && !errors.Is(err, block.ErrInvalid) && !errors.Is(err, block.ErrUnsupported) {
		z.t.Errorf("the image was clean, and now: %v", err)
	}
}

// operate does one operation on the image and on want.
func (z *fuzzed) operate(img *block.Image, want []byte, op, where, size byte) error {
	if len(want) == 0 {
		return img.Flush()
	}
	off := int64(where) * int64(len(want)) / 256
	n := min(1+int64(size)*int64(size), int64(len(want))-off)
	zero := make([]byte, n)
	switch op % 8 {
	case 0, 1:
		p := seedNoise(int(n))
		_, err := img.WriteAt(p, off)
		if err == nil {
			copy(want[off:], p)
		}
		return err
	case 2:
		err := img.WriteZeroes(off, n, block.ZeroFlags(op>>3&1))
		if err == nil {
			copy(want[off:], zero)
		}
		return err
	case 3:
		if err := img.Discard(off, n); err != nil {
			return err
		}
		_, err := img.ReadAt(want[off:off+n], off)
		return err
	case 4:
		return img.Flush()
	case 5:
		return z.compressed(img, want, off)
	case 6:
		_, err := img.ReadAt(make([]byte, n), off)
		return err
	}
	r, _ := block.As[block.Resizer](img)
	return r.Resize(context.Background(), (img.Size()+511)&^511+512*int64(size), block.ResizeOptions{})
}

func (z *fuzzed) compressed(img *block.Image, want []byte, off int64) error {
	cs := (&forge{z.b}).cluster()
	off = off / cs * cs
	p := bytes.Repeat([]byte("diskimg"), int(cs))[:min(cs, img.Size()-off)]
	err := img.WriteCompressed(p, off)
	if err == nil {
		copy(want[off:], p)
	}
	return err
}

// sameHeader finds nothing changed in the first cluster but what may change.
func (z *fuzzed) sameHeader(now []byte) {
	cs := (&forge{z.b}).cluster()
	was, is := slices.Clone(z.b[:min(cs, int64(len(z.b)))]), slices.Clone(now[:min(cs, int64(len(now)))])
	may := []struct{ from, to int }{{hSize, hSize + 8}, {hL1Size, hSnapshotsOffset + 8}}
	if (&forge{z.b}).v3() {
		may = append(may, []struct{ from, to int }{{hIncompat, hIncompat + 8}, {hAutoclear, hAutoclear + 8}}...)
	}
	is = append(is, make([]byte, max(0, len(was)-len(is)))...)[:len(was)]
	for _, m := range may {
		copy(is[m.from:m.to], was[m.from:m.to])
	}
	copyBitmapPlaces(is, was)
	if !bytes.Equal(was, is) {
		z.t.Error("the header has changed where nothing may change it")
	}
}

// copyBitmapPlaces copies what bitmaps extensions say of their directory, which
// changes when bitmaps are stored.
func copyBitmapPlaces(to, from []byte) {
	start := be.AppendUint32(be.AppendUint32(nil, bitmapsExtension), 24)
	for at := 0; ; at += 32 {
		i := bytes.Index(from[at:], start)
		if at += i; i < 0 || at+32 > len(from) {
			return
		}
		copy(to[at+8:at+32], from[at+8:])
	}
}

// after opens the image again.
func (z *fuzzed) after(file *storage.Memory, want []byte) {
	if !z.clean {
		if img := z.open(file.Reopen(), false); img != nil {
			_, _ = z.check(img, block.CheckOptions{})
		}
		return
	}
	img := z.open(file.Reopen(), false)
	if img == nil {
		z.t.Fatal("the image was clean and does not open any more")
	}
	got := make([]byte, len(want))
	_, err := img.ReadAt(got, 0)
	z.mustIfClean(err)
	if !(&forge{z.b}).external() && !bytes.Equal(got, want) {
		z.t.Error("the disk does not hold what was written, after closing it")
	}
	if res, err := z.check(img, block.CheckOptions{}); err != nil || res.Corruptions+res.Errors > 0 {
		z.t.Errorf("the image was clean, and now: %+v %v", res, err)
	}
}

// external reports whether there is a data file, which is made anew each time.
func (f *forge) external() bool { return f.has(bitDataFile) }

// repair mends what it can; if that is all, a check is clean after.
func (z *fuzzed) repair() {
	file := memoryOf(z.b)
	img := z.open(file.Reopen(), true)
	if img == nil {
		return
	}
	before, readable := z.content(img)
	res, err := z.check(img, block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	// What leads into tables can't be repaired, and changes with them.
	all := err == nil && res.Errors == 0 && res.Corruptions == res.CorruptionsFixed && res.Leaks == res.LeaksFixed
	if after, ok := z.content(img); all && readable && (!ok || !bytes.Equal(before, after)) {
		z.t.Errorf("the repair has changed the guest's data: %+v", res)
	}
	if err := img.Close(); err != nil {
		z.known(err)
		all = false
	}
	z.sameHeader(contentOf(z.t, file))
	if !all {
		return
	}
	img = z.open(file.Reopen(), true)
	if img == nil {
		z.t.Fatalf("the image does not open any more after a repair: %+v", res)
	}
	if again, err := z.check(img, block.CheckOptions{}); err != nil || again.Corruptions+again.Errors+again.Leaks > 0 {
		z.t.Errorf("a check after a repair that fixed all finds %+v, %v; the repair said %+v", again, err, res)
	}
}

// content reads the disk; ok is false if not all can be read.
func (z *fuzzed) content(img *block.Image) (b []byte, ok bool) {
	b = make([]byte, min(img.Size(), fuzzRead))
	_, err := img.ReadAt(b, 0)
	return b, err == nil
}
