package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
)

// Tables that lead a write to where it would do harm: into other tables, into
// the header, or into clusters that count as free.

// A victim is a structure that an entry is made to lead to.
var victims = map[string]func(f *forge) int64{
	"header":         func(f *forge) int64 { return 0 },
	"L1 table":       func(f *forge) int64 { return f.l1(0) },
	"L2 table":       func(f *forge) int64 { return f.table(0) },
	"refcount table": func(f *forge) int64 { return f.reftable(0) },
	"refcount block": func(f *forge) int64 { return f.refblock(0) },
	"snapshot table": func(f *forge) int64 { return int64(f.u64(hSnapshotsOffset)) },
	"snapshot L1":    func(f *forge) int64 { return int64(f.u64(int64(f.u64(hSnapshotsOffset)))) },
}

// Entries that lead there. Offset 0 with no flag would be no entry.
var leading = map[string]func(f *forge, victim int64) uint64{
	"copied":     func(f *forge, v int64) uint64 { return uint64(v) | copiedFlag },
	"shared":     func(f *forge, v int64) uint64 { return uint64(v) },
	"zero":       func(f *forge, v int64) uint64 { return uint64(v) | copiedFlag | zeroFlag },
	"compressed": func(f *forge, v int64) uint64 { return uint64(v) | compressedFlag },
	"compressed before": func(f *forge, v int64) uint64 {
		return uint64(max(0, v-512)) | compressedFlag | 1<<(70-f.u32(hClusterBits)) // two sectors
	},
}

// Operations on the guest cluster whose entry leads there.
var attacks = map[string]func(img *block.Image, cs int64) error{
	"write": func(img *block.Image, cs int64) error {
		_, err := img.WriteAt(bytes.Repeat([]byte{0xee}, int(cs)), 0)
		return err
	},
	"write a part": func(img *block.Image, cs int64) error {
		_, err := img.WriteAt(bytes.Repeat([]byte{0xee}, 100), cs/2)
		return err
	},
	"write across": func(img *block.Image, cs int64) error {
		_, err := img.WriteAt(bytes.Repeat([]byte{0xee}, int(cs)), cs/2)
		return err
	},
	"write zeroes": func(img *block.Image, cs int64) error { return img.WriteZeroes(0, cs, 0) },
	"unmap":        func(img *block.Image, cs int64) error { return img.WriteZeroes(0, cs, block.MayUnmap) },
	"discard":      func(img *block.Image, cs int64) error { return img.Discard(0, cs) },
	"zero, then write": func(img *block.Image, cs int64) error {
		err := img.WriteZeroes(0, cs, 0)
		_, werr := img.WriteAt(bytes.Repeat([]byte{0xee}, int(cs)), 0)
		return errors.Join(err, werr)
	},
	"write compressed": func(img *block.Image, cs int64) error {
		return img.WriteCompressed(bytes.Repeat([]byte{0xee}, int(cs)), 0)
	},
}

func TestEntryLeadsToMetadata(t *testing.T) {
	for _, kind := range []string{"v3", "v2", "512", "sub"} {
		for victim, find := range victims {
			for form, entry := range leading {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, victim, form), func(t *testing.T) {
					f := seed(t, kind)
					f.addSnapshots("a")
					f.unshare()
					e := entry(f, find(f))
					if e&^(copiedFlag|zeroFlag) == 0 && e&copiedFlag == 0 || !f.v3() && e&zeroFlag != 0 {
						t.Skip("no such entry")
					}
					f.put64(f.l2(0), e)
					for name, attack := range attacks {
						try := attackRun{t: t, f: f, name: name}
						try.run(attack)
					}
				})
			}
		}
	}
}

// unshare makes the disk's L2 table its own again, after a snapshot was taken.
func (f *forge) unshare() {
	old := f.table(0)
	table := f.grow(1)
	copy(f.b[table:], f.b[old:old+f.cluster()])
	f.put64(f.l1(0), uint64(table)|copiedFlag)
	f.setRefcount(old/f.cluster(), 1)
}

// attackRun is one operation on an image that is made for it.
type attackRun struct {
	t    *testing.T
	f    *forge
	name string
}

