package qed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/drill"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// A scenario is a random sequence of operations on a small image, with content
// that tells which operation put it there. The crash and fault tests play
// scenarios and hold what is left against what may be.

const (
	sector      = stamp.SectorSize
	perCluster  = 4096 / sector
	windowSize  = 5 * perCluster // sectors
	firstBaseID = 60_000
)

// window is a part of the disk, in sectors, that operations go to. A disk that
// needs two L2 tables has one window at its start, and one where the second
// table begins.
type window struct{ first, end int }

type scenario struct {
	drill.Drill
	rand    *rand.Rand
	options CreateOptions
	windows []window
	bases   []*storage.Memory // that the image may name, the first at the start
	base    int               // which of them it names, -1: none
	hurt    bool              // the image was not closed, and has an entry that leads nowhere

	kinds []int   // of operations; scenarios differ most in what they leave out
	sizes []int64 // of the disk, before and after it was grown
}

func newScenario(t *testing.T, seed uint64) *scenario {
	s := &scenario{rand: rand.New(rand.NewPCG(seed, 0)), base: -1}
	s.Operation = s.operate
	s.kinds = append(s.rand.Perm(kinds)[:3+s.rand.IntN(kinds-3)], aWrite)
	s.options = CreateOptions{ClusterSize: 4096, TableSize: 1 << s.rand.IntN(2), Size: sector * int64(windowSize-s.rand.IntN(perCluster))}
	s.windows = []window{{0, windowSize}}
	if s.rand.IntN(2) == 0 {
		span := s.options.header().geometry().entries * perCluster
		s.options.Size += (span - 2*perCluster) * sector
		s.windows = append(s.windows, window{int(span) - 2*perCluster, int(span) + windowSize})
	}
	s.sizes = []int64{s.options.Size}
	if s.rand.IntN(2) == 0 {
		s.makeBases(t)
	}
	s.hurt = s.rand.IntN(5) == 0
	s.First = s.firstContent
	return s
}

// makeBases makes backing images: one that is in use from the start, another
// one for later. They may be longer than the disk, or shorter.
func (s *scenario) makeBases(t *testing.T) {
	t.Helper()
	size := s.options.Size + int64(s.rand.IntN(40)-10)*sector
	for i := range 2 {
		m, data := storage.NewMemory(), make([]byte, windowSize*sector)
		for _, w := range s.windows {
			off := int64(w.first) * sector
			stamp.Fill(data, off, uint32(firstBaseID+i))
			if _, err := m.WriteAt(data[:max(0, min(int64(len(data)), size-off))], off); err != nil {
				t.Fatal(err)
			}
		}
		s.bases = append(s.bases, m)
	}
	s.base = 0
	s.options.BackingFile, s.options.BackingFormat = baseName(0), "raw"
}

// baseName is long enough for two of them not to lie in one sector with the
// header.
func baseName(i int) string { return strings.Repeat("base", 75) + fmt.Sprint(i) }

// OpenImage serves the backing images.
func (s *scenario) OpenImage(ref block.Ref) (*block.Image, error) {
	for i, m := range s.bases {
		if ref.Name == baseName(i) && ref.Format == "raw" {
			return raw.Open(m.Reopen(), nil)
		}
	}
	return nil, fmt.Errorf("the image names the backing file %q, %q", ref.Name, ref.Format)
}

// OpenFile refuses.
func (s *scenario) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

func (s *scenario) openOn(f block.File, writable bool) (*block.Image, error) {
	return Open(f, &OpenOptions{Writable: writable, Policy: s, CleanAfter: 24 * time.Hour})
}

// create makes the image, in f.
func (s *scenario) create(f block.File) error { return Create(f, &s.options) }

