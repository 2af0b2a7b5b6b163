package vhd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/job"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// vpc opens a VHD.
func vpc(t *testing.T, path string, o diskimg.OpenOptions) *block.Image {
	t.Helper()
	o.Format = "vpc"
	img, err := diskimg.Open(path, &o)
	must(t, err)
	return img
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a VHD.
func create(t *testing.T, path string, size int64, options ...string) {
	t.Helper()
	o := &diskimg.CreateOptions{Format: "vpc", Size: size, Options: map[string]string{"force_size": "on"}}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		o.Options[name] = value
	}
	must(t, diskimg.Create(path, o))
}

// clean has an image checked.
func clean(t *testing.T, img *block.Image) {
	t.Helper()
	k, _ := block.As[block.Checker](img)
	r, err := k.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) { t.Error(f.Text) }})
	if err != nil || r.Corruptions+r.Leaks+r.Errors != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Sizes up and down, by bytes and by tables; QEMU has the same size and the same
// content.
func TestResize(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for _, c := range []struct {
		name    string
		options []string
		sizes   []int64
	}{
		{"fixed", []string{"subformat=fixed"}, []int64{3 << 20, 5<<20 + 512, 1 << 20, 1<<20 + 512, 512, 4 << 20}},
		{"dynamic", nil, []int64{3 << 20, 5<<20 + 512, 30 << 20, 1 << 20, 20 << 20, 1<<20 + 512}},
		{"small blocks", []string{"block_size=16k"}, []int64{3 << 20, 1 << 20, 2<<20 + 512, 9 << 20, 2 << 20, 20 << 20}},
		{"by geometry", []string{"force_size=off"}, []int64{3 << 20, 34816 * 100, 1 << 20, 10 << 20}},
		{"of Hyper-V", []string{"creator=win "}, []int64{3 << 20, 10 << 20, 1 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path, plain := filepath.Join(dir, "disk"), filepath.Join(dir, "plain")
			create(t, path, c.sizes[0], c.options...)
			img := vpc(t, path, diskimg.OpenOptions{Writable: true})
			want := make([]byte, img.Size())
			for i, size := range c.sizes[1:] {
				scribble(t, img, want, uint64(i))
				r, _ := block.As[block.Resizer](img)
				must(t, r.Resize(context.Background(), size, block.ResizeOptions{Shrink: true}))
				want = append(want[:min(size, int64(len(want)))], make([]byte, max(0, size-int64(len(want))))...)
				scribble(t, img, want, uint64(i))
				clean(t, img)
				must(t, img.Close())
				must(t, os.WriteFile(plain, want, 0o666))
				if got := qemu.Info(t, path, "vpc").VirtualSize; got != size {
					t.Errorf("QEMU has %d bytes, want %d", got, size)
				}
				qemu.Compare(t, path, "vpc", plain, "raw")
				img = vpc(t, path, diskimg.OpenOptions{Writable: true})
				clean(t, img)
			}
			must(t, img.Close())
		})
	}
}

// scribble writes some ranges of an image and of a slice, often at the end.
func scribble(t *testing.T, img *block.Image, want []byte, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range 6 {
		n := min(1+r.IntN(70000), len(want))
		off := r.IntN(len(want) - n + 1)
		if i == 0 {
			off = len(want) - n
		}
		p := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, n)
		copy(want[off:], p)
		_, err := img.WriteAt(p, int64(off))
		must(t, err)
	}
	got := make([]byte, len(want))
	_, err := img.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the content differs")
	}
}

// What can't be is refused, and the image stays as it is.
func TestResizeRefused(t *testing.T) {
	dir := t.TempDir()
	create(t, filepath.Join(dir, "fixed"), 1<<20, "subformat=fixed")
	create(t, filepath.Join(dir, "dynamic"), 1<<20, "block_size=4k")
	for _, c := range []struct {
		file string
		size int64
		o    block.ResizeOptions
		want error
	}{
		{"fixed", 1000, block.ResizeOptions{Shrink: true}, block.ErrInvalid},
		{"fixed", 512, block.ResizeOptions{}, block.ErrInvalid},
		{"fixed", 3 << 40, block.ResizeOptions{}, block.ErrInvalid},
		{"fixed", 2 << 20, block.ResizeOptions{Preallocation: block.PreallocMetadata}, block.ErrUnsupported},
		{"dynamic", 2 << 20, block.ResizeOptions{Preallocation: block.PreallocFull}, block.ErrUnsupported},
		{"dynamic", 512, block.ResizeOptions{}, block.ErrInvalid},
		{"dynamic", 1 << 40, block.ResizeOptions{}, block.ErrUnsupported}, // a table of 1 GiB
	} {
		path := filepath.Join(dir, c.file)
		before, err := os.ReadFile(path)
		must(t, err)
		img := vpc(t, path, diskimg.OpenOptions{Writable: true})
		r, _ := block.As[block.Resizer](img)
		if err := r.Resize(context.Background(), c.size, c.o); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		must(t, img.Close())
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%+v: the file has changed, %v", c, err)
		}
	}
}

