package cli

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb commit: what an overlay holds, brought into an image
// below it.

var commitVerb = verb{
	name: "commit", group: groupChange, args: "FILE",
	summary: "bring what an overlay holds into the image below it",
	about: "FILE is empty afterwards and reads the same, unless -d leaves it as it is. A smaller\n" +
		"image below is made as large as FILE. If the command fails or is interrupted, FILE\n" +
		"still holds all of its data, and the command can be repeated.",
	example: "commit overlay.qcow2\ncommit -b base.qcow2 top.qcow2",
	new:     func() command { return &commitCommand{cache: "writeback"} },
}

type commitCommand struct {
	input
	base        *string
	rateArg     *string
	cache       cacheMode
	keep, quiet bool
	progress    bool
}

func (c *commitCommand) options() []option {
	return append(without(c.input.options(), 'U'), []option{
		{short: 'b', arg: "BASE", help: "the image of the chain to commit into, instead of the one\nbelow FILE; FILE is left as it is, the images between are\nno longer of use", set: given(&c.base)},
		{short: 'd', help: "leave FILE as it is", set: on(&c.keep)},
		{short: 'r', arg: "RATE", help: "write at most RATE bytes a second", set: given(&c.rateArg)},
		{short: 't', arg: "CACHE", help: "cache mode for writing; with unsafe the command does not\nwait until anything is on disk", set: c.cache.set},
		{short: 'p', help: "show progress", set: on(&c.progress)},
		{short: 'q', help: "print errors only", set: on(&c.quiet)},
	}...)
}

// without returns options but for the short one.
func without(options []option, short byte) []option {
	var list []option
	for _, o := range options {
		if o.short != short {
			list = append(list, o)
		}
	}
	return list
}

func (c *commitCommand) run(sh *shell, args []string) error {
	o := job.CommitOptions{Depth: 1, Keep: c.keep || c.base != nil}
	if c.rateArg != nil {
		var err error
		if o.RateLimit, err = parseSize(sh, *c.rateArg, "rate limit", math.MaxInt64); err != nil {
			return err
		}
	}
	if len(args) != 1 {
		return usageError("Expecting one image file name")
	}
	if err := c.input.check(); err != nil {
		return err
	}
	if !c.cache.valid() {
		return failf("Invalid cache option: %s", c.cache)
	}
	if c.base != nil {
		var err error
		if o.Depth, err = c.findBase(sh, args[0]); err != nil {
			return err
		}
	}
	img, err := c.open(args[0], diskimg.OpenOptions{Writable: true, WritableBase: o.Depth, NoSync: c.cache == "unsafe"})
	if errors.Is(err, block.ErrLocked) && sh.emulate {
		err = c.asQEMULocks(args[0], err)
	}
	if err != nil {
		return err
	}
	if c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	err = c.commit(sh, args[0], img, o)
	if closed := img.Close(); err == nil {
		err = closed
	}
	if err == nil && !c.quiet {
		sh.printf("Image committed.\n")
	}
	return err
}

// asQEMULocks words err, a lock that could not be had, as qemu-img does: it opens
// what lies below for reading first, and asks for more when all is open.
func (c *commitCommand) asQEMULocks(name string, err error) error {
	img, other := c.open(name, diskimg.OpenOptions{Writable: true})
	if other != nil {
		return other
	}
	img.Close()
	text := sentence.Of(err)
	if i := strings.Index(text, "Failed to get"); i >= 0 {
		text = text[i:]
	}
	return &sentence.Error{Text: text, Err: err}
}

// findBase returns which image of the chain of the one called name -b means.
func (c *commitCommand) findBase(sh *shell, name string) (depth int, err error) {
	img, err := c.open(name, diskimg.OpenOptions{})
	if err != nil {
		return 0, err
	}
	defer img.Close()
	if depth = depthOf(img, *c.base); depth == 0 {
		p := sh.progress(c.progress && !c.quiet)
		p.begin()
		p.end()
		return 0, failf("Did not find '%s' in the backing chain of '%s'", *c.base, name)
	}
	return depth, nil
}

// depthOf returns how deep below img the image is that path names, 0 if it is not
// there. As in the images themselves a relative name is looked for beside the one
// above, and then in the current directory.
func depthOf(img *diskimg.Image, path string) int {
	t, err := diskimg.ParseTarget(path)
	if err != nil {
		return 0
	}
	for _, beside := range []bool{true, false} {
		depth := 1
		for above := img; above.Backing() != nil; above, depth = above.Backing(), depth+1 {
			name := t.Path
			if beside && !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(above.Path()), name)
			}
			if isFile(name, above.Backing().Path()) {
				return depth
			}
		}
	}
	return 0
}

// isFile reports whether two names are those of one file.
func isFile(a, b string) bool {
	info, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(info, other)
}

func (c *commitCommand) commit(sh *shell, name string, img *diskimg.Image, o job.CommitOptions) error {
	p := sh.progress(c.progress && !c.quiet)
	defer p.end()
	p.begin()
	if img.Backing() == nil {
		return failf("Image does not have a backing file")
	}
	o.Progress = p.update
	err := job.Commit(sh.ctx, img, &o)
	p.finish(err)
	var e *block.Error
	switch {
	case errors.Is(err, context.Canceled):
		return interrupted("%s still holds all of its data", img.Path())
	case errors.As(err, &e) && e.Op == "make empty":
		why := sentence.Of(err)
		if sh.emulate {
			why = ioCause(err)
		}
		return &sentence.Error{Text: "Failed to empty " + name + ": " + why, Err: err}
	}
	return copyError(err)
}
