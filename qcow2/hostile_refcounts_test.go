package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Refcounts that lie: what they say is free is never taken if it holds metadata,
// and a repair makes them true or says that it can't. An image that was not
// closed is repaired when it is opened for writing, or left as it is.

// liar is an image with wrong refcounts or flags.
type liar struct {
	name, seed string
	edit       func(f *forge)
	refused    string // why it can't be repaired; nothing if it can
}

func liars() []liar {
	count := func(at func(f *forge) int64, v uint64) func(f *forge) {
		return func(f *forge) { f.setRefcount(at(f)/f.cluster(), v) }
	}
	data := func(f *forge) int64 { return f.dataAt(0) }
	second := func(v func(f *forge) uint64) func(f *forge) {
		return func(f *forge) { f.put64(f.reftable(1), v(f)) }
	}
	const cant = "can't be repaired"
	list := []liar{
		{"nothing wrong", "v3", func(f *forge) {}, ""},
		{"data that counts as free", "v3", count(data, 0), ""},
		{"data that is counted twice", "v3", count(data, 2), ""},
		{"data at the largest count", "v3", count(data, 65535), ""},
		{"data at the largest count of 64 bits", "refs64", count(data, 1<<64-1), ""},
		{"header that counts as free", "v3", count(func(*forge) int64 { return 0 }, 0), ""},
		{"L1 table that counts as free", "v3", count(func(f *forge) int64 { return f.l1(0) }, 0), ""},
		{"L2 table that counts as free", "v2", count(func(f *forge) int64 { return f.table(0) }, 0), ""},
		{"refcount table that counts as free", "v3", count(func(f *forge) int64 { return f.reftable(0) }, 0), ""},
		{"refcount block that counts as free", "v3", count(func(f *forge) int64 { return f.refblock(0) }, 0), ""},
		{"refcount block that is counted twice", "v3", count(func(f *forge) int64 { return f.refblock(0) }, 2), ""},
		{"all counts 0", "v3", func(f *forge) { clear(f.b[f.refblock(0):][:f.cluster()]) }, ""},
		{"all counts 65535", "v3", func(f *forge) { fill(f.b[f.refblock(0):][:2*f.clusters()], 0xff) }, ""},
		{"all counts 255", "refs8", func(f *forge) { fill(f.b[f.refblock(0):][:f.clusters()], 0xff) }, ""},
		{"two entries on one cluster", "v3", func(f *forge) { f.put64(f.l2(f.cluster()), f.u64(f.l2(0))) }, ""},
		{"ten entries on one cluster", "sub", func(f *forge) {
			for c := range int64(10) {
				f.put64(f.l2((1+c)*f.cluster()), f.u64(f.l2(0)))
				f.put64(f.l2((1+c)*f.cluster())+8, f.u64(f.l2(0)+8))
			}
		}, ""},
		{"no copied flags", "v3", func(f *forge) {
			f.clear64(f.l1(0), copiedFlag)
			for c := range int64(seedClusters) {
				if e := f.l2(c * f.cluster()); f.u64(e)&compressedFlag == 0 {
					f.clear64(e, copiedFlag)
				}
			}
		}, ""},
		{"copied flags of what is shared", "v3", func(f *forge) {
			f.addSnapshots("a")
			f.or64(f.l1(0), copiedFlag)
			f.or64(f.l2(0), copiedFlag)
		}, ""},
		{"no refcount block", "v3", func(f *forge) { f.put64(f.reftable(0), 0) }, ""},
		{"refcount block that is not aligned", "v3", func(f *forge) { f.or64(f.reftable(0), 512) }, ""},
		{"refcount block beyond the end", "v3", func(f *forge) { f.put64(f.reftable(0), beyond) }, ""},
		{"refcount block at the last offset", "v3", func(f *forge) { f.put64(f.reftable(0), ^uint64(4095)) }, ""},
		{"reserved bits of a refcount block", "v3", func(f *forge) { f.or64(f.reftable(0), 0x1ff) }, ""},
		{"refcount block named twice", "v3", second(func(f *forge) uint64 { return f.u64(f.reftable(0)) }), ""},
		{"refcount block at 2^63", "v3", func(f *forge) { f.put64(f.reftable(0), 1<<63) }, ""},
		{"L2 table as a refcount block", "v3", second(func(f *forge) uint64 { return uint64(f.table(0)) }), ""},
		{"data as a refcount block", "512", second(func(f *forge) uint64 { return uint64(f.dataAt(0)) }), ""},
		{"refcount table as a refcount block", "512", second(func(f *forge) uint64 { return uint64(f.reftable(0)) }), ""},

		{"data beyond the end", "v3", func(f *forge) { f.put64(f.l2(0), beyond|copiedFlag) }, cant},
		{"entry that is not aligned", "v3", func(f *forge) { f.or64(f.l2(0), 512) }, cant},
		{"reserved bits", "v3", func(f *forge) { f.or64(f.l2(0), 2) }, cant},
		{"L2 table as data", "v3", func(f *forge) { f.put64(f.l2(0), uint64(f.table(0))) }, cant},
		{"header as compressed data", "v3", func(f *forge) { f.put64(f.l2(0), compressedFlag) }, cant},
		{"L2 table that is the L1 table", "512", func(f *forge) { f.put64(f.l1(0), uint64(f.l1(0))|copiedFlag) }, cant},
		{"L2 table named twice", "512", func(f *forge) {
			f.put32(hL1Size, 2)
			f.put64(f.l1(1), f.u64(f.l1(0)))
		}, cant},
		{"L1 table as the refcount table", "v3", func(f *forge) { f.put64(hReftableOffset, f.u64(hL1Offset)) }, cant},
		{"header as snapshot table", "v3", func(f *forge) {
			f.addSnapshots("a")
			f.put64(int64(f.u64(hSnapshotsOffset)), 0)
		}, cant},
		{"snapshot L1 table of 4 GiB", "v3", func(f *forge) {
			f.addSnapshots("a")
			f.put32(int64(f.u64(hSnapshotsOffset))+8, 1<<29)
		}, cant},
		{"more references than a refcount can say", "refs8", func(f *forge) {
			perTable := f.cluster() / 8
			f.put32(hL1Size, uint32(f.cluster()/8))
			for c := int64(1); c < perTable; c++ {
				f.put64(f.l2(c*f.cluster()), f.u64(f.l2(0)))
			}
			for i := int64(1); i < f.cluster()/8; i++ {
				f.put64(f.l1(i), f.u64(f.l1(0)))
			}
		}, "references, refcounts of this image end at 255"},
	}
	return list
}

