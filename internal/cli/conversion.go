package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is one run of the verb convert, after its options have been read:
// open the inputs, make or open the output, copy, and give it its name.

type conversion struct {
	*convertCommand
	sh      *shell
	o       *job.ConvertOptions
	p       *progress
	name    string // of the output
	opened  []*diskimg.Image
	sources []*diskimg.Image // the same, or a snapshot in one
	size    int64            // of all sources
	found   []block.Bitmap   // to be copied
}

func (v *conversion) close() {
	for _, img := range v.opened {
		img.Close()
	}
}

func (v *conversion) openSources(names []string) error {
	for _, name := range names {
		img, err := v.input.open(name, diskimg.OpenOptions{})
		if err != nil {
			return err
		}
		v.opened = append(v.opened, img)
		if img, err = v.sh.snapshotOf(img, &v.snapshot); err != nil {
			return err
		}
		v.sources = append(v.sources, img)
		v.size += img.Size()
	}
	return nil
}

// snapshotChoice tells which internal snapshot -l asks for.
type snapshotChoice struct {
	given    bool
	idOrName string // empty if there are both or either
	id, name *string
	bare     []string // parameters without a value
}

// snapshotOf returns the internal snapshot that is wanted, or if none is the
// image itself.
func (sh *shell) snapshotOf(img *diskimg.Image, wanted *snapshotChoice) (*diskimg.Image, error) {
	if !wanted.given {
		return img, nil
	}
	snapshot, err := wanted.open(img, sh.emulate)
	if err != nil {
		return nil, &sentence.Error{Text: "Failed to load snapshot: " + sentence.Of(err), Err: err}
	}
	return snapshot, nil
}

// open opens the snapshot. Of several that it may be it is the first if that is
// wanted, as qemu-img has it.
func (c *snapshotChoice) open(img *diskimg.Image, first bool) (*diskimg.Image, error) {
	opener, ok := block.As[block.SnapshotOpener](img)
	if !ok {
		return nil, failf("Block format '%s' used by device '' does not support temporarily loading internal snapshots", img.Format())
	}
	list, err := snapshotsOf(img)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(s block.Snapshot) bool { return !c.matches(s) })
	switch {
	case len(list) == 0:
		return nil, failf("Can't find snapshot")
	case len(list) > 1 && !first && c.id == nil && !slices.ContainsFunc(list, func(s block.Snapshot) bool { return s.ID == c.idOrName }):
		return nil, failf("several snapshots have that name; take the ID")
	}
	if i := slices.IndexFunc(list, func(s block.Snapshot) bool { return s.ID == c.idOrName }); i >= 0 {
		list = list[i:]
	}
	return opener.OpenSnapshot(list[0].ID)
}

func (c *snapshotChoice) matches(s block.Snapshot) bool {
	if c.id == nil && c.name == nil {
		return s.ID == c.idOrName || s.Name == c.idOrName
	}
	return (c.id == nil || *c.id == s.ID) && (c.name == nil || *c.name == s.Name)
}

// set reads the argument of -l: an ID or a name, or
// snapshot.id=ID,snapshot.name=NAME.
func (c *snapshotChoice) set(arg string) error {
	*c = snapshotChoice{given: true}
	if !strings.HasPrefix(arg, "snapshot.") {
		c.idOrName = arg
		return nil
	}
	for _, p := range splitOptions(arg) {
		switch p.key {
		case "snapshot.id":
			c.id = &p.value
		case "snapshot.name":
			c.name = &p.value
		default:
			return messages{"Invalid parameter '" + p.key + "'", "Failed in parsing snapshot param '" + arg + "'"}
		}
		if p.bare {
			c.bare = append(c.bare, p.key)
		}
	}
	return nil
}

// warn says of parameters without a value that they should have one.
func (c *snapshotChoice) warn(sh *shell) {
	for _, key := range c.bare {
		sh.warn("short-form boolean option '%s' deprecated\nPlease use %[1]s=on instead", key)
	}
}

// intoExisting copies into an image that is there.
func (v *conversion) intoExisting() error {
	if _, err := v.checkTarget(); err != nil {
		return err
	}
	out := input{imageOpts: v.targetOpts, objects: v.objects}
	if !v.targetOpts {
		out.format = v.target()
	} else if v.outFormat != nil {
		return failf("--image-opts and --format are mutually exclusive")
	}
	if v.targetIsZero && v.backing != nil {
		return errZeroAbove
	}
	if t, is := isInput(v.name, v.targetOpts, v.opened); is {
		return v.sh.refuseInput(t, func(err error) error { return openError(v.name, err) })
	}
	img, err := out.open(v.name, diskimg.OpenOptions{Writable: true, NoSync: v.cache == "unsafe"})
	if err != nil {
		return err
	}
	if v.targetIsZero && img.Backing() != nil {
		img.Close()
		return errZeroAbove
	}
	v.o.TargetIsZero = v.targetIsZero
	if v.backing != nil && v.isEmpty(img) {
		v.o.BackingDepth = v.depthOf(img.Backing())
	}
	err = v.copy(img)
	if closed := img.Close(); err == nil && closed != nil {
		err = writeError(closed)
	}
	return err
}

// intoNew makes the output. It appears under its name when all is copied.
func (v *conversion) intoNew() error {
	plan, err := v.plan()
	if err != nil {
		return err
	}
	out, err := plan.Begin()
	if err != nil {
		return v.outputError(err)
	}
	defer out.Discard()
	v.o.TargetIsZero = out.ReadsZero()
	if v.backing != nil || out.Image.Backing() != nil {
		// One that is not there is taken, as by qemu-img, to hold what the image
		// below the source holds.
		v.o.BackingDepth = max(1, v.depthOf(out.Image.Backing()))
	}
	if err := v.copy(out.Image); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return v.outputError(err)
	}
	return nil
}

