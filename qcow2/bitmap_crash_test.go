package qcow2_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// bitmapScenario writes to an image while bitmaps come and go. A bitmap called
// "since 7" was added when operation 7 had been done; sectors hold the number of
// the operation that wrote them.
type bitmapScenario struct {
	rand *rand.Rand
	open func() (*block.Image, error)
	img  *block.Image
	ops  int
	live []string // enabled bitmaps
}

const (
	stillName  = "still" // a disabled bitmap that nothing changes
	sinceNames = "since %d"
)

var stillSpans = []block.Span{{Start: 1 << 10, Length: 3 << 10}}

// newBitmapScenario makes an image in f, with the bitmap that is to stay.
func newBitmapScenario(f block.File, seed uint64) (*bitmapScenario, error) {
	s := &bitmapScenario{rand: rand.New(rand.NewPCG(seed, 3))}
	o := qcow2.CreateOptions{Size: 64 << 10, ClusterSize: 512 << s.rand.IntN(4)}
	if s.rand.IntN(2) == 0 {
		o.BackingFile, o.BackingFormat = "base", "raw" // its name lies where extensions grow
	}
	if err := qcow2.Create(f, &o); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *bitmapScenario) prepare() (err error) {
	if s.img, err = s.open(); err != nil {
		return err
	}
	err = s.edit(block.BitmapEdit{Name: stillName, Granularity: 512})
	if err == nil {
		_, err = s.img.WriteAt(make([]byte, stillSpans[0].Length), stillSpans[0].Start)
	}
	if err == nil {
		err = s.edit(block.BitmapEdit{Op: block.DisableBitmap, Name: stillName})
	}
	return errors.Join(err, s.img.Close())
}

func (s *bitmapScenario) edit(edits ...block.BitmapEdit) error {
	e, _ := block.As[block.BitmapEditor](s.img)
	return e.EditBitmaps(context.Background(), edits, nil)
}

func (s *bitmapScenario) play(n int) (err error) {
	if s.img, err = s.open(); err != nil {
		return err
	}
	for range n {
		if err := s.step(); err != nil {
			if s.img != nil {
				s.img.Close()
			}
			return err
		}
	}
	return s.img.Close()
}

func (s *bitmapScenario) step() (err error) {
	switch s.rand.IntN(8) {
	default:
		s.ops++
		p := make([]byte, sector*(1+s.rand.IntN(6)))
		off := s.rand.Int64N((64<<10-int64(len(p)))/sector) * sector
		stamp.Fill(p, off, uint32(s.ops))
		_, err = s.img.WriteAt(p, off)
		return err
	case 0, 1:
		return s.change()
	case 2:
		return s.img.Flush()
	case 3, 4:
		if err := s.img.Close(); err != nil {
			return err
		}
		s.img, err = s.open()
		return err
	}
}

// change adds a bitmap, takes one away, or does both at once.
func (s *bitmapScenario) change() error {
	var edits []block.BitmapEdit
	if len(s.live) > 1 || len(s.live) > 0 && s.rand.IntN(2) == 0 {
		edits = append(edits, block.BitmapEdit{Op: block.RemoveBitmap, Name: s.live[0]})
		s.live = s.live[1:]
	}
	if name := fmt.Sprintf(sinceNames, s.ops); !slices.Contains(s.live, name) && s.rand.IntN(3) > 0 {
		edits = append(slices.DeleteFunc(edits, func(e block.BitmapEdit) bool { return e.Name == name }),
			block.BitmapEdit{Op: block.RemoveBitmap, Name: name}, block.BitmapEdit{Name: name, Granularity: 512 << s.rand.IntN(4)})
		l, _ := block.As[block.BitmapLister](s.img)
		list, err := l.Bitmaps()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(b block.Bitmap) bool { return b.Name == name }) {
			edits = slices.Delete(edits, len(edits)-2, len(edits)-1)
		}
		s.live = append(s.live, name)
	}
	return s.edit(edits...)
}

// checkBitmaps finds that each bitmap that can be used tells of all that has
// been written since it was added. It returns how many those are.
func checkBitmaps(img *block.Image) (usable int, err error) {
	l, _ := block.As[block.BitmapLister](img)
	list, err := l.Bitmaps()
	if err != nil {
		return 0, err
	}
	still, err := dirtyOf(img, stillName)
	if err != nil || !slices.Equal(still, stillSpans) {
		return 0, fmt.Errorf("the bitmap that nothing changes: %v, %v", still, err)
	}
	ids, err := stamp.Sectors(img.ReadAt, 0, int(img.Size()/sector))
	if err != nil {
		return 0, err
	}
	for _, b := range list {
		var since uint32
		if _, err := fmt.Sscanf(b.Name, sinceNames, &since); err != nil || b.Unusable != nil {
			continue
		}
		dirty, err := dirtyOf(img, b.Name)
		if err != nil {
			return 0, err
		}
		usable++
		for at, id := range ids {
			if id != stamp.Garbage && id > since && !inSpans(dirty, int64(at)*sector) {
				return 0, fmt.Errorf("bitmap %q says that sector %d is clean, it holds write %d", b.Name, at, id)
			}
		}
	}
	return usable, nil
}

