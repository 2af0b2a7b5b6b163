package diskimg

// This file is the driver quorum: several files that are to hold the same, of
// which a read believes what enough of them agree on (QEMU QMP reference,
// BlockdevOptionsQuorum). It is for reading only.

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strconv"

	"github.com/diskimg/diskimg/block"
)

// Quorum is a disk that several files hold.
type Quorum struct {
	Children []Target
	// Threshold is how many children have to agree on what is read, at least 1.
	Threshold int
	// First has the first child that can be read be believed, and the others
	// not be read.
	First bool

	name string // that of the node
}

const quorumName = "quorum"

func (t *Target) takeQuorum(o nodeOptions, called *title) (err error) {
	q := &Quorum{}
	t.Quorum = q
	if q.Children, err = o.list("children"); err != nil {
		return err
	}
	var titles []any
	for _, child := range q.Children {
		titles = append(titles, child.title.full)
	}
	called.full["children"] = titles
	q.name = called.name(quorumName)
	if len(q.Children) == 0 {
		return block.Invalidf("Number of provided children must be 1 or more")
	}
	if err := q.takeThreshold(o); err != nil {
		return err
	}
	blkverify, rewrite := switches[o.text("blkverify")], switches[o.text("rewrite-corrupted")]
	if err := o.switches("blkverify", "rewrite-corrupted"); err != nil {
		return err
	}
	pattern := o.take("read-pattern")
	switch q.First = pattern == "fifo"; {
	case pattern != "" && pattern != "fifo" && pattern != quorumName:
		return block.Invalidf("Please set read-pattern as fifo or quorum")
	case blkverify && (len(q.Children) != 2 || q.Threshold != 2):
		return block.Invalidf("blkverify=on can only be set if there are exactly two files and vote-threshold is 2")
	case blkverify && rewrite:
		return block.Invalidf("rewrite-corrupted=on cannot be used with blkverify=on")
	case rewrite:
		return block.Errorf(block.ErrReadOnly, "Block node is read-only")
	}
	return nil
}

func (q *Quorum) takeThreshold(o nodeOptions) (err error) {
	if o.given("vote-threshold") {
		q.Threshold, err = strconv.Atoi(o.take("vote-threshold"))
	}
	switch {
	case err != nil:
		return block.Invalidf("Parameter 'vote-threshold' expects a number")
	case q.Threshold < 1:
		return block.Invalidf("Parameter 'vote-threshold' expects a value >= 1")
	case q.Threshold > len(q.Children):
		return block.Invalidf("threshold may not exceed children count")
	}
	return nil
}

// list takes the options of children that are numbered from 0 on.
func (o nodeOptions) list(role string) ([]Target, error) {
	all := o.child(role)
	var list []Target
	for n := 0; len(all) > 0; n++ {
		number := strconv.Itoa(n)
		own := all.child(number)
		if name, refers := all.name(number); refers {
			return nil, missingChild(role, nodeOptions{role: name})
		}
		if own == nil {
			return nil, block.Invalidf("Option %s is not a valid array", role)
		}
		t, err := parseNode(own, "")
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// scattered reports whether the file of t has no directory in which others
// could be looked for.
func (t *Target) scattered() bool { return t.Quorum != nil || t.File != nil && t.File.scattered() }

// errScattered is why a file that an image names can't be found.
var errScattered = block.Errorf(block.ErrInvalid, "Cannot generate a base directory for quorum nodes")

// needsDirectory reports whether a name means nothing without a directory.
func needsDirectory(name string) bool {
	protocol, _ := cutProtocol(name)
	return name != "" && protocol == "" && !filepath.IsAbs(name)
}

// quorum opens all children of a quorum.
func (c *chain) quorum(q *Quorum, o *OpenOptions) (source, error) {
	if o.Writable {
		return source{}, block.Unsupportedf("the driver quorum is supported for reading only")
	}
	f := &votes{name: q.name, threshold: q.Threshold, first: q.First}
	for _, child := range q.Children {
		file, err := c.childFile(child, o)
		if err != nil {
			return source{}, errors.Join(err, f.Close())
		}
		f.children = append(f.children, file)
	}
	if _, err := f.Size(); err != nil {
		return source{}, errors.Join(err, f.Close())
	}
	return source{file: f}, nil
}

// childFile opens a node that is the file of another one.
func (c *chain) childFile(t Target, o *OpenOptions) (block.File, error) {
	if isProtocol(t.driver) {
		return c.dataSource(t, o)
	}
	s, err := c.imageAsFile(Target{File: &t}, o)
	return s.file, err
}

// votes is the file that several children hold.
type votes struct {
	name      string
	children  []block.File
	threshold int
	first     bool
}

// ReadAt reads all children, and believes what as many as the threshold read.
func (f *votes) ReadAt(p []byte, off int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	n := max(0, min(int64(len(p)), size-off))
	if err := f.vote(p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// ballot is what some children have read.
type ballot struct {
	b     []byte
	votes int
}

func (f *votes) vote(p []byte, off int64) error {
	var box []ballot
	var errs []error
	for _, child := range f.children {
		b := make([]byte, len(p))
		if err := block.ReadFull(child, b, off); err != nil {
			errs = append(errs, err)
			continue
		}
		i := 0
		for i < len(box) && !bytes.Equal(box[i].b, b) {
			i++
		}
		if i == len(box) {
			box = append(box, ballot{b: b})
		}
		if box[i].votes++; f.first {
			break
		}
	}
	best := ballot{}
	for _, x := range box {
		if x.votes > best.votes {
			best = x
		}
	}
	if best.votes == 0 || best.votes < f.threshold && !f.first {
		return errors.Join(append([]error{block.Corruptf("no %d of %d children of the quorum agree on %d bytes at %#x",
			f.threshold, len(f.children), len(p), off)}, errs...)...)
	}
	copy(p, best.b)
	return nil
}

// Size returns the size that all children have.
func (f *votes) Size() (int64, error) {
	var size int64
	for i, child := range f.children {
		n, err := child.Size()
		switch {
		case err != nil:
			return 0, err
		case i > 0 && n != size:
			return 0, block.Corruptf("children of the quorum have %d and %d bytes", size, n)
		}
		size = n
	}
	return size, nil
}

// NextData implements block.HoleFinder: a hole is where all children have one.
func (f *votes) NextData(off int64) (start, end int64, err error) {
	for i, child := range f.children {
		from, to, err := block.NextData(child, off)
		if err != nil {
			return 0, 0, err
		}
		if i == 0 || from < start {
			start, end = from, to
		}
	}
	return start, end, nil
}

// AllocatedSize is that of all children together.
func (f *votes) AllocatedSize() (total int64, err error) {
	for _, child := range f.children {
		n, err := block.AllocatedSize(child)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// Invalidate implements block.Invalidator.
func (f *votes) Invalidate() error {
	var errs []error
	for _, child := range f.children {
		errs = append(errs, block.Invalidate(child))
	}
	return errors.Join(errs...)
}

// Name is that of the node, in QEMU's syntax.
func (f *votes) Name() string { return f.name }

// WriteAt is never called: quorums are not opened for writing.
func (f *votes) WriteAt([]byte, int64) (int, error) { return 0, block.ErrReadOnly }

// Truncate is as WriteAt.
func (f *votes) Truncate(int64) error { return block.ErrReadOnly }

// Sync has nothing to do.
func (f *votes) Sync() error { return nil }

// Close closes all children.
func (f *votes) Close() error {
	var errs []error
	for _, child := range f.children {
		errs = append(errs, child.Close())
	}
	return errors.Join(errs...)
}