// A fixed disk that lost the power while it grew, with zeros behind its footer.
func TestLostFooter(t *testing.T) {
	f := storage.NewMemory()
	must(t, vhd.Create(f, &vhd.CreateOptions{Type: vhd.Fixed, Size: 1 << 20}))
	must(t, f.Truncate(200<<20))
	img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true})
	must(t, err)
	defer img.Close()
	k, _ := block.As[block.Checker](img)
	if r, err := k.Check(context.Background(), block.CheckOptions{}); err != nil || r.Leaks != 1 || img.Size() != 1<<20 {
		t.Errorf("%+v, %v, %d bytes", r, err, img.Size())
	}
	if r, err := k.Check(context.Background(), block.CheckOptions{FixLeaks: true}); err != nil || r.LeaksFixed != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	clean(t, img)
	if size, _ := f.Size(); size != 1<<20+512 {
		t.Errorf("the file has %d bytes", size)
	}
}

// Two disks that are each other's parents.
func TestLoop(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	const one, two = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
	make := func(path, name, id, parent string) {
		create(t, filepath.Join(dir, name), 1<<20, "uuid="+parent, "timestamp=1000000000")
		create(t, path, 1<<20, "uuid="+id, "timestamp=1000000000", "backing_file="+name, "backing_fmt=vpc")
	}
	make(filepath.Join(dir, "new"), "b", one, two)
	make(b, "a", two, one)
	must(t, os.Rename(filepath.Join(dir, "new"), a))
	for _, p := range []block.Policy{diskimg.Strict{}, diskimg.Permissive{}} {
		img, err := diskimg.Open(a, &diskimg.OpenOptions{Format: "vpc", Policy: p})
		if err == nil {
			img.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "infinite loop") {
			t.Errorf("%T: %v", p, err)
		}
	}
}

// contents reads all of a disk.
func contents(t *testing.T, path string) []byte {
	t.Helper()
	img := vpc(t, path, diskimg.OpenOptions{})
	defer img.Close()
	p := make([]byte, img.Size())
	_, err := img.ReadAt(p, 0)
	must(t, err)
	return p
}

// What a child holds goes into its parent, which grows for it, or into the disk
// below that.
func TestCommit(t *testing.T) {
	for depth := 1; depth <= 2; depth++ {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			base, middle, top := chain(t)
			img := vpc(t, top, diskimg.OpenOptions{Writable: true})
			r, _ := block.As[block.Resizer](img)
			must(t, r.Resize(context.Background(), 9<<20, block.ResizeOptions{}))
			_, err := img.WriteAt(bytes.Repeat([]byte{9}, 700), 9<<20-700)
			must(t, err)
			must(t, img.WriteZeroes(1<<20, 5000, 0))
			must(t, img.Close())
			want := contents(t, top)

			img = vpc(t, top, diskimg.OpenOptions{Writable: true, WritableBase: depth})
			must(t, job.Commit(context.Background(), img, &job.CommitOptions{Depth: depth}))
			clean(t, img)
			must(t, img.Close())
			if got := contents(t, []string{middle, base}[depth-1]); !bytes.Equal(got, want) {
				t.Error("the disk below differs")
			}
			if got := contents(t, top); depth == 1 && !bytes.Equal(got, want) {
				t.Error("the child differs")
			}
			if info, err := os.Stat(top); err != nil || depth == 1 && info.Size() > 10<<10 {
				t.Errorf("the child still has %d bytes, %v", info.Size(), err)
			}
		})
	}
}

