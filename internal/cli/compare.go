package cli

import (
	"errors"
	"fmt"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb compare: whether two images hold the same disk. The
// exit code is 0 if they do, 1 if they do not, 2 if one can't be opened, 3 if
// it can't be told what an image holds where, 4 if one can't be read.

var compareVerb = verb{
	name: "compare", group: groupLook, args: "FILE1 FILE2",
	summary: "tell whether two images hold the same disk",
	about: "Formats, clusters and backing files may differ, and a longer disk may be the same\n" +
		"as a shorter one if the rest of it is zero. With -s neither that nor another\n" +
		"allocation is the same.\nExit code: 0 the same, 1 different, 2 and more an error.",
	example: "compare disk.raw disk.qcow2",
	new:     func() command { return &compareCommand{cache: "writeback"} },
}

const (
	exitCompareDiffers = 1
	exitCompareOpen    = 2
	exitCompareMap     = 3
	exitCompareRead    = 4
)

type compareCommand struct {
	input
	second                  string
	cache                   cacheMode
	progress, quiet, strict bool
}

func (c *compareCommand) options() []option {
	return append(c.withObjects(),
		option{short: 'F', arg: "FMT", help: "format of the second image", set: text(&c.second)},
		option{short: 'T', arg: "CACHE", help: "cache mode for reading: none, writeback, unsafe …", set: c.cache.set},
		option{short: 'p', help: "show progress", set: on(&c.progress)},
		option{short: 'q', help: "print errors only", set: on(&c.quiet)},
		option{short: 's', help: "size and allocation must be the same as well", set: on(&c.strict)})
}

// withObjects returns the options of the images. What is wrong with an object has
// the exit code of an image that can't be opened.
func (c *compareCommand) withObjects() []option {
	options := c.input.options()
	options[0].set = func(s string) error {
		err := c.objects.define(s)
		if _, help := err.(printed); err != nil && !help {
			err = exit{exitCompareOpen, err}
		}
		return err
	}
	return options
}

func (c *compareCommand) run(sh *shell, args []string) error {
	if len(args) != 2 {
		return usageError("Expecting two image file names")
	}
	p := sh.progress(c.progress && !c.quiet)
	defer p.end()
	if err := c.input.check(); err != nil {
		return exit{exitCompareOpen, err}
	}
	if !c.cache.valid() {
		return exit{exitCompareOpen, failf("Invalid source cache option: %s", c.cache)}
	}
	a, err := c.open(args[0], diskimg.OpenOptions{LiveRaw: true})
	if err != nil {
		return exit{exitCompareOpen, err}
	}
	defer a.Close()
	if c.input.format = c.second; c.imageOpts && c.second != "" {
		return exit{exitCompareOpen, errBothFormats}
	}
	b, err := c.open(args[1], diskimg.OpenOptions{LiveRaw: true})
	if err != nil {
		return exit{exitCompareOpen, err}
	}
	defer b.Close()
	return c.compare(sh, p, a, b)
}

func (c *compareCommand) compare(sh *shell, p *progress, a, b *diskimg.Image) error {
	p.begin()
	r, err := job.Compare(sh.ctx, a, b, &job.CompareOptions{Strict: c.strict, Progress: p.update})
	if err != nil || p.bar {
		p.finish(err)
	}
	if err != nil {
		return compareError(err)
	}
	if r.Longer && !c.quiet {
		sh.printf("Warning: Image size mismatch!\n")
	}
	if !p.bar {
		p.finish(nil)
	}
	if !c.quiet {
		printVerdict(sh, r)
	}
	return differs(r)
}

func printVerdict(sh *shell, r job.CompareResult) {
	switch r.Verdict {
	case job.SizeDiffers:
		sh.printf("Strict mode: Image size mismatch!\n")
	case job.StatusDiffers:
		sh.printf("Strict mode: Offset %d block status mismatch!\n", r.Offset)
	case job.ContentDiffers:
		sh.printf("Content mismatch at offset %d!\n", r.Offset)
	default:
		sh.printf("Images are identical.\n")
	}
}

func differs(r job.CompareResult) error {
	if r.Verdict == job.Identical {
		return nil
	}
	return exit{code: exitCompareDiffers}
}

func compareError(err error) error {
	var e *block.Error
	switch {
	case !errors.As(err, &e):
		return exit{exitCompareRead, err}
	case e.Op == "map":
		return exit{exitCompareMap, &sentence.Error{
			Text: fmt.Sprintf("Sector allocation test failed for %s: %s", e.Path, sentence.Of(e)), Err: err}}
	}
	return exit{exitCompareRead, &sentence.Error{
		Text: fmt.Sprintf("Error while reading offset %d of %s: %s", e.Offset, e.Path, sentence.Of(e)), Err: err}}
}