func fill(p []byte, v byte) {
	for i := range p {
		p[i] = v
	}
}

func (l *liar) image(t testing.TB) *forge {
	f := seed(t, l.seed)
	l.edit(f)
	return f
}

// Whatever refcounts say, no table is overwritten, and what can't be done is
// refused.
func TestWritesBesideWrongRefcounts(t *testing.T) {
	for _, l := range liars() {
		t.Run(l.name, func(t *testing.T) {
			f := l.image(t)
			file := f.file()
			img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
			if err != nil {
				refused(t, "opening", err, block.ErrCorrupt, "")
				return
			}
			cs := f.cluster()
			var errs error
			within(t, "writing", func() {
				for c := int64(seedHole); c < seedClusters; c++ {
					_, err := img.WriteAt(bytes.Repeat([]byte{0xdd}, int(cs)), c*cs)
					errs = errors.Join(errs, err, img.Discard(2*cs, cs), img.Flush())
				}
				errs = errors.Join(errs, img.Close())
			})
			if errs != nil && !errors.Is(errs, block.ErrCorrupt) {
				t.Errorf("%v is no word of corruption", errs)
			}
			a := attackRun{t: t, f: f, name: "writing"}
			a.untouchedHeader(&forge{contentOf(t, file)})
			if _, err := qcow2.Open(file.Reopen(), nil); err != nil {
				t.Errorf("the image can't be read any more: %v", err)
			}
		})
	}
}

