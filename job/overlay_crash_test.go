package job_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/job"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// Jobs that change an overlay or what lies below it, with the power failing at
// every instant, and with each of their I/Os failing. What the overlay shows
// must never change.

const chainDisk = 24 << 10 // bytes of the overlay

// stack opens images by the names of their files.
type stack struct {
	open     func(name string) block.File
	writable string // the file that is opened for writing
}

func (s stack) OpenImage(ref block.Ref) (*block.Image, error) {
	if ref.Format == "raw" {
		return raw.Open(s.open(ref.Name), &raw.OpenOptions{Path: ref.Name, Writable: s.writable == ref.Name})
	}
	return s.overlay(ref.Name, s.writable == ref.Name)
}

func (s stack) overlay(name string, writable bool) (*block.Image, error) {
	return qcow2.Open(s.open(name), &qcow2.OpenOptions{Path: name, Writable: writable, Policy: s})
}

func (s stack) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

// stackFiles are the files of a stack: "top" lies over "mid" over "base", and
// "other" differs from mid in places.
var stackFiles = []string{"top", "mid", "base", "other"}

// fillStack makes the images in files and returns what top shows.
func fillStack(t *testing.T, open func(name string) block.File) []byte {
	t.Helper()
	write := func(name string, size int64, ranges ...int64) {
		img, err := stack{open: open}.overlay(name, true)
		if name == "base" || name == "other" {
			img, err = raw.Open(open(name), &raw.OpenOptions{Writable: true})
		}
		must(t, err)
		id := uint32(slices.Index(stackFiles, name) + 1)
		for i := 0; i < len(ranges); i += 2 {
			p := make([]byte, ranges[i+1])
			stamp.Fill(p, ranges[i], id)
			_, err := img.WriteAt(p, ranges[i])
			must(t, err)
		}
		if name == "top" {
			must(t, img.WriteZeroes(9<<10, 2<<10, 0))
			p := make([]byte, 1<<10)
			stamp.Fill(p, 20<<10, 9)
			must(t, img.WriteCompressed(p, 20<<10))
		}
		must(t, img.Close())
	}
	must(t, open("base").Truncate(chainDisk-2<<10))
	must(t, open("other").Truncate(chainDisk-4<<10))
	must(t, qcow2.Create(open("mid"), &qcow2.CreateOptions{Size: chainDisk - 2<<10, ClusterSize: 512, BackingFile: "base", BackingFormat: "raw"}))
	must(t, qcow2.Create(open("top"), &qcow2.CreateOptions{Size: chainDisk, ClusterSize: 1024, BackingFile: "mid", BackingFormat: "qcow2"}))
	write("base", chainDisk-2<<10, 0, 16<<10)
	write("other", chainDisk-4<<10, 0, 3<<10, 8<<10, 8<<10)
	write("mid", chainDisk-2<<10, 2<<10, 3<<10, 12<<10, 9<<10)
	write("top", chainDisk, 0, 1<<10, 6<<10, 1500, 23<<10, 1<<10)
	img, err := stack{open: open}.overlay("top", false)
	must(t, err)
	defer img.Close()
	return content(t, img)
}

// overlayJobs are what is done to a stack, with one file of it writable below.
var overlayJobs = []struct {
	name, writable string
	do             func(img *block.Image, s stack) error
}{
	{"commit", "mid", func(img *block.Image, _ stack) error { return job.Commit(context.Background(), img, nil) }},
	{"deep commit", "base", func(img *block.Image, _ stack) error {
		return job.Commit(context.Background(), img, &job.CommitOptions{Depth: 2})
	}},
	{"rebase", "", func(img *block.Image, s stack) error { return rebaseTo(img, s, "other", "raw") }},
	{"rebase further down", "", func(img *block.Image, s stack) error { return rebaseTo(img, s, "base", "raw") }},
	{"rebase to none", "", func(img *block.Image, s stack) error { return rebaseTo(img, s, "", "") }},
}