// isEmpty reports whether all that an overlay shows lies below it.
func (v *conversion) isEmpty(img *diskimg.Image) bool {
	for e, err := range job.Map(v.sh.ctx, img, 0, img.Size()) {
		if err != nil || e.Depth == 0 && e.Present {
			return false
		}
	}
	return true
}

// depthOf returns how deep in the chain of the source the image below the output
// lies, 0 if it does not.
func (v *conversion) depthOf(below *diskimg.Image) int {
	if below == nil {
		return 0
	}
	info, err := os.Stat(below.Path())
	if err != nil {
		return 0
	}
	depth := 0
	for img := v.sources[0]; img != nil; img = img.Backing() {
		if other, err := os.Stat(img.Path()); depth > 0 && err == nil && os.SameFile(info, other) {
			return depth
		}
		depth++
	}
	return 0
}

// plan checks all that can be known to be wrong with the output.
func (v *conversion) plan() (*diskimg.Plan, error) {
	f, err := v.checkTarget()
	if err != nil {
		return nil, err
	}
	path, err := newPath(v.name)
	if err != nil {
		return nil, err
	}
	s, err := newSettings(v.sh, f, &v.list)
	if err != nil {
		return nil, err
	}
	if v.compress && (s.Switch("encryption") || s.Has("encrypt.format")) {
		return nil, failf("Compression and encryption not supported at the same time")
	}
	if err := setBacking(s, v.target(), v.backing, v.backingFormat); err != nil {
		return nil, err
	}
	if err := s.Set("size", strconv.FormatInt(v.size, 10)); err != nil {
		return nil, err
	}
	if t, is := isInput(path, false, v.opened); is {
		return nil, v.sh.refuseInput(t, v.outputError)
	}
	plan, err := s.Plan(path, &diskimg.PlanOptions{Policy: permissive, Unchecked: true, NoSync: v.cache == "unsafe", Passphrase: v.objects.passphrase})
	if err != nil {
		return nil, err
	}
	return plan, nil
}

var errZeroAbove = failf("Cannot use --target-is-zero when the destination image has a backing file")

// isInput reports whether an output is one of the inputs or lies below one.
func isInput(name string, imageOpts bool, inputs []*diskimg.Image) (diskimg.Target, bool) {
	t, err := target(name, imageOpts, new(string))
	if err != nil {
		return t, false // opening it will tell
	}
	info, err := os.Stat(t.Path)
	if err != nil || !info.Mode().IsRegular() {
		return t, false
	}
	for _, img := range inputs {
		for ; img != nil; img = img.Backing() {
			if other, err := os.Stat(img.Path()); err == nil && os.SameFile(info, other) {
				return t, true
			}
		}
	}
	return t, false
}

// refuseInput says that t can't be the output because it is an input. qemu-img
// finds its own lock in the way; failed is what it calls that.
func (sh *shell) refuseInput(t diskimg.Target, failed func(error) error) error {
	if sh.emulate {
		return failed(failf("Failed to get \"write\" lock\nIs another process using the image [%s]?", t.Path))
	}
	return failf("%s: can't be the output: it is the input, or lies below it; convert to another file", t.Path)
}

// copy does the work.
func (v *conversion) copy(img *diskimg.Image) error {
	v.o.Progress = v.p.update
	if err := v.mayHaveBitmaps(img); err != nil {
		return err
	}
	err := job.Convert(v.sh.ctx, img, v.sources, v.o)
	v.p.finish(err)
	var e *block.Error
	if errors.As(err, &e) && e.Op == "write compressed" && errors.Is(err, block.ErrUnsupported) && v.sh.emulate {
		return writeError(&block.Error{Op: e.Op, Offset: e.Offset, Err: syscall.ENOTSUP})
	}
	if err != nil {
		return copyError(err)
	}
	return v.copyBitmaps(img)
}

// copyError words what ended the copying.
func copyError(err error) error {
	var e *block.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, block.ErrInvalid):
		return &sentence.Error{Text: strings.SplitN(sentence.Of(err), ":", 2)[0], Err: err}
	case !errors.As(err, &e):
		return err
	case e.Op == "read":
		return &sentence.Error{Text: fmt.Sprintf("error while reading at byte %d: %s", e.Offset, sentence.Of(e)), Err: err}
	case e.Op == "map":
		return &sentence.Error{Text: fmt.Sprintf("error while reading block status at offset %d: %s", e.Offset, sentence.Of(e)), Err: err}
	}
	return writeError(err)
}

func writeError(err error) error {
	var e *block.Error
	if errors.As(err, &e) && e.Offset >= 0 {
		return &sentence.Error{Text: fmt.Sprintf("error while writing at byte %d: %s", e.Offset, sentence.Of(e)), Err: err}
	}
	return &sentence.Error{Text: "error while writing: " + sentence.Of(err), Err: err}
}

// outputError words what kept the output from coming into being.
func (v *conversion) outputError(err error) error {
	var e *block.Error
	if errors.As(err, &e) && e.Op == "open" {
		return openError(v.name, err)
	}
	return &sentence.Error{Err: err,
		Text: fmt.Sprintf("%s: error while converting %s: %s", v.name, v.target(), sentence.Of(err))}
}