func TestRepair(t *testing.T) {
	for _, l := range liars() {
		t.Run(l.name, func(t *testing.T) {
			l.repair(t)
			l.open(t)
		})
	}
}

// Metadata that something else claims is found whether its refcount tells of that
// or not, and not repaired.
func TestCheckFindsClaimedMetadata(t *testing.T) {
	for count, text := range map[uint64]string{
		1: "ERROR cluster 3 refcount=1 reference=2",
		2: "ERROR cluster 3 is part of the active L1 table and is referred to as something else too",
	} {
		f := seed(t, "v3")
		f.put64(f.l2(0), uint64(f.l1(0))|copiedFlag*(2-count))
		f.setRefcount(f.l1(0)/f.cluster(), count)
		img, err := qcow2.Open(f.file(), &qcow2.OpenOptions{Writable: true})
		must(t, err)
		c, _ := block.As[block.Checker](img)
		var told []string
		o := block.CheckOptions{Report: func(f block.Finding) {
			if f.Severity == block.Corruption {
				told = append(told, f.Text)
			}
		}}
		res, err := c.Check(context.Background(), o)
		must(t, err)
		if res.Corruptions != 1 || len(told) != 1 || told[0] != text {
			t.Errorf("refcount %d: found %q, want %q", count, told, text)
		}
		o.FixCorruptions = true
		if _, err = c.Check(context.Background(), o); err == nil || !strings.Contains(err.Error(), "that can't be repaired") {
			t.Errorf("repairing: %v", err)
		}
		must(t, img.Close())
	}
}

// A refcount table that is not in the file can't be used for writing, and is made
// anew by a repair.
func TestRepairOfALostRefcountTable(t *testing.T) {
	for _, l := range []liar{
		{name: "no clusters", seed: "v3", edit: field32(hReftableClusters, 0)},
		{name: "no offset", seed: "v2", edit: field64(hReftableOffset, 0)},
		{name: "beyond the end", seed: "v3", edit: field64(hReftableOffset, beyond)},
		{name: "longer than the file", seed: "refs8", edit: field32(hReftableClusters, 2048)},
		{name: "with snapshots", seed: "v3", edit: func(f *forge) {
			f.addSnapshots("a", "b")
			f.put32(hReftableClusters, 0)
		}},
	} {
		t.Run(l.name, func(t *testing.T) {
			f := l.image(t)
			file := f.file()
			_, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
			refused(t, "opening", err, block.ErrCorrupt, "")
			img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true, Repair: true})
			must(t, err)
			before := make([]byte, img.Size())
			_, err = img.ReadAt(before, 0)
			must(t, err)
			c, _ := block.As[block.Checker](img)
			res, err := c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
			must(t, err)
			if res.Corruptions == 0 || res.CorruptionsFixed != res.Corruptions {
				t.Errorf("repaired: %+v", res)
			}
			must(t, img.Close())
			img, err = qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
			must(t, err)
			l.use(t, f, img, before)
			byQEMU(t, file, before)
		})
	}
}

// repair repairs an image and uses it.
func (l *liar) repair(t *testing.T) {
	f := l.image(t)
	file := f.file()
	img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
	if err != nil && l.refused != "" {
		return // a broken refcount table is found when it is opened
	}
	must(t, err)
	before := make([]byte, img.Size())
	_, readable := img.ReadAt(before, 0)
	c, _ := block.As[block.Checker](img)
	var res block.CheckResult
	within(t, "repairing", func() {
		res, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	})
	all := err == nil && res.Errors == 0 && res.CorruptionsFixed == res.Corruptions && res.LeaksFixed == res.Leaks
	if all != (l.refused == "") {
		t.Fatalf("repaired: %+v, %v", res, err)
	}
	if !all {
		_ = img.Close()
		return
	}
	after := make([]byte, img.Size())
	if _, err := img.ReadAt(after, 0); (err == nil) != (readable == nil) || !bytes.Equal(before, after) {
		t.Errorf("the disk is not what it was: %v", err)
	}
	must(t, checkNoCorruption(img, true))
	l.use(t, f, img, before)
	left, err := qcow2.Open(file.Reopen(), nil)
	must(t, err)
	must(t, checkNoCorruption(left, true))
	byQEMU(t, file, before)
}