// Another parent, none, or the same one under another name: the child reads as
// it did.
func TestRebase(t *testing.T) {
	for _, name := range []string{"base", "other", ""} {
		t.Run(name, func(t *testing.T) {
			base, middle, top := chain(t)
			dir := filepath.Dir(top)
			create(t, filepath.Join(dir, "other"), 7<<20, "subformat=fixed")
			other := vpc(t, filepath.Join(dir, "other"), diskimg.OpenOptions{Writable: true})
			_, err := other.WriteAt(bytes.Repeat([]byte{7}, 6<<20), 1<<20)
			must(t, err)
			must(t, other.Close())
			want := contents(t, top)

			img := vpc(t, top, diskimg.OpenOptions{Writable: true})
			var below *block.Image
			if name != "" {
				below = vpc(t, filepath.Join(dir, name), diskimg.OpenOptions{})
				defer below.Close()
			}
			must(t, job.Rebase(context.Background(), img, below, &job.RebaseOptions{Name: name, Format: map[bool]string{true: "vpc"}[name != ""]}))
			if _, err := img.WriteAt(make([]byte, 512), 0); !errors.Is(err, block.ErrInvalid) {
				t.Errorf("a write after the change: %v", err)
			}
			must(t, img.Close())
			must(t, os.Rename(middle, middle+".gone"))
			if name != "base" {
				must(t, os.Rename(base, base+".gone"))
			}
			if got := contents(t, top); !bytes.Equal(got, want) {
				t.Error("the child differs")
			}
			img = vpc(t, top, diskimg.OpenOptions{Writable: true})
			defer img.Close()
			clean(t, img)
			if (img.Backing() == nil) != (name == "") {
				t.Errorf("the parent is %v", img.Backing())
			}
		})
	}
}

// A parent that has been moved: its name alone changes, without a look at the
// old one.
func TestRebaseUnsafe(t *testing.T) {
	_, middle, top := chain(t)
	want := contents(t, top)
	long := strings.Repeat("x", 200)
	must(t, os.Rename(middle, filepath.Join(filepath.Dir(top), long)))
	img := vpc(t, top, diskimg.OpenOptions{Writable: true, NoBacking: true})
	if _, err := img.WriteAt(make([]byte, 512), 0); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("a write without the parent: %v", err)
	}
	must(t, job.Rebase(context.Background(), img, nil, &job.RebaseOptions{Name: long, Format: "vpc", Unsafe: true}))
	must(t, img.Close())
	if got := contents(t, top); !bytes.Equal(got, want) {
		t.Error("the child differs")
	}
}

// What can't be a parent leaves the child as it is.
func TestRebaseRefused(t *testing.T) {
	base, _, top := chain(t)
	before, err := os.ReadFile(top)
	must(t, err)
	for name, want := range map[string]string{
		"missing": "No such file", "top": "infinite loop", strings.Repeat("x", 300): "too long",
	} {
		img := vpc(t, top, diskimg.OpenOptions{Writable: true})
		err := job.Rebase(context.Background(), img, nil, &job.RebaseOptions{Name: name, Format: "vpc", Unsafe: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, img.Close())
	}
	img := vpc(t, base, diskimg.OpenOptions{Writable: true})
	b, _ := block.As[block.BackingChanger](img)
	if err := b.ChangeBacking("middle", "vpc"); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("a dynamic disk: %v", err)
	}
	must(t, img.Close())
	if after, err := os.ReadFile(top); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
}

// What a guest writes last looks like a footer, and then the program is killed.
func TestGuestFooter(t *testing.T) {
	for _, kind := range []vhd.Type{vhd.Fixed, vhd.Dynamic} {
		inner := storage.NewMemory()
		must(t, vhd.Create(inner, &vhd.CreateOptions{Type: kind, Size: 64 << 10}))
		size, _ := inner.Size()
		footer := make([]byte, 512)
		_, err := inner.ReadAt(footer, size-512)
		must(t, err)

		f := storage.NewMemory()
		must(t, vhd.Create(f, &vhd.CreateOptions{Size: 64 << 10, BlockSize: 4 << 10}))
		img, err := vhd.Open(f.Reopen(), &vhd.OpenOptions{Writable: true})
		must(t, err)
		_, err = img.WriteAt(footer, 8<<10-512) // the end of a block
		must(t, err)
		killed := storage.NewMemory()
		b := readAll(t, f)
		_, err = killed.WriteAt(b, 0)
		must(t, err)
		must(t, img.Close())

		img, err = vhd.Open(killed.Reopen(), &vhd.OpenOptions{Writable: true})
		if err != nil {
			t.Errorf("a %s disk within: %v", kind, err)
			continue
		}
		_, err = img.WriteAt([]byte("data"), 20<<10)
		must(t, err)
		must(t, img.Close())
		img, err = vhd.Open(killed.Reopen(), &vhd.OpenOptions{Writable: true})
		must(t, err)
		k, _ := block.As[block.Checker](img)
		if r, err := k.Check(context.Background(), block.CheckOptions{FixLeaks: true}); err != nil || r.Corruptions > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		must(t, img.Close())
	}
}