func (a *attackRun) run(attack func(img *block.Image, cs int64) error) {
	file := a.f.file()
	img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
	if err != nil {
		a.t.Fatalf("%s: %v", a.name, err)
	}
	cs := a.f.cluster()
	rest, restErr := a.rest(img)
	if restErr != nil {
		a.t.Fatalf("%s: %v", a.name, restErr)
	}
	var errs error
	within(a.t, a.name, func() {
		errs = errors.Join(attack(img, cs), img.Flush(), img.Flush())
		for c := int64(seedHole); c < seedClusters; c++ { // take what has become free
			_, err := img.WriteAt(bytes.Repeat([]byte{0xdd}, int(cs)), c*cs)
			errs = errors.Join(errs, err, img.Flush())
		}
		if now, err := a.rest(img); err != nil || !bytes.Equal(now, rest) {
			a.t.Errorf("%s: the rest of the disk can't be read any more: %v", a.name, err)
		}
		errs = errors.Join(errs, img.Close())
	})
	after := &forge{contentOf(a.t, file)}
	a.untouched(after, errs)
	a.opensAfter(after, rest, errs)
}

// rest reads the clusters that the attack leaves alone and that are in use.
func (a *attackRun) rest(img *block.Image) ([]byte, error) {
	cs := a.f.cluster()
	p := make([]byte, (seedHole-2)*cs)
	_, err := img.ReadAt(p, 2*cs)
	return p, err
}

// untouched holds the header and the tables against what they were.
func (a *attackRun) untouched(after *forge, errs error) {
	a.untouchedHeader(after)
	if table := int64(a.f.u64(hSnapshotsOffset)); !bytes.Equal(a.f.b[table:table+a.f.cluster()], after.b[table:table+a.f.cluster()]) {
		a.t.Errorf("%s: the snapshot table was written to", a.name)
	}
	if l1 := int64(a.f.u64(int64(a.f.u64(hSnapshotsOffset)))); !bytes.Equal(a.f.b[l1:l1+a.f.cluster()], after.b[l1:l1+a.f.cluster()]) {
		a.t.Errorf("%s: the snapshot's L1 table was written to", a.name)
	}
	if bytes.Contains(a.tables(after), bytes.Repeat([]byte{0xee}, 16)) {
		a.t.Errorf("%s: guest data was written over a table", a.name)
	}
	if errs != nil && !errors.Is(errs, block.ErrCorrupt) {
		a.t.Errorf("%s: %v is no word of corruption", a.name, errs)
	}
	if a.marks(errs) && after.u64(hIncompat)&bitCorrupt == 0 {
		a.t.Errorf("%s: not marked corrupt after %v", a.name, errs)
	}
}

func (a *attackRun) untouchedHeader(after *forge) {
	was, now := a.f.b[:a.f.cluster()], bytes.Clone(after.b[:a.f.cluster()])
	if a.f.v3() {
		copy(now[hIncompat:], was[hIncompat:hIncompat+8])
	}
	if !bytes.Equal(was, now) {
		a.t.Errorf("%s: the header was written to", a.name)
	}
}

// marks reports whether an image is marked corrupt after these errors: it has a
// place for it, and what is wrong is not only the guest's data.
func (a *attackRun) marks(errs error) bool {
	return errs != nil && a.f.v3() && (errors.Is(errs, block.ErrBroken) || !strings.Contains(errs.Error(), "compressed cluster at"))
}

func (a *attackRun) tables(f *forge) (b []byte) {
	was := a.f
	for _, at := range []int64{0, was.l1(0), was.table(0), was.reftable(0), was.refblock(0)} {
		b = append(b, f.b[at/was.cluster()*was.cluster():][:was.cluster()]...)
	}
	return b
}

// opensAfter opens what is left.
func (a *attackRun) opensAfter(after *forge, rest []byte, errs error) {
	img, err := qcow2.Open(after.file(), nil)
	if err != nil {
		a.t.Errorf("%s: the image can't be read any more: %v", a.name, err)
		return
	}
	if now, err := a.rest(img); err != nil || !bytes.Equal(now, rest) {
		a.t.Errorf("%s: the rest of the disk has changed: %v", a.name, err)
	}
	if !a.marks(errs) {
		return
	}
	_, err = qcow2.Open(after.file(), &qcow2.OpenOptions{Writable: true})
	refused(a.t, a.name+", opening it again", err, block.ErrCorrupt, "Image is corrupt; cannot be opened read/write")
}