// damage leaves the image in f as if it had not been closed, with an entry that
// leads out of the file.
func (s *scenario) damage(f func() block.File) error {
	if !s.hurt {
		return nil
	}
	img, err := s.openOn(f(), true)
	if err != nil {
		return err
	}
	op := stamp.Change{First: 0, End: 1 + s.rand.IntN(2*perCluster)}
	if _, err := img.WriteAt(s.Write(op), 0); err != nil {
		return err
	}
	if err := img.Close(); err != nil {
		return err
	}
	s.Note(true)
	l1 := make([]byte, 8)
	if _, err := f().ReadAt(l1, s.options.ClusterSize); err != nil {
		return err
	}
	at := int64(binary.LittleEndian.Uint64(l1)) + 8*int64(2+s.rand.IntN(2)) // in the L2 table
	if s.rand.IntN(4) == 0 {
		at = s.options.ClusterSize + 8 // the second L1 entry
	}
	_, err = f().WriteAt(le64(uint64(s.rand.IntN(1<<30))|1<<40), at)
	if err == nil {
		_, err = f().WriteAt(le64(featureNeedCheck|s.options.header().features), atFeatures)
	}
	return err
}

// Kinds of operations; aWrite stands for all from there on.
const (
	aFlush = iota
	aReopen
	anIdleTime
	aGrowth
	aRebase
	anEmptying
	aZeroing
	anUnmapping
	aDiscard
	aWrite
	kinds = aWrite + 3
)

func (s *scenario) operate() error {
	switch kind := s.kinds[s.rand.IntN(len(s.kinds))]; kind {
	case aFlush:
		err := s.Img.Flush()
		if err == nil {
			s.Note(true)
		}
		return err
	case aReopen:
		return s.Reopen()
	case anIdleTime:
		s.idle()
		return nil
	case aGrowth:
		return s.grow()
	case aRebase:
		return s.rebase()
	case anEmptying:
		return s.makeEmpty()
	default:
		return s.change(kind)
	}
}

// change writes somewhere.
func (s *scenario) change(kind int) error {
	op := s.place()
	off, n := int64(op.First)*sector, int64(op.End-op.First)*sector
	switch kind {
	case aDiscard: // changes nothing
		return s.Img.Discard(off, n)
	case aZeroing, anUnmapping:
		s.Begin(op)
		return s.Img.WriteZeroes(off, n, block.ZeroFlags(kind-aZeroing)*block.MayUnmap)
	}
	_, err := s.Img.WriteAt(s.Write(op), off)
	return err
}

// clipped returns the windows that the disk has now.
func (s *scenario) clipped(img *block.Image) (list []window) {
	for _, w := range s.windows {
		if w.end = min(w.end, int(img.Size()/sector)); w.first < w.end {
			list = append(list, w)
		}
	}
	return list
}

// place returns where the next operation goes: often whole clusters.
func (s *scenario) place() stamp.Change {
	list := s.clipped(s.Img)
	w := list[s.rand.IntN(len(list))]
	op := stamp.Change{First: w.first + s.rand.IntN(w.end-w.first)}
	op.End = op.First + 1 + s.rand.IntN(min(w.end-op.First, 3*perCluster))
	if s.rand.IntN(2) == 0 {
		op.First = op.First / perCluster * perCluster
		op.End = min(w.end, (op.End+perCluster-1)/perCluster*perCluster)
	}
	return op
}

// idle lets so much time pass that the need check bit is cleared.
func (s *scenario) idle() {
	d, _ := block.As[*disk](s.Img)
	d.mu.Lock()
	d.clean.last = time.Time{}
	d.mu.Unlock()
	d.clearLater()
}

// grow makes the disk larger, once.
func (s *scenario) grow() error {
	if len(s.sizes) > 1 {
		return nil
	}
	size := s.sizes[0] + sector*int64(1+s.rand.IntN(3*perCluster))
	s.sizes = append(s.sizes, size)
	resizer, _ := block.As[block.Resizer](s.Img)
	return resizer.Resize(context.Background(), size, block.ResizeOptions{})
}

// rebase writes all that the disk holds into the image, and has it name the
// other backing file, or none.
func (s *scenario) rebase() error {
	if len(s.bases) == 0 {
		return nil
	}
	if err := s.keepAll(); err != nil {
		return err
	}
	name, format, next := "", "", -1
	if s.rand.IntN(3) > 0 {
		next = (s.base + 1) % 2
		name, format = baseName(next), "raw"
	}
	changer, _ := block.As[block.BackingChanger](s.Img)
	if err := changer.ChangeBacking(name, format); err != nil {
		return err
	}
	s.base = next
	s.Note(true)
	return s.Reopen()
}

