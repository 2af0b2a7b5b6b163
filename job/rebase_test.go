package job_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// renamed is a fake that can be given another backing file.
type renamed struct {
	*fake
	name, format string
	flushed      bool // nothing has been written since the last flush
}

func (f *renamed) image() *block.Image {
	return block.NewImage(f, block.ImageOptions{Path: "top", Format: "fake", Writable: true})
}

func (f *renamed) ChangeBacking(name, format string) error {
	f.name, f.format = name, format
	f.flushed = len(f.writes) > 0 && f.writes[len(f.writes)-1].op == "flush"
	return nil
}

// An overlay reads the same over its new backing image, of whatever extents
// and size, and holds no cluster that it need not.
func TestRebaseProperties(t *testing.T) {
	noGoroutineLeft(t)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 12))
		size := int64(r.IntN(600)+1) * unit
		img, want := randomChain(r, size, 1+r.IntN(2))
		f, _ := block.As[*fake](img)
		top := &renamed{fake: f}
		name, next := "", (*block.Image)(nil)
		switch r.IntN(5) {
		case 0:
		case 1: // below what is below
			if b := f.backing.Backing(); b != nil {
				name, next = "deep", b
			}
		case 2: // with the content of the overlay
			g := newFake(size, nil)
			g.put(block.Data, 0, want)
			name, next = "same", g.image()
		default:
			next, _ = randomChain(r, int64(r.IntN(900)+1)*unit, r.IntN(2))
			name = "other"
		}
		var last int64
		o := &job.RebaseOptions{Name: name, Format: "fake", Workers: r.IntN(3), Progress: func(done, total int64) {
			if done < last || total != size {
				t.Errorf("seed %d: progress %d after %d, of %d", seed, done, last, total)
			}
			last = done
		}}
		must(t, job.Rebase(t.Context(), top.image(), next, o))
		if top.name != name || !top.flushed || last != size {
			t.Errorf("seed %d: renamed to %q, flushed %t, progress %d of %d", seed, top.name, top.flushed, last, size)
		}
		inOrder := func(a, b write) int { return int(a.off - b.off) }
		if writes := slices.DeleteFunc(slices.Clone(top.writes), func(w write) bool { return w.op == "flush" }); !slices.IsSortedFunc(writes, inOrder) {
			t.Errorf("seed %d: not written in the order of the disk: %v", seed, writes)
		}
		top.backing = next
		mustEqual(t, "the overlay", content(t, top.image()), want)
		if name == "same" && len(top.writes) > 1 {
			t.Errorf("seed %d: written although nothing differs: %v", seed, top.writes)
		}
	}
}

// A rebase that fails or is cancelled leaves the name as it was; one that can't
// be done writes nothing.
func TestRebaseFails(t *testing.T) {
	noGoroutineLeft(t)
	r := rand.New(rand.NewPCG(1, 1))
	for _, what := range []string{"write", "read", "map", "cancel", "no ability", "read-only", "no name", "unsafe"} {
		below, _ := dataDisk(r, 4<<20)
		next, _ := dataDisk(r, 4<<20)
		top := &renamed{fake: newFake(4<<20, below.image())}
		img, o, want := top.image(), &job.RebaseOptions{Name: "next"}, errDisk
		ctx, cancel := context.WithCancelCause(t.Context())
		switch what {
		case "write":
			top.failWrite = func(off, n int64) error { return errDisk }
		case "read":
			next.file = &badFile{next.memory, func(off, n int64) bool { return off > 3<<20 }}
		case "map":
			next.failResolve = func(off int64) error { return errDisk }
		case "cancel":
			o.Progress = func(done, total int64) { cancel(errDisk) }
		case "no ability":
			img, want = top.fake.image(), block.ErrUnsupported
		case "read-only":
			img, want = block.NewImage(top, block.ImageOptions{}), block.ErrReadOnly
		case "no name":
			o, want = nil, block.ErrInvalid
		case "unsafe":
			o.Unsafe, want = true, nil
		}
		err := job.Rebase(ctx, img, next.image(), o)
		if !errors.Is(err, want) || (want == nil) != (top.name == "next") {
			t.Errorf("%s: error %v, name %q", what, err, top.name)
		}
		if want != errDisk && len(top.writes) > 0 {
			t.Errorf("%s: written: %v", what, top.writes)
		}
		cancel(nil)
	}
}

// An image with nothing below it takes zeros for granted; over a new backing
// image it has to hold them.
func TestRebaseFromNone(t *testing.T) {
	for _, o := range []qcow2.CreateOptions{
		{}, {Version: 2}, {ClusterSize: 512}, {ExtendedL2: true}, {Compression: qcow2.Zstd},
	} {
		for _, asData := range []bool{false, true} {
			f := storage.NewMemory()
			o.Size = 1<<20 - 512
			must(t, qcow2.Create(f, &o))
			img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
			must(t, err)
			_, err = img.WriteAt(bytes.Repeat([]byte{1}, 3000), 200<<10)
			must(t, err)
			must(t, img.WriteZeroes(300<<10, 100<<10, 0))
			must(t, img.Discard(200<<10, 1<<10))
			want := content(t, img)

			r := rand.New(rand.NewPCG(1, 2))
			below, data := dataDisk(r, 1<<20)
			clear(data[700<<10 : 800<<10]) // nothing differs here
			below.put(block.Data, 0, data)
			must(t, job.Rebase(t.Context(), img, below.image(), &job.RebaseOptions{Name: "below", Format: "raw", ZerosAsData: asData}))
			must(t, img.Close())

			s := stack{open: func(name string) block.File {
				if name == "top" {
					return f.Reopen()
				}
				raw := storage.NewMemory()
				_, err := raw.WriteAt(data, 0)
				must(t, err)
				return raw
			}}
			must(t, s.intact(want, true))
		}
	}
}