func inSpans(list []block.Span, off int64) bool {
	return slices.ContainsFunc(list, func(s block.Span) bool { return off >= s.Start && off < s.Start+s.Length })
}

// Whenever the power fails, a bitmap is marked as not to be used or tells of
// every write since it was added, and a bitmap that nothing changes stays.
func TestBitmapCrash(t *testing.T) {
	var usable atomic.Int64
	open := func(f *crashfile.File) func() (*block.Image, error) {
		return func() (*block.Image, error) {
			return qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true, Policy: memoryBacking{}})
		}
	}
	crashfile.Visit(t, *crashStates/20, func(seed uint64) (*crashfile.Scenario, error) {
		g := crashfile.NewGroup()
		f := g.New()
		s, err := newBitmapScenario(f, seed)
		if err != nil {
			return nil, err
		}
		s.open = open(f)
		if err := s.prepare(); err != nil {
			return nil, err
		}
		g.Checkpoint()
		o := crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 60}
		return &crashfile.Scenario{Group: g, Options: o, Survives: func(s *crashfile.State, _ *stamp.Moment) error {
			n, err := surviveBitmaps(open(s.Files[0]))
			usable.Add(int64(n))
			return err
		}}, s.play(16)
	})
	if usable.Load() == 0 {
		t.Error("no bitmap could be used in any state")
	}
	t.Logf("%d bitmaps in them could be used", usable.Load())
}

// surviveBitmaps checks a state as it is, and after one more write.
func surviveBitmaps(open func() (*block.Image, error)) (usable int, err error) {
	for range 2 {
		img, err := open()
		if err != nil {
			return 0, err
		}
		usable, err = checkBitmaps(img)
		p := make([]byte, sector)
		stamp.Fill(p, 0, 1000)
		if err == nil {
			_, err = img.WriteAt(p, 0)
		}
		err = errors.Join(err, checkNoCorruption(img, false), img.Close())
		if err != nil {
			return 0, err
		}
	}
	return usable, nil
}

// Whatever I/O fails, no bitmap says less than what was written.
func TestBitmapFaults(t *testing.T) {
	faultfile.FailEach(t, 6, playBitmapFault)
}

func playBitmapFault(seed uint64, plan *faultfile.Plan) error {
	m := storage.NewMemory()
	s, err := newBitmapScenario(m.Reopen(), seed)
	if err != nil {
		return err
	}
	plain := func() (*block.Image, error) {
		return qcow2.Open(m.Reopen(), &qcow2.OpenOptions{Writable: true, Policy: memoryBacking{}})
	}
	s.open = plain
	if err := s.prepare(); err != nil {
		return err
	}
	s.open = func() (*block.Image, error) {
		return qcow2.Open(plan.Wrap(m.Reopen()), &qcow2.OpenOptions{Writable: true, Policy: memoryBacking{}})
	}
	_ = s.play(12) // what matters is what is left
	_, err = surviveBitmaps(plain)
	return err
}

// QEMU reads what we have recorded, and we what QEMU has.
func TestBitmapsByQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, cluster := range []string{"512", "4096", "65536", "2M"} {
		path := filepath.Join(t.TempDir(), "a")
		qemu.Create(t, path, "qcow2", 16<<20, map[string]string{"cluster_size": cluster})
		qemu.Img(t, "bitmap", "--add", "-g", "4k", path, "theirs")
		f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		editOK(t, img, block.BitmapEdit{Name: "ours", Granularity: 4096})
		for _, off := range []int64{0, 5 << 20, 16<<20 - 1} {
			if _, err := img.WriteAt([]byte{1}, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(img.WriteZeroes(8<<20, 2<<20, 0), img.Close()); err != nil {
			t.Fatal(err)
		}
		qemu.IO(t, path, "qcow2", "write 3M 8k", "discard 12M 64k")
		for _, name := range []string{"theirs", "ours"} {
			qemu.Img(t, "bitmap", "--add", "-g", "4k", "--disable", "--merge", name, path, "copy of "+name)
		}
		if r := qemu.Check(t, path, "qcow2"); r.Corruptions+r.Leaks > 0 {
			t.Errorf("clusters of %s: %+v", cluster, r)
		}
		want := []block.Span{{Start: 0, Length: 4096}, {Start: 3 << 20, Length: 8192}, {Start: 5 << 20, Length: 4096},
			{Start: 8 << 20, Length: 2 << 20}, {Start: 12 << 20, Length: 64 << 10}, {Start: 16<<20 - 4096, Length: 4096}}
		f, err = storage.OpenFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		img, err = qcow2.Open(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"theirs", "ours", "copy of theirs", "copy of ours"} {
			if got, err := dirtyOf(img, name); err != nil || !slices.Equal(got, want) {
				t.Errorf("clusters of %s, %s: %v, %v\nwant %v", cluster, name, got, err, want)
			}
		}
		img.Close()
	}
}