// use writes here and there; want follows.
func (l *liar) use(t *testing.T, f *forge, img *block.Image, want []byte) {
	cs := f.cluster()
	for c := range int64(seedClusters) {
		p := bytes.Repeat([]byte{byte(c + 1)}, int(cs/2))
		_, err := img.WriteAt(p, c*cs)
		must(t, err)
		copy(want[c*cs:], p)
	}
	must(t, img.Discard(2*cs, cs))
	clear(want[2*cs : 3*cs])
	got := make([]byte, len(want))
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the disk does not hold what was written: %v", err)
	}
	must(t, img.Close())
}

// byQEMU has QEMU check and read an image.
func byQEMU(t *testing.T, f *storage.Memory, want []byte) {
	t.Helper()
	qemu.Need(t, "qemu-img")
	dir := t.TempDir()
	path, plain := filepath.Join(dir, "image"), filepath.Join(dir, "raw")
	must(t, os.WriteFile(path, contentOf(t, f), 0o666))
	must(t, os.WriteFile(plain, want, 0o666))
	qemu.Check(t, path, "qcow2")
	qemu.Compare(t, path, "qcow2", plain, "raw")
}

// open opens the image as one that was not closed.
func (l *liar) open(t *testing.T) {
	f := l.image(t)
	if !f.v3() {
		return
	}
	f.or64(hIncompat, bitDirty)
	file := f.file()
	img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
	if l.refused != "" {
		if err == nil || !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, block.ErrNoSpace) {
			t.Errorf("opening: %v", err)
		}
		if !bytes.Equal(contentOf(t, file), f.b) {
			t.Error("the image did not open, and has changed")
		}
		return
	}
	must(t, err)
	must(t, checkNoCorruption(img, true))
	must(t, img.Close())
	if now := (&forge{contentOf(t, file)}); now.u64(hIncompat)&bitDirty != 0 {
		t.Error("still marked as not closed")
	}
}

// What one reference fewer or more does to flags and data is seen by all.
func TestRepairSeparatesSharedClusters(t *testing.T) {
	f := seed(t, "v3")
	f.put64(f.l2(f.cluster()), f.u64(f.l2(0)))
	file := f.file()
	img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	c, _ := block.As[block.Checker](img)
	_, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	must(t, err)
	p := bytes.Repeat([]byte{0xee}, 100)
	_, err = img.WriteAt(p, 0)
	must(t, err)
	got := make([]byte, 100)
	if _, err := img.ReadAt(got, f.cluster()); err != nil || !bytes.Equal(got, seedData(0, 100)) {
		t.Errorf("the other reads as %x: %v", got, err)
	}
	must(t, img.Close())
}

// Space that an entry uses although it counts as free is not handed out once
// the image has been checked and repaired; before, nobody can know.
func TestRepairKeepsWhatIsUsed(t *testing.T) {
	f := seed(t, "512")
	for c := range int64(4) {
		f.setRefcount(f.dataAt(c*f.cluster())/f.cluster(), 0)
	}
	img, err := qcow2.Open(f.file(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	c, _ := block.As[block.Checker](img)
	res, err := c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
	if err != nil || res.CorruptionsFixed != 4 {
		t.Fatalf("repaired: %+v, %v", res, err)
	}
	_, err = img.WriteAt(bytes.Repeat([]byte{0xdd}, 6*512), seedHole*512)
	must(t, err)
	got := make([]byte, 4*512)
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, seedData(0, 4*512)) {
		t.Errorf("what was used has been overwritten: %v", err)
	}
	must(t, img.Close())
}

// An image that was not closed, or is marked corrupt, can be opened to be
// repaired and for nothing else. The marks go when nothing is wrong any more.
func TestOpenForRepair(t *testing.T) {
	for _, l := range liars() {
		f := l.image(t)
		if !f.v3() {
			continue
		}
		f.put64(hIncompat, f.u64(hIncompat)|bitDirty|bitCorrupt)
		file := f.file()
		img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true, Repair: true})
		if err != nil && l.refused != "" {
			continue // a broken refcount table is found when it is opened
		}
		must(t, err)
		if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("%s: written: %v", l.name, err)
		}
		c, _ := block.As[block.Checker](img)
		if _, err := c.Check(context.Background(), block.CheckOptions{}); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
		if got := (&forge{contentOf(t, file)}).u64(hIncompat); got != f.u64(hIncompat) {
			t.Errorf("%s: features %#x became %#x when nothing was repaired", l.name, f.u64(hIncompat), got)
		}
		if _, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true}); l.refused == "" {
			must(t, err)
		}
		must(t, img.Close())
		marked := (&forge{contentOf(t, file)}).u64(hIncompat)&(bitDirty|bitCorrupt) != 0
		if marked != (l.refused != "") {
			t.Errorf("%s: marked is %v after the repair", l.name, marked)
		}
	}
}

