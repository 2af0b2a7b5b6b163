package job_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// overlay is a fake that can be made empty and resized.
type overlay struct {
	*fake
	emptied bool
}

func (o *overlay) image() *block.Image {
	return block.NewImage(o, block.ImageOptions{Path: "overlay", Format: "fake", Writable: true})
}

func (o *overlay) MakeEmpty() error {
	for i := range o.kinds {
		o.kinds[i] = block.Below
	}
	o.emptied = true
	return nil
}

func (o *overlay) Resize(_ context.Context, size int64, _ block.ResizeOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for int64(len(o.kinds))*unit < size {
		o.kinds, o.places = append(o.kinds, block.Zero), append(o.places, 0)
	}
	o.size = size
	return nil
}

// randomOverlays makes a chain like randomChain, of images that can be emptied
// and resized, from the top down.
func randomOverlays(r *rand.Rand, depth int) ([]*overlay, [][]byte) {
	size := int64(r.IntN(600)+1) * unit
	var list []*overlay
	var contents [][]byte
	var backing *block.Image
	var below []byte
	if depth > 0 {
		list, contents = randomOverlays(r, depth-1)
		backing, below = list[0].image(), contents[0]
	}
	img, want := randomDisk(r, size, backing, below)
	f, _ := block.As[*fake](img)
	return append([]*overlay{{fake: f}}, list...), append([][]byte{want}, contents...)
}

// What a chain shows is in the image that it was committed to, and all images
// from the top to there read the same as before where they must.
func TestCommitProperties(t *testing.T) {
	noGoroutineLeft(t)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 11))
		chain, contents := randomOverlays(r, 1+r.IntN(3))
		depth := 1 + r.IntN(len(chain)-1)
		top, base, old := chain[0].image(), chain[depth], contents[depth]
		o := &job.CommitOptions{Depth: depth, Keep: r.IntN(2) == 0}
		var last, all int64
		o.Progress = func(done, total int64) {
			if done < last || done > total || total > top.Size() {
				t.Errorf("seed %d: progress %d after %d, of %d", seed, done, last, total)
			}
			last, all = done, total
		}
		if b := base.backing; b != nil && b.Size() > base.size {
			continue // growing such a base is up to the format
		}
		must(t, job.Commit(t.Context(), top, o))
		mustEqual(t, "the top image", content(t, top), contents[0])
		want := append([]byte(nil), contents[0]...)
		if len(old) > len(want) {
			want = append(want, old[len(want):]...)
		}
		mustEqual(t, "the base", content(t, base.image()), want)
		if empty := depth == 1 && !o.Keep; chain[0].emptied != empty {
			t.Errorf("seed %d: emptied %t, depth %d, keep %t", seed, chain[0].emptied, depth, o.Keep)
		}
		if chain[0].emptied && base.writes[len(base.writes)-1].op != "flush" {
			t.Errorf("seed %d: emptied before the base was flushed: %v", seed, base.writes)
		}
		if last != all {
			t.Errorf("seed %d: progress ended at %d of %d", seed, last, all)
		}
	}
}

// What is wrong with a chain is told before anything is written.
func TestCommitRefuses(t *testing.T) {
	small, large := newFake(unit, nil), newFake(4*unit, nil)
	readOnly := block.NewImage(large, block.ImageOptions{Path: "fake", Format: "fake"})
	for name, c := range map[string]struct {
		img  *block.Image
		o    job.CommitOptions
		want error
	}{
		"no backing":         {(&overlay{fake: newFake(unit, nil)}).image(), job.CommitOptions{}, block.ErrInvalid},
		"chain too short":    {(&overlay{fake: newFake(unit, large.image())}).image(), job.CommitOptions{Depth: 2}, block.ErrInvalid},
		"can't be emptied":   {newFake(unit, large.image()).image(), job.CommitOptions{}, block.ErrUnsupported},
		"can't be grown":     {(&overlay{fake: newFake(2*unit, small.image())}).image(), job.CommitOptions{Keep: true}, block.ErrUnsupported},
		"read-only base":     {dirtied(newFake(unit, readOnly)), job.CommitOptions{Keep: true}, block.ErrReadOnly},
		"negative rate":      {(&overlay{fake: newFake(unit, large.image())}).image(), job.CommitOptions{RateLimit: -1}, block.ErrInvalid},
		"nothing to be kept": {newFake(unit, large.image()).image(), job.CommitOptions{Keep: true}, nil},
	} {
		if err := job.Commit(t.Context(), c.img, &c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(small.writes)+len(large.writes) > 1 { // the flush of the last row
		t.Errorf("written: %v %v", small.writes, large.writes)
	}
}

func dirtied(f *fake) *block.Image {
	f.put(block.Data, 0, make([]byte, unit))
	return f.image()
}

// A commit that fails or is cancelled leaves the overlay as it was.
func TestCommitFails(t *testing.T) {
	noGoroutineLeft(t)
	for _, cancelled := range []bool{false, true} {
		base := &overlay{fake: newFake(4<<20, nil)}
		top, want := dataDisk(rand.New(rand.NewPCG(1, 1)), 4<<20)
		top.backing = base.image()
		ctx, cancel := context.WithCancelCause(t.Context())
		base.failWrite = func(off, n int64) error {
			switch {
			case off < 1<<20:
				return nil
			case cancelled:
				cancel(errDisk)
				return nil
			}
			return errDisk
		}
		img := &overlay{fake: top}
		if err := job.Commit(ctx, img.image(), nil); !errors.Is(err, errDisk) {
			t.Errorf("error %v", err)
		}
		mustEqual(t, "the overlay", content(t, img.image()), want)
		if img.emptied {
			t.Error("it was emptied")
		}
		cancel(nil)
	}
}
