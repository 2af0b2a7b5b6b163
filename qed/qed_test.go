package qed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// made returns an image of 1 MiB with clusters of 4 KiB and tables of two: the
// L1 table is at 0x1000, the first free cluster at 0x3000.
func made(t *testing.T, o CreateOptions) *storage.Memory {
	t.Helper()
	o.Size, o.ClusterSize, o.TableSize = 1<<20, 4096, 2
	f := storage.NewMemory()
	if err := Create(f, &o); err != nil {
		t.Fatal(err)
	}
	return f
}

func opened(t *testing.T, f *storage.Memory, o *OpenOptions) *block.Image {
	t.Helper()
	img, err := Open(f.Reopen(), o)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// written is made with the first 16 KiB written: an L2 table at 0x3000, data
// from 0x5000 to the end at 0x9000.
func written(t *testing.T) *storage.Memory {
	t.Helper()
	f := made(t, CreateOptions{})
	img := opened(t, f, &OpenOptions{Writable: true})
	if err := img.WriteZeroes(0, 4<<10, block.OwnZeroes); err != nil { // so that the table comes first
		t.Fatal(err)
	}
	if _, err := img.WriteAt(make([]byte, 16<<10), 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t testing.TB, f block.File, off int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func features(t *testing.T, f block.File) uint64 {
	t.Helper()
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, atFeatures); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b)
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// The messages are those of qemu-img where it has one.
func TestHeaderRefusals(t *testing.T) {
	for _, c := range []struct {
		off   int64
		value []byte
		kind  error
		want  string
	}{
		{0, []byte("QFI\xfb"), block.ErrFormat, "Image not in QED format"},
		{4, le32(0), block.ErrCorrupt, "QED cluster size is invalid"},
		{4, le32(2048), block.ErrCorrupt, "QED cluster size is invalid"},
		{4, le32(1 << 27), block.ErrCorrupt, "QED cluster size is invalid"},
		{4, le32(5000), block.ErrCorrupt, "QED cluster size is invalid"},
		{4, le32(1 << 26), block.ErrCorrupt, "QED image size is invalid"},
		{8, le32(0), block.ErrCorrupt, "QED table size is invalid"},
		{8, le32(3), block.ErrCorrupt, "QED table size is invalid"},
		{8, le32(32), block.ErrCorrupt, "QED table size is invalid"},
		{12, le32(0), block.ErrCorrupt, "QED header size of 0 clusters is invalid"},
		{12, le32(1<<32 - 1), block.ErrCorrupt, "QED header size of 4294967295 clusters is invalid"},
		{12, le32(2), block.ErrCorrupt, "QED table offset is invalid"},
		{16, le64(8), block.ErrUnsupported, "Unsupported QED features: 8"},
		{16, le64(1 << 63), block.ErrUnsupported, "Unsupported QED features: 8000000000000000"},
		{40, le64(0), block.ErrCorrupt, "QED table offset is invalid"},
		{40, le64(0x1001), block.ErrCorrupt, "QED table offset is invalid"},
		{40, le64(0x2000), block.ErrCorrupt, "QED table offset is invalid"}, // half of it is past the end
		{40, le64(1 << 63), block.ErrCorrupt, "QED table offset is invalid"},
		{48, le64(513), block.ErrCorrupt, "QED image size is invalid"},
		{48, le64(1<<32 + 512), block.ErrCorrupt, "QED image size is invalid"},
		{48, le64(1<<64 - 512), block.ErrCorrupt, "QED image size is invalid"},
	} {
		f := made(t, CreateOptions{})
		put(t, f, c.off, c.value)
		_, err := Open(f, nil)
		var e *block.Error
		if !errors.As(err, &e) || !errors.Is(err, c.kind) || e.Err.Error() != c.want {
			t.Errorf("%x at %d: %v, want %q", c.value, c.off, err, c.want)
		}
	}
}

func TestBackingNameRefusals(t *testing.T) {
	for _, c := range []struct{ off, n uint32 }{{5000, 10}, {1<<32 - 16, 32}, {64, 4033}} {
		f := made(t, CreateOptions{BackingFile: "base"})
		put(t, f, 56, append(le32(c.off), le32(c.n)...))
		if _, err := Inspect(f); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
}

// The bit is on disk while there are clusters that are not linked, and taken
// away some time after the last one, and at close.
func TestNeedCheck(t *testing.T) {
	f := made(t, CreateOptions{})
	img := opened(t, f, &OpenOptions{Writable: true, CleanAfter: 20 * time.Millisecond})
	for off := range int64(2) {
		if _, err := img.WriteAt(make([]byte, 4096), off*4096); err != nil {
			t.Fatal(err)
		}
		if features(t, f)&featureNeedCheck == 0 {
			t.Fatal("the bit is not set")
		}
		for end := time.Now().Add(10 * time.Second); features(t, f)&featureNeedCheck != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the bit is not cleared after a while")
			}
		}
	}
	if _, err := img.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if features(t, f) != 0 {
		t.Error("the bit is set for a write in place")
	}
	if _, err := img.WriteAt(make([]byte, 4096), 1<<19); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil || features(t, f) != 0 {
		t.Errorf("after close: %v, features %#x", err, features(t, f))
	}
}

func TestUnknownAutoclearBits(t *testing.T) {
	f := made(t, CreateOptions{})
	put(t, f, atAutoclear, le64(5))
	for _, writable := range []bool{false, true} {
		if err := opened(t, f, &OpenOptions{Writable: writable}).Close(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		if _, err := f.ReadAt(b, atAutoclear); err != nil || (b[0] == 0) != writable {
			t.Errorf("writable %v: bits are %x, %v", writable, b, err)
		}
	}
}

// What check finds, and what fixing leaves.
var damages = []struct {
	name        string
	off         int64
	entry       uint64
	corruptions int64 // found
	left        int64 // after fixing
	leaks       int64 // after fixing
}{
	{"L2 entry past the end", 0x3000, 0x9000, 1, 0, 1},
	{"L2 entry unaligned", 0x3000, 0x5001, 1, 0, 1},
	{"L2 entry of 2", 0x3000, 2, 1, 0, 1},
	{"L2 entry to the L1 table", 0x3000, 0x1000, 1, 1, 1},
	{"L2 entry to its table", 0x3000, 0x3000, 1, 1, 1},
	{"L2 entry twice", 0x3000, 0x6000, 1, 1, 1},
	{"L2 entry cleared", 0x3000, 0, 0, 0, 1},
	{"L1 entry past the end", 0x1000, 0x8000, 1, 0, 6},
	{"L1 entry far past the end", 0x1000, 1 << 62, 1, 0, 6},
	{"L1 entry to the L1 table", 0x1000, 0x1000, 2, 2, 6},
	{"L1 entry twice", 0x1008, 0x3000, 2, 2, 0},
}

func TestCheck(t *testing.T) {
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			f := written(t)
			put(t, f, c.off, le64(c.entry))
			img := opened(t, f, &OpenOptions{Writable: true})
			defer img.Close()
			if _, err := img.WriteAt([]byte{1}, 0); errors.Is(err, block.ErrCorrupt) != (c.corruptions > 0) {
				t.Errorf("a write to the damaged image: %v", err)
			}
			checker, _ := block.As[block.Checker](img)
			if c.corruptions > 0 {
				r, err := checker.Check(context.Background(), block.CheckOptions{FixCorruptions: true})
				if err != nil || r.Corruptions != c.corruptions || r.CorruptionsFixed != c.corruptions-c.left {
					t.Errorf("%v, %+v", err, r)
				}
			}
			r, err := checker.Check(context.Background(), block.CheckOptions{})
			if c.corruptions > 0 && (err != nil || r.Corruptions != c.left || r.Leaks != c.leaks) {
				t.Errorf("after fixing: %v, %+v", err, r)
			}
			if _, err := img.WriteAt([]byte{1}, 0); errors.Is(err, block.ErrCorrupt) != (c.left > 0) {
				t.Errorf("a write after fixing: %v", err)
			}
		})
	}
}