// What leads into metadata by a write in place is refused, every time and not
// only in the end.
func TestWriteIntoMetadataIsRefused(t *testing.T) {
	for victim, find := range victims {
		if victim == "header" {
			continue // offset 0 is none
		}
		f := seed(t, "v3")
		f.addSnapshots("a")
		f.unshare()
		f.put64(f.l2(0), uint64(find(f))|copiedFlag)
		img, err := qcow2.Open(f.file(), &qcow2.OpenOptions{Writable: true})
		must(t, err)
		if _, err := img.ReadAt(make([]byte, 512), 0); err != nil {
			t.Errorf("%s: reading: %v", victim, err)
		}
		_, err = img.WriteAt([]byte{1}, 0)
		refused(t, victim, err, block.ErrCorrupt, fmt.Sprintf("overlaps with %s", metaName(victim)))
		for _, write := range []func() error{
			func() error { _, err := img.WriteAt([]byte{1}, f.cluster()); return err },
			func() error { return img.WriteZeroes(f.cluster(), 512, 0) },
			func() error { return img.Discard(f.cluster(), f.cluster()) },
			func() error { return img.Flush() },
		} {
			refused(t, victim+", then", write(), block.ErrBroken, "image is marked corrupt and can no longer be written")
		}
		if _, err := img.ReadAt(make([]byte, 512), 4096); err != nil {
			t.Errorf("%s: reading after: %v", victim, err)
		}
	}
}

func metaName(victim string) string {
	switch victim {
	case "header":
		return "qcow2_header"
	case "snapshot L1":
		return "inactive L1 table"
	case "refcount table", "refcount block", "snapshot table":
		return victim
	}
	return "active " + victim
}

// An L1 entry that leads to a structure that is no L2 table: nothing is written
// to it as if it were one, and it is not given up when a table takes its place.
func TestL1LeadsToMetadata(t *testing.T) {
	for _, kind := range []string{"v3", "512", "sub"} {
		for victim, find := range victims {
			for _, flag := range []uint64{copiedFlag, 0} {
				f := seed(t, kind)
				f.put32(hL1Size, 2)
				perTable := int64(f.l2(f.cluster()) - f.l2(0)) // bytes of an entry
				span := f.cluster() / perTable * f.cluster()
				f.put64(hSize, uint64(2*span))
				f.addSnapshots("a")
				f.unshare()
				to := find(f)
				if to == 0 {
					continue // says that there is no table
				}
				f.put64(f.l1(1), uint64(to/f.cluster()*f.cluster())|flag)
				for name, attack := range attacks {
					try := attackRun{t: t, f: f, name: fmt.Sprintf("%s, %s, %#x, %s", kind, victim, flag, name)}
					try.run(func(img *block.Image, cs int64) error {
						return attack(shifted(img, span), cs)
					})
				}
			}
		}
	}
}

// shifted is an image that begins at off of another.
func shifted(img *block.Image, off int64) *block.Image {
	return block.NewImage(&shiftedLayer{img, off}, block.ImageOptions{Writable: true})
}

type shiftedLayer struct {
	img *block.Image
	off int64
}

func (s *shiftedLayer) Size() int64 { return s.img.Size() - s.off }
func (s *shiftedLayer) Resolve(off, n int64) (block.Extent, error) {
	return block.Extent{}, io.ErrUnexpectedEOF
}
func (s *shiftedLayer) ReadSpecial(block.Extent, []byte, int64) error { return io.ErrUnexpectedEOF }
func (s *shiftedLayer) WriteAt(p []byte, off int64) error {
	_, err := s.img.WriteAt(p, s.off+off)
	return err
}
func (s *shiftedLayer) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	return s.img.WriteZeroes(s.off+off, n, flags)
}
func (s *shiftedLayer) Discard(off, n int64) error { return s.img.Discard(s.off+off, n) }
func (s *shiftedLayer) WriteCompressed(p []byte, off int64) error {
	return s.img.WriteCompressed(p, s.off+off)
}
func (s *shiftedLayer) Flush() error { return s.img.Flush() }
func (s *shiftedLayer) Close() error { return nil }
