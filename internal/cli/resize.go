package cli

import (
	"errors"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/size"
)

// This file is the verb resize.

var resizeVerb = verb{
	name: "resize", group: groupChange, args: "FILE [+|-]SIZE",
	summary: "make a disk larger or smaller",
	about: "With + or - the size is changed by SIZE. A smaller disk needs --shrink: what lies\n" +
		"behind its new end is lost. File systems and partitions on it are not changed.",
	example: "resize disk.qcow2 40G\nresize disk.qcow2 +10G\nresize --shrink disk.qcow2 20G",
	new:     func() command { return &resizeCommand{preallocation: "off"} },
}

type resizeCommand struct {
	input
	quiet, shrink, progress bool
	preallocation           string
}

func (c *resizeCommand) options() []option {
	return append(without(c.input.options(), 'U'),
		option{short: 'q', help: "print errors only", set: on(&c.quiet)},
		ownProgress(&c.progress),
		option{long: "preallocation", arg: "MODE", help: "how the new part gets its space: off, metadata, falloc, full", set: text(&c.preallocation)},
		option{long: "shrink", help: "allow a smaller size", set: on(&c.shrink)})
}

func (c *resizeCommand) run(sh *shell, args []string) error {
	switch {
	case len(args) < 2:
		return usageError("Not enough arguments")
	case len(args) > 2:
		return usageError("Expecting image file name and size")
	}
	mode, err := block.ParsePreallocation(c.preallocation)
	if err != nil {
		return failf("Invalid preallocation mode '%s'", c.preallocation)
	}
	change, n, err := sh.parseChange(args[1])
	if err != nil {
		return err
	}
	if err := c.input.check(); err != nil {
		return err
	}
	img, err := c.input.open(args[0], diskimg.OpenOptions{Writable: true})
	if err != nil {
		return err
	}
	if c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	return errors.Join(c.resize(sh, img, change, n, mode), img.Close())
}

// lastIsValue keeps a size such as -1G from being taken for options.
func (c *resizeCommand) lastIsValue() {}

// parseChange reads a size that may have a sign in front of it.
func (sh *shell) parseChange(s string) (sign byte, n int64, err error) {
	digits := s
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, digits = s[0], s[1:]
	}
	digits = strings.TrimPrefix(digits, "+")
	if size.HexWithSuffix(digits) {
		sh.warnHex(digits)
	}
	v, err := size.Parse(digits)
	switch {
	case errors.Is(err, size.ErrSyntax):
		return 0, 0, failf("Parameter 'size' expects a non-negative number below 2^64\n" +
			"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.")
	case err != nil:
		return 0, 0, failf("Value '%s' is out of range for parameter 'size'", digits)
	}
	return sign, int64(v), nil
}

// maxDisk is how large disks are for QEMU at most, in bytes.
const maxDisk = 1<<63 - 1<<30

func (c *resizeCommand) resize(sh *shell, img *diskimg.Image, change byte, n int64, mode block.Preallocation) error {
	old := img.Size()
	switch change {
	case '+':
		n += old
	case '-':
		n = old - n
	}
	switch {
	case n <= 0:
		return failf("New image size must be positive")
	case n <= old && mode != block.PreallocOff:
		return failf("Preallocation can only be used for growing images")
	case n < old && !c.shrink:
		return messages{"Use the --shrink option to perform a shrink operation.",
			"warning: Shrinking an image will delete all data beyond the shrunken image's end. " +
				"Before performing such an operation, make sure there is no important data there."}
	case n > maxDisk:
		return failf("offset(%d) exceeds maximum(%d)", n, int64(maxDisk))
	}
	resizer, ok := block.As[block.Resizer](img)
	if !ok {
		return failf("Image format driver does not support resize")
	}
	err := sh.follow(c.progress && !c.quiet, func(update func(done, total int64)) error {
		return resizer.Resize(sh.ctx, n, block.ResizeOptions{Preallocation: mode, Shrink: c.shrink, Progress: update})
	})
	if err != nil {
		return err
	}
	if !c.quiet {
		sh.printf("Image resized.\n")
	}
	return nil
}
