package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/internal/zero"
)

// session is one execution of a sequence, in a folder of its own.
type session struct {
	plan
	dir  string
	name string // of the image; "" is disk
	seq  Sequence
	disk *Disk
	used map[int64]bool // clusters to which something was done

	qemu qemuTurn
}

func (s *session) path() string {
	if s.name != "" {
		return filepath.Join(s.dir, s.name)
	}
	return filepath.Join(s.dir, "disk")
}

func (s *session) basePath() string { return filepath.Join(s.dir, "base") }

// create makes the image and what lies below it.
func (s *session) create() error {
	if err := s.begin(); err != nil {
		return err
	}
	o := blocktest.CreateOptions{Size: s.seq.Size, Options: s.seq.Options}
	if s.seq.Base >= 0 {
		o.Backing = s.basePath()
	}
	if err := s.format.Create(s.path(), o); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return nil
}

// begin makes the backing images, if there are none yet, and the model.
func (s *session) begin() error {
	var content []byte
	if s.seq.Base >= 0 {
		content = baseContent(s.seq.Base, s.seq.Cluster)
		if _, err := os.Stat(s.basePath()); errors.Is(err, os.ErrNotExist) {
			if err := s.createBase(content); err != nil {
				return fmt.Errorf("backing image: %w", err)
			}
		}
	}
	s.disk, s.used = NewDisk(s.seq.Size, content), map[int64]bool{}
	return nil
}

// baseID is the number that the content of backing images goes by.
const baseID = 60000

// baseContent fills two of three clusters, one of them with noise.
func baseContent(size, cluster int64) []byte {
	p := make([]byte, size)
	for off, i := int64(0), 0; off < size; off, i = off+cluster, i+1 {
		switch part := p[off:min(off+cluster, size)]; i % 3 {
		case 0:
			stamp.Fill(part, off, baseID)
		case 1:
			stamp.Noise(part, off, baseID)
		}
	}
	return p
}

// depth returns how many images lie below, none of which is more than the others.
func (s *Sequence) depth() int64 { return 1 + s.Seed&3 }

// createBase makes the images below: a chain, in which each has its share of the
// clusters, and the ones below it something else there.
func (s *session) createBase(content []byte) error {
	below := ""
	for level := s.seq.depth() - 1; level >= 0; level-- {
		path := s.basePath()
		if level > 0 {
			path += fmt.Sprint(level)
		}
		if err := s.createShare(path, below, level, content); err != nil {
			return err
		}
		below = path
	}
	return nil
}

// createShare makes one image of the chain.
func (s *session) createShare(path, below string, level int64, content []byte) error {
	if err := s.format.Create(path, blocktest.CreateOptions{Size: s.seq.Base, Backing: below}); err != nil {
		return err
	}
	img, err := s.format.Open(path, blocktest.OpenOptions{Writable: true})
	if err != nil {
		return err
	}
	for off := int64(0); err == nil && off < s.seq.Base; off += s.seq.Cluster {
		part := content[off:min(off+s.seq.Cluster, s.seq.Base)]
		switch owner := off / s.seq.Cluster % s.seq.depth(); {
		case level < owner:
		case level > owner:
			_, err = img.WriteAt(bytes.Repeat([]byte{0xdd}, len(part)), off)
		case !zero.Is(part):
			_, err = img.WriteAt(part, off)
		case below != "":
			err = img.WriteZeroes(off, int64(len(part)), 0)
		}
	}
	return errors.Join(err, img.Close())
}

// segments cuts the operations where the image is reopened.
func (s *session) segments() (list [][]Op) {
	var now []Op
	for _, o := range s.seq.Ops {
		if o.Action == Reopen {
			list, now = append(list, now), nil
			continue
		}
		now = append(now, o)
	}
	return append(list, now)
}

// play opens the image, does operations and closes it.
func (s *session) play(ops []Op) (err error) {
	defer catch(&err)
	img, err := s.format.Open(s.path(), blocktest.OpenOptions{Writable: true})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	for _, o := range ops {
		if err := s.do(img, o); err != nil {
			img.Close() // lets go of the files; what it says matters no more
			return fmt.Errorf("operation %s: %w", o, err)
		}
	}
	if err := img.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// catch turns a panic into an error.
func catch(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// do does one operation to the image and to the model. One that no longer fits
// on the disk, because the sequence has been cut, is left out.
func (s *session) do(img *block.Image, o Op) error {
	a, ok := s.action(o.Action)
	if !ok {
		return fmt.Errorf("no action %q", o.Action)
	}
	if o.Off+o.Len > s.disk.Size() {
		return nil
	}
	if err := a.Do(img, s.disk, o); err != nil {
		return err
	}
	s.apply(a, o)
	return nil
}

// apply does an operation to the model.
func (s *session) apply(a Action, o Op) {
	if a.Model == nil {
		return
	}
	a.Model(s.disk, o)
	for c := range s.clusters(o) {
		s.used[c] = true
	}
}

// clusters yields those that an operation touches.
func (s *session) clusters(o Op) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for c := o.Off / s.seq.Cluster; c*s.seq.Cluster < o.Off+o.Len && yield(c); c++ {
		}
	}
}

// fresh reports whether nothing has been done where an operation goes.
func (s *session) fresh(o Op) bool {
	if mode := s.seq.Options["preallocation"]; mode != "" && mode != "off" {
		return false
	}
	for c := range s.clusters(o) {
		if s.used[c] {
			return false
		}
	}
	return true
}

// inspect opens the closed image for reading and looks at everything: content,
// extents, check.
func (s *session) inspect() (err error) {
	defer catch(&err)
	img, err := s.format.Open(s.path(), blocktest.OpenOptions{})
	if err != nil {
		return fmt.Errorf("open for reading: %w", err)
	}
	defer img.Close()
	if img.Size() != s.disk.Size() {
		return fmt.Errorf("size is %d, want %d", img.Size(), s.disk.Size())
	}
	got, err := readAt(img, 0, img.Size())
	if err != nil {
		return err
	}
	if err := s.disk.Settle(got, 0); err != nil {
		return fmt.Errorf("after closing: %w", err)
	}
	if err := blocktest.CheckExtents(img, got); err != nil {
		return err
	}
	if err := check(img); err != nil {
		return err
	}
	if s.format.Check != nil {
		return s.format.Check(s.path())
	}
	return nil
}

// check demands that the image's own check finds nothing at all.
func check(img *block.Image) error {
	c, ok := block.As[block.Checker](img)
	if !ok {
		return nil
	}
	var findings []string
	r, err := c.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) { findings = append(findings, f.Text) }})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if r.Corruptions+r.Leaks+r.Errors > 0 {
		return fmt.Errorf("check finds %d corruptions, %d leaks, %d errors:\n%s",
			r.Corruptions, r.Leaks, r.Errors, strings.Join(findings, "\n"))
	}
	return nil
}
