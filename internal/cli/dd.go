package cli

import (
	"math"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb dd: a range of a disk, counted in blocks, as a new
// image.

var ddVerb = verb{
	name: "dd", group: groupMake, args: "[bs=SIZE] [count=N] [skip=N] if=FILE of=OUTPUT",
	summary: "copy a part of a disk into a new image",
	about: "Of the disk in FILE, skip=N leaves out the first N blocks, and count=N ends after N\n" +
		"blocks; bs=SIZE is the size of a block (default: 512). What reads as zero takes up no\n" +
		"space in OUTPUT, which appears under its name when it is complete.",
	example: "dd bs=1M count=1 if=disk.qcow2 of=start.raw\ndd -O qcow2 bs=1G skip=2 if=disk.raw of=rest.qcow2",
	new:     func() command { return &ddCommand{outFormat: "raw"} },
}

type ddCommand struct {
	input
	outFormat string
	operands
}

// operands are what dd is given as name=value.
type operands struct {
	in, out         *string
	bs, count, skip length
	counted         bool
}

func (c *ddCommand) options() []option {
	return append(c.input.options(),
		option{short: 'O', arg: "FMT", help: "format of the output (default: raw)", set: text(&c.outFormat)})
}

func (c *ddCommand) run(sh *shell, args []string) error {
	if err := c.operands.read(args); err != nil {
		return err
	}
	if err := c.input.check(); err != nil {
		return err
	}
	if c.in == nil || c.out == nil {
		return bareUsageError("Must specify both input and output files")
	}
	img, err := c.open(*c.in, diskimg.OpenOptions{})
	if err != nil {
		return err
	}
	defer img.Close()
	return c.copy(sh, img)
}

// read reads all operands; of one that is given twice the last one holds.
func (o *operands) read(args []string) error {
	o.bs = length{name: "bs", value: 512, least: 1, most: math.MaxInt32}
	o.count, o.skip = length{name: "count"}, length{name: "skip"}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		set := map[string]func(string) error{
			"if": given(&o.in), "of": given(&o.out), "bs": o.bs.set, "count": o.setCount, "skip": o.skip.set,
		}[name]
		if !found || set == nil {
			return failf("unrecognized operand %s", name)
		}
		if err := set(value); err != nil {
			return err
		}
	}
	return nil
}

func (o *operands) setCount(s string) error {
	o.counted = true
	return o.count.set(s)
}

// part returns the range of a disk that is to be copied. beyond: it begins
// after the end.
func (o *operands) part(size int64) (off, n int64, beyond bool) {
	off, n = times(o.skip.value, o.bs.value), size
	if off > size {
		return size, 0, true
	}
	if n -= off; o.counted {
		n = min(n, times(o.count.value, o.bs.value))
	}
	return off, n, false
}

// times multiplies two numbers that are not negative, as far as that goes.
func times(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}

func (c *ddCommand) copy(sh *shell, img *diskimg.Image) error {
	off, n, beyond := c.part(img.Size())
	if beyond {
		sh.complain("%s: cannot skip to specified offset", *c.in)
	}
	out, err := c.begin(sh, img, n)
	if err != nil {
		return err
	}
	defer out.Discard()
	o := &job.ConvertOptions{TargetIsZero: out.ReadsZero()}
	if err := job.CopyRange(sh.ctx, out.Image, img, off, n, o); err != nil {
		return copyError(err)
	}
	if err := out.Commit(); err != nil {
		return c.outputError(err)
	}
	return nil
}

// begin makes the output.
func (c *ddCommand) begin(sh *shell, img *diskimg.Image, size int64) (*diskimg.Output, error) {
	f, err := diskimg.FindCreator(c.outFormat)
	if err != nil && sh.emulate && !diskimg.KnownFormat(c.outFormat) {
		return nil, failf("Unknown file format")
	}
	if err != nil {
		return nil, err
	}
	path, err := newPath(*c.out)
	if err != nil {
		return nil, err
	}
	s := f.Settings()
	if err := s.Set("size", strconv.FormatInt(size, 10)); err != nil {
		return nil, err
	}
	if t, is := isInput(path, false, []*diskimg.Image{img}); is {
		return nil, sh.refuseInput(t, c.outputError)
	}
	plan, err := s.Plan(path, &diskimg.PlanOptions{Policy: permissive})
	if err != nil {
		return nil, c.outputError(err)
	}
	out, err := plan.Begin()
	if err != nil {
		return nil, c.outputError(err)
	}
	return out, nil
}

func (c *ddCommand) outputError(err error) error {
	return &sentence.Error{Text: *c.out + ": error while creating output image: " + sentence.Of(err), Err: err}
}
