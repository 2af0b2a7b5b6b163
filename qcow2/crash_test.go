package qcow2_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
)

// The power fails at every instant of a scenario, and the disk keeps any part
// of what was not synced. Every state that this can leave must open, check
// without corruption, hold what had been flushed, and of each sector that was
// written since, its old or one of its new contents.

var crashStates = flag.Int("crash.states", 300_000, "how many power-loss states to visit at least")

func TestCrash(t *testing.T) {
	crashfile.Visit(t, *crashStates, func(seed uint64) (*crashfile.Scenario, error) {
		r := newCrashRun(t, seed)
		o := crashfile.Options{Exhaustive: 4, Samples: 2, Instants: 40, Near: changesHeader}
		if r.options.Encryption == qcow2.LUKS {
			o.Instants, o.Near = 8, nil // to derive a key takes longer than all the rest
		}
		return &crashfile.Scenario{Group: r.group, History: &r.History, Options: o, What: &r.options, Survives: r.survives},
			r.Play(12 + r.rand.IntN(12))
	})
}

// changesHeader finds the moments at which all of a structure gives way to
// another.
func changesHeader(op crashfile.Op) bool {
	return op.Kind == crashfile.Write && op.Off < 104 && op.File == 0
}

type crashRun struct {
	*scenario
	group *crashfile.Group
	files []*crashfile.File
}

func newCrashRun(t *testing.T, seed uint64) *crashRun {
	r := &crashRun{scenario: newScenario(t, seed), group: crashfile.NewGroup()}
	files := []*crashfile.File{r.group.New()}
	if r.options.DataFile != "" {
		files = append(files, r.group.New())
		r.options.Data = files[1]
	}
	if err := qcow2.Create(files[0], &r.options); err != nil {
		t.Error(err)
	}
	r.ballast(files[0])
	r.group.Checkpoint()
	r.files = files
	r.Open = func() (*block.Image, error) { return r.openFiles(files, true) }
	r.group.Record(&r.History)
	return r
}

func (r *crashRun) openFiles(files []*crashfile.File, writable bool) (*block.Image, error) {
	return r.openWith(files, &qcow2.OpenOptions{Writable: writable})
}

func (r *crashRun) openWith(files []*crashfile.File, o *qcow2.OpenOptions) (*block.Image, error) {
	o.Policy, o.Passphrase, o.InactiveL2 = r.policy, passphrase, r.wary
	if len(files) > 1 {
		o.Data = files[1].Reopen()
	}
	return qcow2.Open(files[0].Reopen(), o)
}

// survives checks one state: as it is, and after it has been opened for
// writing, written to and closed.
func (r *crashRun) survives(s *crashfile.State, m *stamp.Moment) error {
	img, err := r.openFiles(s.Files, false)
	if err != nil {
		return err
	}
	dirty := isDirty(img)
	if !dirty { // refcounts of a dirty image may be anything
		err = checkNoCorruption(img, false)
	}
	if err := errors.Join(err, r.checkContent(img, m), img.Close()); err != nil {
		return err
	}
	img, err = r.openFiles(s.Files, true)
	if err != nil {
		return err
	}
	if dirty || s.Group().Recorded() > 0 { // the files are not what was checked
		err = errors.Join(checkNoCorruption(img, false), r.checkContent(img, m))
	}
	if err == nil {
		_, err = img.WriteAt(make([]byte, sector), 0)
		err = errors.Join(err, checkNoCorruption(img, false))
	}
	if err := errors.Join(err, img.Close()); err != nil {
		return fmt.Errorf("open for writing: %w", err)
	}
	return nil
}

// A refcount block that another one counts is new when the refcount table moves.
// Before the header names the new table, which names that block, its count is on
// disk.
func TestCrashGrowCounts(t *testing.T) {
	const cluster, last = 512, 64*63 - 1 // the last cluster before the last block that the table has room for
	g := crashfile.NewGroup()
	f := g.New()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 4 << 20, ClusterSize: cluster, RefcountBits: 64}))
	img, err := qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	p := bytes.Repeat([]byte{1}, 80*cluster)
	off := int64(0)
	for ; ; off += cluster {
		must(t, writeTo(img)(p[:cluster], off))
		e, err := img.Locate(off, cluster)
		must(t, err)
		if e.Offset/cluster >= last {
			break
		}
	}
	must(t, errors.Join(img.Discard(0, 2*cluster), img.Close()))
	img, err = qcow2.Open(f.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	g.Checkpoint()
	must(t, writeTo(img)(p[:2*cluster], off)) // the block comes to lie in what was free
	must(t, writeTo(img)(p, off+2*cluster))   // and more is needed than the table has room for
	for s := range g.States(crashfile.Options{Exhaustive: 2, Samples: 1}) {
		img, err := qcow2.Open(s.Files[0].Reopen(), &qcow2.OpenOptions{})
		must(t, err)
		if err := errors.Join(checkNoCorruption(img, false), img.Close()); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
	}
}