// What is missing at the end of a file is never read as zeros.
func TestCutShort(t *testing.T) {
	for _, c := range []struct {
		name        string
		size        int64
		open        error // nil: can be opened
		corruptions int64
	}{
		{"within the header", 32, block.ErrCorrupt, 0},
		{"behind the header", 0x1000, block.ErrCorrupt, 0},
		{"within the L1 table", 0x2800, block.ErrCorrupt, 0},
		{"within the L2 table", 0x4800, nil, 1},
		{"before the data", 0x5000, nil, 4},
		{"within the last cluster", 0x8800, nil, 1},
	} {
		f := written(t)
		if err := f.Truncate(c.size); err != nil {
			t.Fatal(err)
		}
		img, err := Open(f.Reopen(), &OpenOptions{Writable: true})
		if !errors.Is(err, c.open) {
			t.Errorf("%s: opening: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		if _, err := img.ReadAt(make([]byte, 16<<10), 0); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: reading: %v", c.name, err)
		}
		if _, err := img.WriteAt([]byte{1}, 1<<19); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: writing: %v", c.name, err)
		}
		checker, _ := block.As[block.Checker](img)
		if r, err := checker.Check(context.Background(), block.CheckOptions{}); err != nil || r.Corruptions != c.corruptions {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		if size, _ := f.Size(); size != c.size {
			t.Errorf("%s: the file has %#x bytes now", c.name, size)
		}
		img.Close()
	}
}