// Other programs have a child remember when its parent's file was written to.
func TestParentFileTime(t *testing.T) {
	_, middle, top := chain(t)
	at := time.Date(2020, 2, 2, 2, 2, 2, 0, time.UTC)
	f, err := storage.OpenFile(top, &storage.FileOptions{Writable: true})
	must(t, err)
	b := make([]byte, 1024)
	_, err = f.ReadAt(b, 512)
	must(t, err)
	binary.BigEndian.PutUint32(b[56:], uint32(at.Unix()-time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()))
	_, err = f.WriteAt(sum(b, 36), 512)
	must(t, err)
	must(t, f.Close())
	if img, err := diskimg.Open(top, &diskimg.OpenOptions{Format: "vpc"}); err == nil {
		img.Close()
		t.Error("a parent that was written to since is taken")
	}
	must(t, os.Chtimes(middle, at, at))
	contents(t, top)
}

// As in QEMU, an image of this format can't go to another host while it is in use:
// it can't be invalidated, and says so.
func TestNoInvalidate(t *testing.T) {
	for _, subformat := range []string{"fixed", "dynamic"} {
		path := filepath.Join(t.TempDir(), "disk")
		create(t, path, 1<<20, "subformat="+subformat)
		img := vpc(t, path, diskimg.OpenOptions{Writable: true})
		if err := img.Invalidate(); !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("%s: %v", subformat, err)
		}
		must(t, img.Close())
	}
}

// Emptying that fails half way forgets all blocks: those made later, where they
// were, are hidden from the parent on disk too.
func TestEmptyFails(t *testing.T) {
	s := &scenario{parents: map[string]*storage.Memory{}}
	s.options = vhd.CreateOptions{Size: 24 << 10, BlockSize: 4096}
	s.makeParent(t, "one", 32<<10)
	m, plan := storage.NewMemory(), faultfile.NewPlan(faultfile.Fault{})
	must(t, vhd.Create(m, &s.options))
	img, err := s.open(plan.Wrap(m.Reopen()), true)
	must(t, err)
	_, err = img.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	r, _ := block.As[block.Resizer](img)
	must(t, r.Resize(context.Background(), 600<<10, block.ResizeOptions{})) // the table lies behind the block now
	must(t, img.Flush())
	plan.Set(faultfile.Fault{Kind: faultfile.Punch, N: 1})
	e, _ := block.As[block.Emptier](img)
	if err := e.MakeEmpty(); err == nil || plan.Hits() != 1 {
		t.Fatalf("emptying: %v, %d faults", err, plan.Hits())
	}
	must(t, r.Resize(context.Background(), 24<<10, block.ResizeOptions{Shrink: true}))
	must(t, r.Resize(context.Background(), 32<<10, block.ResizeOptions{}))
	must(t, img.Close())
	img, err = s.open(m.Reopen(), false)
	must(t, err)
	defer img.Close()
	p := make([]byte, 8<<10)
	_, err = img.ReadAt(p, 24<<10)
	must(t, err)
	if !zero.Is(p) {
		t.Error("the parent shows where the disk has become longer")
	}
}

// A child that has not grown above its longer parent has its size, its content and
// no blocks behind its end.
func TestGrowCancelled(t *testing.T) {
	points := 0
	for ; growCancelled(t, points); points++ {
	}
	if points < 3 {
		t.Errorf("it can be stopped at %d points", points)
	}
}

// growCancelled stops growing a child at one of its points, and reports whether it
// has that.
func growCancelled(t *testing.T, point int) bool {
	t.Helper()
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.vhd"), filepath.Join(dir, "top.vhd")
	create(t, base, 12<<20)
	img := vpc(t, base, diskimg.OpenOptions{Writable: true})
	_, err := img.WriteAt(bytes.Repeat([]byte{5}, 12<<20), 0)
	must(t, errors.Join(err, img.Close()))
	must(t, diskimg.Create(top, &diskimg.CreateOptions{
		Format: "vpc", Size: 3 << 20, BackingFile: "base.vhd", BackingFormat: "vpc", Options: map[string]string{"force_size": "on"},
	}))
	want := contents(t, top)

	img = vpc(t, top, diskimg.OpenOptions{Writable: true})
	r, _ := block.As[block.Resizer](img)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	left, last := point, [2]int64{}
	stopped := r.Resize(ctx, 12<<20, block.ResizeOptions{Progress: func(done, total int64) {
		if left--; left < 0 {
			stop()
		}
		if last[0] > 0 && last[0] == last[1] {
			t.Errorf("%d of %d done after %d of %d", done, total, last[0], last[1])
		}
		last = [2]int64{done, total}
	}})
	must(t, img.Close())
	if stopped == nil {
		return false
	}
	img = vpc(t, top, diskimg.OpenOptions{Writable: true})
	clean(t, img)
	must(t, img.Close())
	if !errors.Is(stopped, context.Canceled) || !bytes.Equal(contents(t, top), want) {
		t.Errorf("stopped at point %d: %v, and the disk differs", point, stopped)
	}
	return true
}