func rebaseTo(img *block.Image, s stack, name, format string) error {
	o := &job.RebaseOptions{Name: name, Format: format, Workers: 1}
	if name == "" {
		return job.Rebase(context.Background(), img, nil, o)
	}
	backing, err := s.OpenImage(block.Ref{Name: name, Format: format})
	if err != nil {
		return err
	}
	return errors.Join(job.Rebase(context.Background(), img, backing, o), backing.Close())
}

// intact opens the top image and compares what it shows. Its backing image has
// to be sound as well.
func (s stack) intact(want []byte, exact bool) error {
	img, err := s.overlay("top", false)
	if err != nil {
		return err
	}
	defer img.Close()
	got := make([]byte, len(want))
	if _, err := img.ReadAt(got, 0); err != nil {
		return err
	}
	for at := 0; at < len(want); at += 512 {
		if !bytes.Equal(got[at:at+512], want[at:at+512]) {
			return fmt.Errorf("the overlay differs at offset %d", at)
		}
	}
	for below := img; below != nil; below = below.Backing() {
		checker, ok := block.As[block.Checker](below)
		if !ok {
			continue
		}
		r, err := checker.Check(context.Background(), block.CheckOptions{})
		if err != nil || r.Corruptions > 0 || exact && r.Leaks > 0 {
			return fmt.Errorf("check of %s: %+v, %w", below.Path(), r, err)
		}
	}
	return nil
}

func TestOverlayCrash(t *testing.T) {
	for _, j := range overlayJobs {
		t.Run(j.name, func(t *testing.T) {
			g := crashfile.NewGroup()
			files := map[string]*crashfile.File{}
			for _, name := range stackFiles {
				files[name] = g.New()
			}
			s := stack{func(name string) block.File { return files[name].Reopen() }, j.writable}
			want := fillStack(t, s.open)
			g.Checkpoint()
			img, err := s.overlay("top", true)
			must(t, err)
			must(t, j.do(img, s))
			must(t, img.Close())
			states := 0
			for st := range g.States(crashfile.Options{Exhaustive: 4, Samples: 4, Seed: 1}) {
				left := stack{open: func(name string) block.File { return st.Files[slices.Index(stackFiles, name)].Reopen() }}
				if err := left.intact(want, false); err != nil {
					t.Fatalf("%v\n%v", err, st)
				}
				states++
			}
			s.writable = ""
			must(t, s.intact(want, true))
			t.Logf("%d states", states)
		})
	}
}

func TestOverlayFaults(t *testing.T) {
	for _, j := range overlayJobs {
		t.Run(j.name, func(t *testing.T) {
			files := map[string]*storage.Memory{}
			for _, name := range stackFiles {
				files[name] = storage.NewMemory()
			}
			plain := func(name string) block.File { return files[name].Reopen() }
			want := fillStack(t, plain)
			saved := map[string][]byte{}
			for name, f := range files {
				saved[name] = contentOf(t, f)
			}
			play := func(f faultfile.Fault) (int, error) {
				plan := faultfile.NewPlan(f)
				for name := range files {
					files[name] = storage.NewMemory()
					_, err := files[name].WriteAt(saved[name], 0)
					must(t, err)
				}
				s := stack{func(name string) block.File { return plan.Wrap(files[name].Reopen()) }, j.writable}
				img, err := s.overlay("top", true)
				if err == nil {
					err = errors.Join(j.do(img, s), img.Close())
				}
				if left := (stack{open: plain}).intact(want, err == nil && f.N > 0); left != nil {
					t.Errorf("%v: after %v: %v", f, err, left)
				}
				return plan.Count(faultfile.Any), err
			}
			n, err := play(faultfile.Fault{})
			must(t, err)
			for i := 1; i <= n; i++ {
				for _, f := range []faultfile.Fault{{N: i, Err: faultfile.EIO}, {N: i, Err: faultfile.ENOSPC, Sticky: true, Partial: true}} {
					play(f)
				}
			}
			t.Logf("%d I/Os failed in 2 ways", n)
		})
	}
}

func contentOf(t *testing.T, f *storage.Memory) []byte {
	t.Helper()
	n, err := f.Size()
	must(t, err)
	p := make([]byte, n)
	must(t, block.ReadFull(f, p, 0))
	return p
}
