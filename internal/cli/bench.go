package cli

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/internal/size"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb bench: how fast requests to an image are.

var benchVerb = verb{
	name: "bench", group: groupLook, args: "FILE",
	summary: "measure how fast an image is read or written",
	about: "Requests follow each other on the disk and begin anew at its end. With -w what is on\n" +
		"the disk is overwritten.",
	example: "bench -c 10000 -d 16 -s 64k disk.qcow2\nbench -w --pattern=1 --flush-interval=100 scratch.qcow2",
	new: func() command {
		return &benchCommand{
			cache:    "writeback",
			requests: number{name: "request count", value: 75000}, depth: number{name: "queue depth", value: 64, least: 1},
			pattern: number{name: "pattern byte", most: math.MaxUint8}, interval: number{name: "flush interval"},
			offset: length{name: "offset"}, step: length{name: "step_size", most: math.MaxInt32},
			size: length{name: "buffer size", value: 4096, most: math.MaxInt32},
		}
	},
}

type benchCommand struct {
	input
	cache                              cacheMode
	aio                                string
	requests, depth, pattern, interval number
	size, offset, step                 length
	write, noDrain, quiet              bool
}

func (c *benchCommand) options() []option {
	return append(slices.DeleteFunc(c.input.options(), func(o option) bool { return o.long == "object" }), []option{
		{short: 'c', arg: "COUNT", help: "number of requests (default: 75000)", set: c.requests.set},
		{short: 'd', arg: "DEPTH", help: "requests at a time (default: 64)", set: c.depth.set},
		{short: 'o', arg: "OFFSET", help: "where the first request is (default: 0)", set: c.offset.set},
		{short: 's', arg: "SIZE", help: "size of a request (default: 4k)", set: c.size.set},
		{short: 'S', arg: "STEP", help: "how far after the one before a request begins (default: SIZE)", set: c.step.set},
		{short: 'w', help: "write, not read", set: on(&c.write)},
		{long: "pattern", arg: "BYTE", help: "what is written (default: 0)", set: c.pattern.set},
		{long: "flush-interval", arg: "N", help: "with -w: flush after every N writes", set: c.interval.set},
		{long: "no-drain", help: "flush while writes are under way", set: on(&c.noDrain)},
		{short: 'i', arg: "AIO", help: "threads, native or io_uring: checked, and all the same", set: c.setAIO},
		{short: 'n', help: "the same as -i native", set: func(string) error { return c.setAIO("native") }},
		{short: 't', arg: "CACHE", help: "cache mode: none, writeback, unsafe …", set: c.setCache},
		{short: 'q', help: "accepted; what is printed is the result", set: on(&c.quiet)},
	}...)
}

func (c *benchCommand) run(sh *shell, args []string) error {
	if len(args) != 1 {
		return usageError("Expecting one image file name")
	}
	if err := c.check(args[0]); err != nil {
		return err
	}
	img, err := c.open(args[0], diskimg.OpenOptions{Writable: c.write, LiveRaw: !c.write, NoSync: c.cache == "unsafe"})
	if err != nil {
		return err
	}
	if c.write && c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	err = c.bench(sh, img)
	if closed := img.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *benchCommand) setAIO(mode string) error {
	if !slices.Contains([]string{"threads", "native", "io_uring"}, mode) {
		return failf("Invalid aio option: %s", mode)
	}
	c.aio = mode
	return nil
}

func (c *benchCommand) setCache(mode string) error {
	if c.cache = cacheMode(mode); !c.cache.valid() {
		return failf("Invalid cache mode")
	}
	return nil
}

func (c *benchCommand) check(name string) error {
	direct := c.cache == "none" || c.cache == "off" || c.cache == "directsync"
	switch {
	case !c.write && c.interval.value > 0:
		return failf("--flush-interval is only available in write tests")
	case c.interval.value > 0 && c.interval.value < c.depth.value:
		return failf("Flush interval can't be smaller than depth")
	case c.aio == "native" && !direct:
		return openError(name, failf("aio=native was specified, but it requires cache.direct=on, which was not specified."))
	}
	return c.input.check()
}

// bench makes the requests.
func (c *benchCommand) bench(sh *shell, img *diskimg.Image) error {
	o := &job.BenchOptions{
		Requests: c.requests.value, Depth: c.depth.value, Size: c.size.value, Offset: c.offset.value, Step: c.step.value,
		Write: c.write, Pattern: byte(c.pattern.value), FlushInterval: c.interval.value, NoDrain: c.noDrain,
	}
	if o.Step == 0 {
		o.Step = o.Size
	}
	what := "read"
	if o.Write {
		what = "write"
	}
	sh.printf("Sending %d %s requests, %d bytes each, %d in parallel (starting at offset %d, step size %d)\n",
		o.Requests, what, o.Size, o.Depth, o.Offset, o.Step)
	if o.FlushInterval > 0 {
		sh.printf("Sending flush every %d requests\n", o.FlushInterval)
	}
	took, err := job.Bench(sh.ctx, img, o)
	if err != nil {
		why := sentence.Of(err)
		if sh.emulate && errors.Is(err, block.ErrBounds) {
			why = ioCause(err)
		}
		return &sentence.Error{Text: "Failed request: " + why, Err: err}
	}
	sh.printf("Run completed in %.3f seconds.\n", took.Seconds())
	if !sh.emulate && took > 0 {
		c.printRate(sh, took)
	}
	return nil
}

// printRate prints what a person wants to know of a run.
func (c *benchCommand) printRate(sh *shell, took time.Duration) {
	perSecond := float64(c.requests.value) / took.Seconds()
	sh.printf("%.0f requests a second, %s/s\n", perSecond, size.Format(int64(perSecond*float64(c.size.value))))
}
