package qcow2_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// bitmapModel is an image with bitmaps, and what must be in them: one bool for
// each granule.
type bitmapModel struct {
	t    *testing.T
	rand *rand.Rand
	o    qcow2.CreateOptions
	file *storage.Memory
	data *storage.Memory
	img  *block.Image
	want map[string]*modelBitmap
	size int64
}

type modelBitmap struct {
	gran    int64
	enabled bool
	dirty   []bool
}

func (b *modelBitmap) resize(size int64) {
	n := (size + b.gran - 1) / b.gran
	b.dirty = append(b.dirty, make([]bool, max(0, n-int64(len(b.dirty))))...)[:n:n]
}

func (b *modelBitmap) mark(off, n int64) {
	for i := off / b.gran; i*b.gran < off+n; i++ {
		b.dirty[i] = true
	}
}

// spans lists the ranges that are dirty.
func (b *modelBitmap) spans(size int64) (list []block.Span) {
	for i, dirty := range b.dirty {
		start := int64(i) * b.gran
		n := min(b.gran, size-start)
		if k := len(list) - 1; dirty && k >= 0 && list[k].Start+list[k].Length == start {
			list[k].Length += n
		} else if dirty {
			list = append(list, block.Span{Start: start, Length: n})
		}
	}
	return list
}

// Bitmaps record what is written, whatever else is done to them, and are the
// same after the image has been opened again.
func TestBitmapModel(t *testing.T) {
	for seed := range uint64(60) {
		m := newBitmapModel(t, seed)
		for step := range 60 {
			m.step()
			m.compare()
			if t.Failed() {
				t.Fatalf("seed %d step %d: %+v", seed, step, m.o)
			}
		}
		m.reopen()
		m.compare()
		m.close()
	}
}

func newBitmapModel(t *testing.T, seed uint64) *bitmapModel {
	m := &bitmapModel{t: t, rand: rand.New(rand.NewPCG(seed, 7)), file: storage.NewMemory(), want: map[string]*modelBitmap{}}
	for m.o.Version = 2; m.o.Version == 2; {
		m.o = smallOptions(m.rand)
	}
	m.o.BackingFile, m.o.BackingFormat = "", ""
	if m.o.DataFile != "" {
		m.data = storage.NewMemory()
		m.o.Data = m.data
	}
	if m.rand.IntN(4) == 0 {
		m.o.Size *= 1000
	}
	m.size = m.o.Size
	if err := qcow2.Create(m.file, &m.o); err != nil {
		t.Fatal(err)
	}
	m.open()
	return m
}