// A table that is a hole in the file has no entries; what lies behind it is no
// table.
func TestCheckHole(t *testing.T) {
	f, data := written(t), bytes.Repeat([]byte("data"), 1024)
	put(t, f, 0x5000, data)
	if err := f.PunchHole(0x3000, 0x2000); err != nil {
		t.Fatal(err)
	}
	img := opened(t, f, &OpenOptions{Writable: true})
	defer img.Close()
	checker, _ := block.As[block.Checker](img)
	if r, err := checker.Check(context.Background(), block.CheckOptions{FixCorruptions: true}); err != nil || r.Corruptions != 0 || r.Leaks != 4 {
		t.Errorf("%v, %+v", err, r)
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0x5000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the data behind the table has changed, %v", err)
	}
}

// An image that was not closed is mended when it is opened for writing, and
// stays marked if not all could be.
func TestNeedCheckAtOpen(t *testing.T) {
	for _, c := range damages {
		f := written(t)
		put(t, f, c.off, le64(c.entry))
		put(t, f, atFeatures, le64(featureNeedCheck))
		img := opened(t, f, &OpenOptions{Writable: true})
		if got := features(t, f) != 0; got != (c.left > 0) {
			t.Errorf("%s: need check is %v after opening", c.name, got)
		}
		if err := img.Close(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := features(t, f) != 0; got != (c.left > 0) {
			t.Errorf("%s: need check is %v after closing", c.name, got)
		}
	}
}

// An image opened for repair is left as it is until Check is asked.
func TestOpenForRepair(t *testing.T) {
	f := written(t)
	put(t, f, 0x3000, le64(0x9000))
	put(t, f, atFeatures, le64(featureNeedCheck))
	img := opened(t, f, &OpenOptions{Writable: true, Repair: true})
	if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrReadOnly) || features(t, f) == 0 {
		t.Errorf("a write returns %v, features are %#x", err, features(t, f))
	}
	checker, _ := block.As[block.Checker](img)
	if r, err := checker.Check(context.Background(), block.CheckOptions{FixLeaks: true}); err != nil || r.CorruptionsFixed != 1 || features(t, f) != 0 {
		t.Errorf("%v, %+v, features are %#x", err, r, features(t, f))
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
}

// An entry that leads out of the file is an error to read, never zeros.
func TestReadBadEntry(t *testing.T) {
	for _, c := range []struct {
		off   int64
		entry uint64
	}{{0x3000, 0x9000}, {0x3000, 0x5001}, {0x1000, 0x8000}, {0x1000, 1<<64 - 4096}} {
		f := written(t)
		put(t, f, c.off, le64(c.entry))
		if _, err := opened(t, f, nil).ReadAt(make([]byte, 512), 0); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%#x: %v", c.entry, err)
		}
	}
}

// Zeros are the image's own, also where there is nothing below it yet: something
// may be later.
func TestOwnZeroes(t *testing.T) {
	img := opened(t, made(t, CreateOptions{}), &OpenOptions{Writable: true})
	defer img.Close()
	if err := img.WriteZeroes(8192, 8192, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.WriteZeroes(20000, 1, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n int64
		kind   block.Kind
	}{{8192, 8192, block.Zero}, {16384, 4096, block.Data}} {
		e, err := img.Locate(c.off, img.Size()-c.off)
		if err != nil || e.Kind != c.kind || e.Length != c.n || !e.Allocated {
			t.Errorf("%+v: %+v, %v", c, e, err)
		}
	}
}

func TestChangeBacking(t *testing.T) {
	f := made(t, CreateOptions{})
	long := string(make([]byte, 1500))
	for _, c := range []struct{ name, format string }{{"one", "raw"}, {"another", ""}, {"", ""}, {"three", "raw"}, {"four", "qcow2"}} {
		img := opened(t, f, &OpenOptions{Writable: true, Policy: noBase{}})
		changer, _ := block.As[block.BackingChanger](img)
		if err := changer.ChangeBacking(c.name, c.format); err != nil {
			t.Fatal(err)
		}
		if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("a write after the change: %v", err)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		want := c.format
		if want != "raw" {
			want = ""
		}
		if d, err := Inspect(f); err != nil || d.BackingName != c.name || d.BackingFormat != want {
			t.Errorf("%q: %v, %+v", c.name, err, d)
		}
	}
	put(t, f, 24, le64(1))
	img := opened(t, f, &OpenOptions{Writable: true, Policy: noBase{}})
	defer img.Close()
	changer, _ := block.As[block.BackingChanger](img)
	if err := changer.ChangeBacking(long, ""); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("with unknown compatible features: %v", err)
	}
}

// noBase serves an empty backing image.
type noBase struct{ block.Deny }

func (noBase) OpenImage(block.Ref) (*block.Image, error) {
	f := storage.NewMemory()
	if err := Create(f, &CreateOptions{}); err != nil {
		return nil, err
	}
	return Open(f, nil)
}
