package qed

import (
	"errors"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// Two handles of one image work on it in turns, as two hosts do: each invalidates
// what it has read and flushes what it has written. Both see one disk, and leave a
// sound image.
func TestInvalidate(t *testing.T) {
	for seed := uint64(1); seed <= 150 && !t.Failed(); seed++ {
		s := newScenario(t, seed)
		s.kinds = slices.DeleteFunc(s.kinds, func(k int) bool { return k == aRebase }) // makes it another image
		f := storage.NewMemory()
		if err := s.create(f.Reopen()); err != nil {
			t.Fatal(err)
		}
		if err := s.damage(func() block.File { return f.Reopen() }); err != nil {
			t.Fatal(err)
		}
		s.Open = func() (*block.Image, error) { return s.openOn(f.Reopen(), true) }
		if err := s.TakeTurns(func(img *block.Image) error { return s.checkContent(img, s.Now()) }); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := s.checkOpen(func() block.File { return f.Reopen() }, true, false, nil, s.Now()); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// What would be lost is not given up, and an image that is another one now is not
// written.
func TestInvalidateRefused(t *testing.T) {
	f := storage.NewMemory()
	if err := Create(f.Reopen(), &CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f.Reopen(), &OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := img.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrInvalid) || errors.Is(err, block.ErrBroken) {
		t.Errorf("with a change that is not flushed: %v", err)
	}
	if err := errors.Join(img.Flush(), img.Invalidate()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Truncate(0), Create(f.Reopen(), &CreateOptions{Size: 1 << 20, ClusterSize: 4096})); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("another image: %v", err)
	}
	if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrBroken) {
		t.Errorf("and a write to it: %v", err)
	}
}