func (m *bitmapModel) open() {
	m.t.Helper()
	o := &qcow2.OpenOptions{Writable: true}
	if m.data != nil {
		o.Data = m.data.Reopen()
	}
	img, err := qcow2.Open(m.file.Reopen(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.img = img
}

func (m *bitmapModel) close() {
	m.t.Helper()
	if err := errors.Join(checkNoCorruption(m.img, true), m.img.Close()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *bitmapModel) reopen() {
	m.close()
	m.open()
}

func (m *bitmapModel) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *bitmapModel) step() {
	off := m.rand.Int64N(m.size/sector) * sector
	n := min(m.size-off, (1+m.rand.Int64N(1<<m.rand.IntN(12)))*sector)
	switch m.rand.IntN(10) {
	default:
		_, err := m.img.WriteAt(slices.Repeat([]byte{1}, int(n)), off)
		m.must(err)
		m.mark(off, n)
	case 0:
		m.must(m.img.WriteZeroes(off, n, block.ZeroFlags(m.rand.IntN(2))))
		m.mark(off, n)
	case 1:
		m.must(m.img.Discard(off, n))
		m.mark(off, n)
	case 2:
		m.reopen()
	case 3:
		m.resize()
	case 4, 5, 6, 7:
		m.edit()
	}
}

func (m *bitmapModel) mark(off, n int64) {
	for _, b := range m.want {
		if b.enabled {
			b.mark(off, n)
		}
	}
}

func (m *bitmapModel) resize() {
	size := m.size + sector*(m.rand.Int64N(100)-40)
	r, _ := block.As[block.Resizer](m.img)
	m.must(r.Resize(context.Background(), min(max(size, 2*sector), 64<<20), block.ResizeOptions{Shrink: true}))
	m.size = m.img.Size()
	for _, b := range m.want {
		b.resize(m.size)
	}
}

// edit makes one to three changes at once.
func (m *bitmapModel) edit() {
	var edits []block.BitmapEdit
	for range 1 + m.rand.IntN(3) {
		edits = append(edits, m.oneEdit())
	}
	e, _ := block.As[block.BitmapEditor](m.img)
	if err := e.EditBitmaps(context.Background(), edits, nil); err != nil {
		m.t.Fatalf("%+v: %v", edits, err)
	}
}

// oneEdit draws an edit that can be made, and makes it here.
func (m *bitmapModel) oneEdit() block.BitmapEdit {
	name := fmt.Sprintf("bitmap %d", m.rand.IntN(5))
	b := m.want[name]
	if b == nil {
		e := block.BitmapEdit{Op: block.AddBitmap, Name: name, Granularity: 512 << m.rand.IntN(14), Disabled: m.rand.IntN(3) == 0}
		b = &modelBitmap{gran: e.Granularity, enabled: !e.Disabled}
		b.resize(m.size)
		m.want[name] = b
		return e
	}
	e := block.BitmapEdit{Op: block.BitmapOp(1 + m.rand.IntN(5)), Name: name}
	switch e.Op {
	case block.RemoveBitmap:
		delete(m.want, name)
	case block.ClearBitmap:
		clear(b.dirty)
	case block.EnableBitmap, block.DisableBitmap:
		b.enabled = e.Op == block.EnableBitmap
	case block.MergeBitmap:
		for other, from := range m.want {
			e.Source = other
			for _, s := range from.spans(m.size) {
				b.mark(s.Start, s.Length)
			}
			break
		}
	}
	return e
}

func (m *bitmapModel) compare() {
	m.t.Helper()
	l, _ := block.As[block.BitmapLister](m.img)
	list, err := l.Bitmaps()
	if err != nil || len(list) != len(m.want) {
		m.t.Errorf("bitmaps %+v, %v; want %d", list, err, len(m.want))
	}
	for _, b := range list {
		want := m.want[b.Name]
		if want == nil || b.Unusable != nil || b.InUse || b.Granularity != want.gran || b.Enabled != want.enabled {
			m.t.Errorf("%+v, want %+v", b, want)
			continue
		}
		got, err := dirtyOf(m.img, b.Name)
		if spans := want.spans(m.size); err != nil || !slices.Equal(got, spans) {
			m.t.Errorf("%s: %v, %v\nwant %v", b.Name, got, err, spans)
		}
	}
}

func dirtyOf(img *block.Image, name string) (list []block.Span, err error) {
	l, ok := block.As[block.BitmapLister](img)
	if !ok {
		return nil, errors.New("no bitmaps in this format")
	}
	for s, err := range l.DirtyExtents(name) {
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// newBitmaps returns an open image of 1 MiB, with the bitmaps of edits.
func newBitmaps(t *testing.T, edits ...block.BitmapEdit) (*storage.Memory, *block.Image) {
	t.Helper()
	f := storage.NewMemory()
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: 4096}); err != nil {
		t.Fatal(err)
	}
	img := openBitmaps(t, f, true)
	editOK(t, img, edits...)
	return f, img
}

func openBitmaps(t *testing.T, f *storage.Memory, writable bool) *block.Image {
	t.Helper()
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func editOK(t *testing.T, img *block.Image, edits ...block.BitmapEdit) {
	t.Helper()
	e, _ := block.As[block.BitmapEditor](img)
	if err := e.EditBitmaps(context.Background(), edits, nil); err != nil {
		t.Fatal(err)
	}
}

// What can't be done says so, and leaves the file as it was: also what came
// before it in the same call.
func TestBitmapEditErrors(t *testing.T) {
	f, img := newBitmaps(t, block.BitmapEdit{Name: "here"})
	defer img.Close()
	_, small := newBitmaps(t, block.BitmapEdit{Name: "there"})
	defer small.Close()
	other := storage.NewMemory()
	if err := qcow2.Create(other, &qcow2.CreateOptions{Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	large := openBitmaps(t, other, true)
	defer large.Close()
	editOK(t, large, block.BitmapEdit{Name: "there"})
	e, _ := block.As[block.BitmapEditor](img)
	before := contentOf(t, f)
	for _, c := range []struct {
		edit block.BitmapEdit
		text string
	}{
		{block.BitmapEdit{Name: "here"}, "Bitmap already exists: here"},
		{block.BitmapEdit{}, "Bitmap name cannot be empty"},
		{block.BitmapEdit{Name: strings.Repeat("x", 1024)}, "Name length exceeds maximum (1023 characters)"},
		{block.BitmapEdit{Name: "x", Granularity: 256}, "Granularity must be power of 2 and at least 512"},
		{block.BitmapEdit{Name: "x", Granularity: 4 << 30}, "Granularity must be power of 2 and at least 512"},
		{block.BitmapEdit{Name: "x", Granularity: 1000}, "Granularity must be power of 2 and at least 512"},
		{block.BitmapEdit{Name: "x", Granularity: -4096}, "Granularity must be power of 2 and at least 512"},
		{block.BitmapEdit{Op: block.RemoveBitmap, Name: "no"}, "Dirty bitmap 'no' not found"},
		{block.BitmapEdit{Op: block.ClearBitmap, Name: "no"}, "Dirty bitmap 'no' not found"},
		{block.BitmapEdit{Op: block.MergeBitmap, Name: "no", Source: "here"}, "Dirty bitmap 'no' not found"},
		{block.BitmapEdit{Op: block.MergeBitmap, Name: "here", Source: "no"}, "Dirty bitmap 'no' not found"},
		{block.BitmapEdit{Op: block.MergeBitmap, Name: "here", Source: "no", From: small}, "Dirty bitmap 'no' not found"},
		{block.BitmapEdit{Op: block.MergeBitmap, Name: "here", Source: "there", From: large},
			"Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged"},
		{block.BitmapEdit{Op: 9, Name: "here"}, "unknown operation 9 on bitmap 'here'"},
	} {
		err := e.EditBitmaps(context.Background(), []block.BitmapEdit{{Name: "first"}, c.edit}, nil)
		var failed *block.BitmapEditError
		if !errors.As(err, &failed) || failed.Edit.Name != c.edit.Name || err.Error() != c.text {
			t.Errorf("%+v: %v, want %q", c.edit, err, c.text)
		}
		if string(contentOf(t, f)) != string(before) {
			t.Fatalf("%+v has changed the file", c.edit)
		}
	}
}

// A disk can't grow so large that its bitmaps would be too large.
func TestBitmapTooLarge(t *testing.T) {
	_, img := newBitmaps(t, block.BitmapEdit{Name: "fine", Granularity: 512})
	defer img.Close()
	r, _ := block.As[block.Resizer](img)
	if err := r.Resize(context.Background(), 4<<40, block.ResizeOptions{}); !errors.Is(err, block.ErrNoSpace) || img.Size() != 1<<20 {
		t.Errorf("%v, the disk has %d bytes", err, img.Size())
	}
}

// A bitmap that was not stored can't be used for anything, and can be removed.
func TestBitmapInUse(t *testing.T) {
	f, img := newBitmaps(t, block.BitmapEdit{Name: "on"}, block.BitmapEdit{Name: "off", Disabled: true})
	if _, err := img.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Flush(); err != nil {
		t.Fatal(err)
	}
	crashed := memoryOf(contentOf(t, f))
	img.Close()
	img = openBitmaps(t, crashed, true)
	defer img.Close()
	l, _ := block.As[block.BitmapLister](img)
	list, err := l.Bitmaps()
	if err != nil || len(list) != 2 || !list[0].InUse || list[0].Unusable == nil || list[1].InUse || list[1].Unusable != nil {
		t.Fatalf("%+v, %v", list, err)
	}
	const text = "Bitmap 'on' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk"
	if _, err := dirtyOf(img, "on"); err == nil || err.Error() != text {
		t.Errorf("reading: %v", err)
	}
	e, _ := block.As[block.BitmapEditor](img)
	for _, edit := range []block.BitmapEdit{
		{Op: block.ClearBitmap, Name: "on"}, {Op: block.EnableBitmap, Name: "on"}, {Op: block.DisableBitmap, Name: "on"},
		{Op: block.MergeBitmap, Name: "on", Source: "off"}, {Op: block.MergeBitmap, Name: "off", Source: "on"},
	} {
		if err := e.EditBitmaps(context.Background(), []block.BitmapEdit{edit}, nil); err == nil || err.Error() != text {
			t.Errorf("%+v: %v", edit, err)
		}
	}
	r, _ := block.As[block.Resizer](img)
	if err := r.Resize(context.Background(), 2<<20, block.ResizeOptions{}); err == nil || err.Error() != text {
		t.Errorf("resizing: %v", err)
	}
	editOK(t, img, block.BitmapEdit{Op: block.RemoveBitmap, Name: "on"})
	if err := r.Resize(context.Background(), 2<<20, block.ResizeOptions{}); err != nil {
		t.Error(err)
	}
}

// An image that is opened for writing and not written to keeps its bitmaps
// clean whatever happens, and its file as it is.
func TestBitmapNoWrite(t *testing.T) {
	f, img := newBitmaps(t, block.BitmapEdit{Name: "on"})
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	before := contentOf(t, f)
	img = openBitmaps(t, f, true)
	if err := errors.Join(img.Flush(), img.Close()); err != nil {
		t.Fatal(err)
	}
	if string(before) != string(contentOf(t, f)) {
		t.Error("the file has changed")
	}
}
