package faultfile_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/storage"
)

// A file whose plan has no fault is the file below.
func TestNoFault(t *testing.T) {
	blocktest.TestFile(t, func(t *testing.T) block.File { return faultfile.NewPlan(faultfile.Fault{}).Wrap(crashfile.New()) })
}

// operations does one of each kind and returns the kinds that failed.
func operations(f *faultfile.File) (failed []faultfile.Kind) {
	p := []byte("some content")
	_, writeErr := f.WriteAt(p, 0)
	_, readErr := f.ReadAt(p, 0)
	errs := []error{faultfile.Write: writeErr, faultfile.Read: readErr, faultfile.Zero: f.WriteZeroes(100, 10), faultfile.Punch: f.PunchHole(0, 10),
		faultfile.Reserve: f.Reserve(0, 10), faultfile.Truncate: f.Truncate(50), faultfile.Sync: f.Sync(), faultfile.Close: nil}
	for k, err := range errs {
		if err != nil && err != io.EOF {
			failed = append(failed, faultfile.Kind(k))
		}
	}
	return failed
}

func TestEachKindFailsOnce(t *testing.T) {
	for k := faultfile.Read; k < faultfile.Copy; k++ {
		plan := faultfile.NewPlan(faultfile.Fault{Kind: k, N: 2})
		f := plan.Wrap(crashfile.New())
		for round := 1; round <= 3; round++ {
			failed := operations(f)
			if round == 2 && (len(failed) != 1 || failed[0] != k) || round != 2 && len(failed) != 0 {
				t.Errorf("%v, round %d: %v failed", k, round, failed)
			}
		}
		if plan.Hits() != 1 || plan.Count(k) != 3 || plan.Count(faultfile.Any) != 21 {
			t.Errorf("%v: %d hits, %d of %d operations", k, plan.Hits(), plan.Count(k), plan.Count(faultfile.Any))
		}
	}
}

// With Any, running n from 1 to the count makes each operation fail in turn.
func TestAnyFailsEach(t *testing.T) {
	plan := faultfile.NewPlan(faultfile.Fault{})
	operations(plan.Wrap(crashfile.New()))
	total := plan.Count(faultfile.Any)
	if total != 7 {
		t.Fatalf("%d operations", total)
	}
	seen := make(map[faultfile.Kind]bool)
	for n := 1; n <= total; n++ {
		plan.Set(faultfile.Fault{N: n})
		failed := operations(plan.Wrap(crashfile.New()))
		if len(failed) != 1 {
			t.Fatalf("operation %d: %v failed", n, failed)
		}
		seen[failed[0]] = true
	}
	if len(seen) != total {
		t.Errorf("only %v failed", seen)
	}
}

func TestSticky(t *testing.T) {
	plan := faultfile.NewPlan(faultfile.Fault{N: 4, Sticky: true})
	f := plan.Wrap(crashfile.New())
	if failed := operations(f); len(failed) != 4 {
		t.Errorf("%v failed", failed)
	}
	if failed := operations(f); len(failed) != 7 {
		t.Errorf("%v failed", failed)
	}
}

func TestErrors(t *testing.T) {
	f := faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Write, N: 1, Err: faultfile.ENOSPC}).Wrap(crashfile.New())
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, block.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("ENOSPC is %v", err)
	}
	f = faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Sync, N: 1}).Wrap(crashfile.New())
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the default is %v", err)
	}
}

func TestPartial(t *testing.T) {
	below := crashfile.New()
	f := faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Write, N: 2, Partial: true}).Wrap(below)
	if _, err := f.WriteAt(bytes.Repeat([]byte("12345678"), 256), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt(bytes.Repeat([]byte("abcdefgh"), 128), 0); n != 512 || err == nil {
		t.Errorf("half a write: %d, %v", n, err)
	}
	got := make([]byte, 2048)
	want := append(bytes.Repeat([]byte("abcdefgh"), 64), bytes.Repeat([]byte("12345678"), 192)...)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after half a write: %q, %v", got, err)
	}
	f = faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Read, N: 1, Partial: true}).Wrap(below)
	if n, err := f.ReadAt(got, 0); n != 1024 || err == nil {
		t.Errorf("half a read: %d, %v", n, err)
	}
}

func TestCopy(t *testing.T) {
	local := func() block.File {
		f, err := storage.CreateFile(filepath.Join(t.TempDir(), "f"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	plan := faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Copy, N: 2, Partial: true})
	src, dst := plan.Wrap(local()), plan.Wrap(local())
	if _, err := src.WriteAt(bytes.Repeat([]byte("x"), 8192), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := dst.CopyFrom(src, 0, 0, 8192); errors.Is(err, block.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if n, err := dst.CopyFrom(src, 0, 8192, 8192); n != 4096 || !errors.Is(err, syscall.EIO) {
		t.Errorf("half a copy: %d, %v", n, err)
	}
	if size, err := dst.Size(); size != 12288 || err != nil {
		t.Errorf("after one and a half copies there are %d bytes, %v", size, err)
	}
}

// A Sync that fails makes nothing durable; a Close that fails closes.
func TestFailedSyncAndClose(t *testing.T) {
	below := crashfile.New()
	f := faultfile.NewPlan(faultfile.Fault{N: 2, Sticky: true}).Wrap(below)
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if f.Sync() == nil || f.Close() == nil {
		t.Fatal("Sync and Close work")
	}
	for _, op := range below.Group().Log() {
		if op.Kind == crashfile.Sync {
			t.Error("the file below was synced")
		}
	}
	if _, err := below.Size(); err == nil {
		t.Error("the file below is open")
	}
}