// makeEmpty has the disk read as its backing image again; nil says nothing.
func (s *scenario) makeEmpty() error {
	below := int64(0)
	if s.base >= 0 {
		below, _ = s.bases[s.base].Size()
	}
	for _, w := range s.clipped(s.Img) {
		for at := w.first; at < w.end; at++ {
			op := stamp.Change{First: at, End: at + 1}
			if int64(at)*sector < below {
				op.ID = uint32(firstBaseID + s.base)
			}
			s.Changes = append(s.Changes, op)
		}
	}
	s.Note(false)
	e, _ := block.As[block.Emptier](s.Img)
	err := e.MakeEmpty()
	s.Note(err == nil)
	return err
}

// keepAll writes the clusters of the disk as they are.
func (s *scenario) keepAll() error {
	for _, w := range s.clipped(s.Img) {
		p := make([]byte, (w.end-w.first)*sector)
		if _, err := s.Img.ReadAt(p, int64(w.first)*sector); err != nil {
			return err
		}
		for at := w.first; at < w.end; at++ {
			s.Changes = append(s.Changes, stamp.Change{First: at, End: at + 1, ID: stamp.Sector(p[(at-w.first)*sector:], int64(at)*sector)})
		}
		s.Note(false)
		for len(p) > 0 {
			n := min(len(p), 4096)
			if err := s.keep(p[:n], int64(w.end)*sector-int64(len(p))); err != nil {
				return err
			}
			p = p[n:]
		}
	}
	return nil
}

func (s *scenario) keep(p []byte, off int64) error {
	if zero.Is(p) {
		return s.Img.WriteZeroes(off, int64(len(p)), block.OwnZeroes)
	}
	_, err := s.Img.WriteAt(p, off)
	return err
}

// firstContent returns what a sector holds before all operations.
func (s *scenario) firstContent(at int) uint32 {
	if len(s.bases) > 0 && int64(at)*sector < s.sizes[0] {
		if size, err := s.bases[0].Size(); err == nil && int64(at)*sector < size {
			return firstBaseID
		}
	}
	return 0
}

// checkContent compares each sector with what it may hold.
func (s *scenario) checkContent(img *block.Image, m *stamp.Moment) error {
	if !slices.Contains(s.sizes, img.Size()) {
		return fmt.Errorf("the disk has %d bytes, not one of %d", img.Size(), s.sizes)
	}
	for _, w := range s.clipped(img) {
		if err := m.Check(img.ReadAt, w.first, w.end); err != nil {
			return err
		}
	}
	return nil
}

// checkNoCorruption checks an open image, and names the first things that it
// finds; leaks only if they count.
func checkNoCorruption(img *block.Image, leaksCount bool) error {
	c, _ := block.As[block.Checker](img)
	var found []string
	res, err := c.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) {
		if (f.Severity != block.Leak || leaksCount) && len(found) < 3 {
			found = append(found, f.Text)
		}
	}})
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("check: %+v %q", res, found)
	}
	return err
}

// checkOpen opens the image in f and checks it. An image that is not marked as
// in need of a check has no leaks, if they count. Where it is open for writing and
// known says that the file is as it was, what reading has found is not looked for
// again; nil says nothing.
func (s *scenario) checkOpen(f func() block.File, writable, leaksCount bool, known func() bool, m *stamp.Moment) error {
	b := make([]byte, 8)
	if _, err := f().ReadAt(b, atFeatures); err != nil {
		return err
	}
	marked := binary.LittleEndian.Uint64(b)&featureNeedCheck != 0
	img, err := s.openOn(f(), writable)
	if err != nil {
		return err
	}
	if writable && (marked || known == nil || !known()) || !writable && (!s.hurt || !marked) {
		err = errors.Join(checkNoCorruption(img, leaksCount && !marked), s.checkContent(img, m))
	}
	if err == nil && writable {
		if _, err = img.WriteAt(make([]byte, sector), 0); err == nil {
			err = checkNoCorruption(img, false)
		}
	}
	if err := errors.Join(err, img.Close()); err != nil {
		return fmt.Errorf("writable %v, need check %v: %w", writable, marked, err)
	}
	return nil
}