// onSwitch is told of the moment at which the header is about to name another
// refcount table.
type onSwitch struct {
	block.File
	f func()
}

func (s *onSwitch) WriteAt(p []byte, off int64) (int, error) {
	if off == hReftableOffset {
		s.f()
	}
	return s.File.WriteAt(p, off)
}

// Refcount structures made anew lie beside those that the header still names,
// also where these are the last thing in the file.
func TestRebuildBesideOldRefcounts(t *testing.T) {
	f := seed(t, "v3")
	for range 3 {
		data := f.dataAt(0)
		f.setRefcount(data/f.cluster(), 0)
		old, at := f.u64(hReftableOffset), f.refblock(0)
		file, switched := f.file(), false
		img, err := qcow2.Open(&onSwitch{file.Reopen(), func() {
			switched = true
			now := contentOf(t, file)
			if table := int64(old); !bytes.Equal(now[table:table+f.cluster()], f.b[table:table+f.cluster()]) || !bytes.Equal(now[at:at+f.cluster()], f.b[at:at+f.cluster()]) {
				t.Error("the refcounts in use were written to")
			}
		}}, &qcow2.OpenOptions{Writable: true, Repair: true})
		must(t, err)
		c, _ := block.As[block.Checker](img)
		_, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
		must(t, err)
		must(t, img.Close())
		f = &forge{contentOf(t, file)}
		if !switched || f.u64(hReftableOffset) == old {
			t.Fatal("the refcounts were not made anew")
		}
	}
}

// A zero cluster keeps its zeros when the space that it has set aside can't be
// where it is said to be.
func TestRepairOfMisplacedZeros(t *testing.T) {
	for _, s := range []struct {
		seed string
		edit func(f *forge)
	}{
		{"v3", func(f *forge) { f.or64(f.l2(0), 512|1) }},
		{"sub", func(f *forge) { f.or64(f.l2(0), 512); f.put64(f.l2(0)+8, 0xffffffff<<32) }},
	} {
		f := seed(t, s.seed)
		s.edit(f)
		file := f.file()
		img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
		must(t, err)
		c, _ := block.As[block.Checker](img)
		res, err := c.Check(context.Background(), block.CheckOptions{FixLeaks: true})
		if err != nil || res.Corruptions == 0 || res.CorruptionsFixed != 0 {
			t.Errorf("%s, leaks only: %+v, %v", s.seed, res, err)
		}
		res, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true, FixCorruptions: true})
		if err != nil || res.Corruptions == 0 || res.CorruptionsFixed != res.Corruptions || res.LeaksFixed != res.Leaks {
			t.Errorf("%s: %+v, %v", s.seed, res, err)
		}
		must(t, checkNoCorruption(img, true))
		got := make([]byte, f.cluster())
		if _, err := img.ReadAt(got, 0); err != nil || !zero.Is(got) {
			t.Errorf("%s: the cluster does not read as zero: %v", s.seed, err)
		}
		must(t, img.Close())
	}
}
