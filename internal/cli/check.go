package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is the verb check: what is wrong with an image, and on request
// mending it. The exit code is 0 for a sound image, 2 for a corrupt one, 3 for
// one that only wastes space, 1 if it could not be checked, 63 if its format
// has nothing to check.

var checkVerb = verb{
	name: "check", group: groupLook, longFormat: true, args: "FILE",
	summary: "look for inconsistencies in an image, and mend them with -r",
	about: "Exit code: 0 nothing is wrong, 2 the image is corrupt, 3 it has leaked clusters\n" +
		"(space is wasted, no harm done), 1 it could not be checked, 63 there is nothing\nto check in this format.",
	example: "check disk.qcow2\ncheck -r leaks disk.qcow2",
	new:     func() command { return &checkCommand{output: "human", cache: "writeback"} },
}

const (
	exitCheckFailed      = 1
	exitCheckCorrupt     = 2
	exitCheckLeaks       = 3
	exitCheckUnsupported = 63
)

type checkCommand struct {
	input
	output          outputFormat
	quiet, progress bool
	cache           cacheMode
	fix             block.CheckOptions
}

func (c *checkCommand) options() []option {
	return append(c.input.options(), c.output.option(),
		option{short: 'q', help: "print errors only", set: on(&c.quiet)},
		ownProgress(&c.progress),
		option{short: 'r', long: "repair", arg: "leaks|all", help: "give back leaked clusters, or mend all that is wrong", set: c.setRepair},
		option{short: 'T', arg: "CACHE", help: "cache mode for reading: none, writeback, unsafe …", set: c.cache.set})
}

func (c *checkCommand) setRepair(s string) error {
	switch s {
	case "leaks":
		c.fix.FixLeaks = true
	case "all":
		c.fix.FixLeaks, c.fix.FixCorruptions = true, true
	default:
		return usageError(fmt.Sprintf("Unknown option value for -r (expecting 'leaks' or 'all'): %s", s))
	}
	return nil
}

func (c *checkCommand) run(sh *shell, args []string) error {
	if len(args) != 1 {
		return usageError("Expecting one image file name")
	}
	json, err := c.output.json()
	if err != nil {
		return err
	}
	if err := c.input.check(); err != nil {
		return err
	}
	if !c.cache.valid() {
		return failf("Invalid source cache option: %s", c.cache)
	}
	o := diskimg.OpenOptions{Writable: c.fix.FixLeaks, Repair: c.fix.FixLeaks || !sh.emulate, LiveRaw: true}
	img, err := c.input.open(args[0], o)
	if errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EINVAL) {
		o.Repair = true // a table that can't be is for the check to find
		img, err = c.input.open(args[0], o)
	}
	if err != nil {
		return err
	}
	defer img.Close()
	if c.format == "" && c.fix.FixLeaks {
		sh.warnGuessed(args[0], img)
	}
	checker, ok := block.As[block.Checker](img)
	if !ok || sh.emulate && img.Format() == "vpc" {
		return exit{exitCheckUnsupported, failf("This image format does not support checks")}
	}
	r, mended, err := c.check(sh, checker, json)
	if err != nil {
		var errno syscall.Errno
		if text := sh.words(err); sh.emulate && errors.As(err, &errno) && strings.HasPrefix(text, "ERROR ") {
			return exit{exitCheckFailed, messages{text, "Check failed: " + sentence.Of(errno)}}
		}
		return exit{exitCheckFailed, &sentence.Error{Text: "Check failed: " + sentence.Of(err), Err: err}}
	}
	if err := c.print(sh, img, r, mended, json); err != nil {
		return err
	}
	return r.verdict()
}

// checked is the result of the last check, with what was mended before it.
type checked struct {
	block.CheckResult
}

// check looks at the image and, if something was mended, looks again: the
// result is that of the second look, mended what the first one did.
func (c *checkCommand) check(sh *shell, checker block.Checker, json bool) (r, mended checked, err error) {
	o := c.fix
	o.Report = func(f block.Finding) { fmt.Fprintln(sh.err, f.Text) }
	err = sh.follow(c.progress && !c.quiet && !json, func(update func(done, total int64)) error {
		o.Progress = update
		r.CheckResult, err = checker.Check(sh.ctx, o)
		return err
	})
	if err != nil {
		return r, mended, err
	}
	if r.LeaksFixed+r.CorruptionsFixed == 0 {
		return r, mended, nil
	}
	mended = r
	if !c.quiet && !json {
		sh.printf("The following inconsistencies were found and repaired:\n\n    %d leaked clusters\n    %d corruptions\n\n"+
			"Double checking the fixed image now...\n", r.LeaksFixed, r.CorruptionsFixed)
	}
	r.CheckResult, err = checker.Check(sh.ctx, block.CheckOptions{Report: o.Report})
	return r, mended, err
}

func (c *checkCommand) print(sh *shell, img *diskimg.Image, r, mended checked, json bool) error {
	switch {
	case c.quiet:
	case json:
		return writeJSON(sh.out, r.object(img, mended))
	default:
		r.print(sh)
	}
	return nil
}

func (r checked) print(sh *shell) {
	if r.Corruptions+r.Leaks+r.Errors == 0 {
		sh.printf("No errors were found on the image.\n")
	}
	if r.Corruptions > 0 {
		sh.printf("\n%d errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n", r.Corruptions)
	}
	if r.Leaks > 0 {
		sh.printf("\n%d leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n", r.Leaks)
	}
	if r.Errors > 0 {
		sh.printf("\n%d internal errors have occurred during the check.\n", r.Errors)
	}
	if r.Clusters > 0 && r.Allocated > 0 {
		sh.printf("%d/%d = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n", r.Allocated, r.Clusters,
			percentage(r.Allocated, r.Clusters), percentage(r.Fragmented, r.Allocated), percentage(r.Compressed, r.Allocated))
	}
	if r.ImageEnd > 0 {
		sh.printf("Image end offset: %d\n", r.ImageEnd)
	}
}

func percentage(part, whole int64) float64 { return float64(part) * 100 / float64(whole) }

// object has the members in QEMU's order.
func (r checked) object(img *diskimg.Image, mended checked) object {
	var o object
	count := func(name string, n int64) {
		if n != 0 {
			o = append(o, member{name, n})
		}
	}
	count("image-end-offset", r.ImageEnd)
	count("compressed-clusters", r.Compressed)
	count("total-clusters", r.Clusters)
	count("corruptions", r.Corruptions)
	count("corruptions-fixed", mended.CorruptionsFixed)
	o = append(o, member{"check-errors", r.Errors})
	count("leaks", r.Leaks)
	count("leaks-fixed", mended.LeaksFixed)
	count("allocated-clusters", r.Allocated)
	o = append(o, member{"filename", img.Path()}, member{"format", img.Format()})
	count("fragmented-clusters", r.Fragmented)
	return o
}

// verdict is the exit code.
func (r checked) verdict() error {
	switch {
	case r.Errors > 0:
		return exit{code: exitCheckFailed}
	case r.Corruptions > 0:
		return exit{code: exitCheckCorrupt}
	case r.Leaks > 0:
		return exit{code: exitCheckLeaks}
	}
	return nil
}

// warnGuessed warns of an image whose format was guessed to be raw and which is
// to be written.
func (sh *shell) warnGuessed(name string, img *diskimg.Image) {
	if img.Format() == "raw" {
		fmt.Fprintf(sh.err, "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"+
			"         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n"+
			"         Specify the 'raw' format explicitly to remove the restrictions.\n", name)
	}
}
