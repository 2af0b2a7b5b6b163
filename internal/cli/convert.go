package cli

import (
	"math"
	"slices"
	"strconv"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb convert: images copied into a new image, or with -n
// into one that is there.

var convertVerb = verb{
	name: "convert", group: groupMake, args: "FILE [FILE...] OUTPUT",
	summary: "copy images into a new one, of any format",
	about: "Several inputs follow each other on the new disk. What reads as zero takes up no\n" +
		"space in OUTPUT, which appears under its name when it is complete: if the command\n" +
		"fails or is interrupted, what was there before is still there.",
	example: "convert -O qcow2 disk.raw disk.qcow2\nconvert -p -c -O qcow2 -o compression_type=zstd disk.raw small.qcow2\nconvert --for azure disk.qcow2 disk.vhd",
	new:     func() command { return newConvert() },
}

type convertCommand struct {
	input
	outFormat                      *string
	backing, backingFormat         *string
	list                           optionList
	cloud                          cloud
	snapshot                       snapshotChoice
	sparseArg                      *string
	workersArg, rateArg            *string
	cache, sourceCache             cacheMode
	compress, offload, unordered   bool
	keep, targetIsZero, targetOpts bool
	bitmaps, skipBroken, salvage   bool
	quiet, showProgress            bool
}

func newConvert() *convertCommand { return &convertCommand{sourceCache: "writeback"} }

func (c *convertCommand) options() []option {
	return append(c.input.options(), []option{
		{short: 'O', arg: "FMT", help: "format of the output (default: raw)", set: given(&c.outFormat)},
		{short: 'B', arg: "FILE", help: "image below the output; what the input has from the image\nbelow it is not copied", set: given(&c.backing)},
		{short: 'F', arg: "FMT", help: "format of the image below", set: given(&c.backingFormat)},
		optionsOption(&c.list),
		c.cloud.option(),
		{short: 'c', help: "compress the output", set: on(&c.compress)},
		{short: 'S', arg: "SIZE", help: "look for runs of zeros that long, which become holes\n(default: 4k); 0 writes everything, zeros too", set: given(&c.sparseArg)},
		{short: 'n', help: "write into an image that is there instead of making one", set: on(&c.keep)},
		{long: "target-is-zero", help: "with -n: the image that is there reads as zero", set: on(&c.targetIsZero)},
		{long: "target-image-opts", help: "with -n: OUTPUT is a list as driver=qcow2,file.filename=disk", set: on(&c.targetOpts)},
		{short: 'l', arg: "SNAPSHOT", help: "copy an internal snapshot, by ID or name, or as\nsnapshot.id=ID,snapshot.name=NAME", set: c.snapshot.set},
		{long: "bitmaps", help: "copy the dirty bitmaps of the input too", set: on(&c.bitmaps)},
		{long: "skip-broken-bitmaps", help: "with --bitmaps: pass over those that can't be used", set: on(&c.skipBroken)},
		{long: "salvage", help: "go on after errors of reading; what can't be read is zero", set: on(&c.salvage)},
		{short: 'C', help: "let the kernel copy, without looking for zeros", set: on(&c.offload)},
		{short: 'm', arg: "N", help: "read N chunks at a time, 1 to 16", set: given(&c.workersArg)},
		{short: 'W', help: "write as data comes, not in order", set: on(&c.unordered)},
		{short: 'r', arg: "RATE", help: "write at most RATE bytes a second", set: given(&c.rateArg)},
		{short: 't', arg: "CACHE", help: "cache mode for writing; with unsafe the command does not\nwait until the output is on disk", set: c.cache.set},
		{short: 'T', arg: "CACHE", help: "cache mode for reading: none, writeback, unsafe …", set: c.sourceCache.set},
		{short: 'p', help: "show progress", set: on(&c.showProgress)},
		{short: 'q', help: "print errors only", set: on(&c.quiet)},
	}...)
}

func (c *convertCommand) run(sh *shell, args []string) error {
	c.snapshot.warn(sh)
	if c.cloud != "" {
		if err := c.applyCloud(); err != nil {
			return err
		}
	}
	if c.list.wantsHelp() {
		return sh.helpOptions(c.target(), args[max(0, len(args)-1):])
	}
	o, err := c.jobOptions(sh)
	if err != nil {
		return err
	}
	if err := c.check(sh, args); err != nil {
		return err
	}
	p := sh.progress(c.showProgress && !c.quiet)
	defer p.end()
	p.begin()
	v := &conversion{convertCommand: c, sh: sh, o: o, p: p, name: args[len(args)-1]}
	defer v.close()
	if err := v.openSources(args[:len(args)-1]); err != nil {
		return err
	}
	if err := v.findBitmaps(); err != nil {
		return err
	}
	if c.keep {
		return v.intoExisting()
	}
	return v.intoNew()
}

func (c *convertCommand) applyCloud() error {
	if c.keep {
		return failf("--for has no effect when skipping image creation")
	}
	format := ""
	if c.outFormat != nil {
		format = *c.outFormat
	}
	c.outFormat = &format
	return c.cloud.apply(&format, &c.list)
}

// target is the format of the output.
func (c *convertCommand) target() string {
	if c.outFormat == nil {
		return "raw"
	}
	return *c.outFormat
}

// check finds options that exclude each other or need another one.
func (c *convertCommand) check(sh *shell, args []string) error {
	if c.cache == "" {
		c.cache = "writeback"
		if sh.emulate {
			c.cache = "unsafe"
		}
	}
	switch {
	case c.offload && c.compress:
		return failf("Cannot enable copy offloading when -c is used")
	case c.offload && c.sparseArg != nil:
		return failf("Cannot enable copy offloading when -S is used")
	case c.offload && c.salvage:
		return failf("Cannot use copy offloading in salvaging mode")
	case c.targetOpts && !c.keep:
		return failf("--target-image-opts requires use of -n flag")
	case c.targetIsZero && !c.keep:
		return failf("--target-is-zero requires use of -n flag")
	case c.keep && c.list.text != "":
		return failf("-o has no effect when skipping image creation")
	case len(args) < 2:
		return bareUsageError("Must specify image file name")
	case len(args) > 2 && c.snapshot.given:
		return failf("No support for concatenating multiple snapshot")
	case c.skipBroken && !c.bitmaps:
		return failf("Use of --skip-broken-bitmaps requires --bitmaps")
	case !c.sourceCache.valid():
		return failf("Invalid source cache option: %s", c.sourceCache)
	}
	return c.input.check()
}

// checkTarget finds what is wrong with the options for the output. It comes
// after the inputs have been opened, as in qemu-img.
func (v *conversion) checkTarget() (*diskimg.Format, error) {
	f, err := v.sh.findCreator(v.target())
	switch {
	case err != nil:
		return nil, err
	case len(v.sources) > 1 && v.backing != nil:
		return nil, failf("Having a backing file for the target makes no sense when concatenating multiple input images")
	case v.backing != nil && !v.keep && !slices.ContainsFunc(f.Options, func(o diskimg.Option) bool { return o.Name == "backing_file" }):
		return nil, failf("Backing file not supported for file format '%s'", f.Name)
	case (v.backing != nil || v.hasOption("backing_file")) && v.backingFormat == nil && !v.keep && !v.hasOption("backing_fmt"):
		return nil, failf("Use of backing file requires explicit backing format")
	case v.compress && !f.Compresses:
		return nil, failf("Compression not supported for this file format")
	case !v.cache.valid():
		return nil, failf("Invalid cache option: %s", v.cache)
	}
	return f, nil
}

func (c *convertCommand) hasOption(name string) bool {
	return slices.ContainsFunc(c.list.pairs(), func(p pair) bool { return p.key == name })
}

// jobOptions reads the options that say how to copy.
func (c *convertCommand) jobOptions(sh *shell) (*job.ConvertOptions, error) {
	o := &job.ConvertOptions{Compress: c.compress, Unordered: c.unordered, KernelCopy: c.offload}
	for _, read := range []func(*shell, *job.ConvertOptions) error{c.readSparse, c.readWorkers, c.readRate} {
		if err := read(sh, o); err != nil {
			return nil, err
		}
	}
	if c.salvage {
		o.Salvage = func(off int64, err error) {
			sh.warn("error while reading at byte %d: %s", off, sentence.Of(err))
		}
	}
	return o, nil
}

const maxSparse = 16 << 20

func (c *convertCommand) readSparse(sh *shell, o *job.ConvertOptions) error {
	if c.sparseArg == nil {
		return nil
	}
	const what = "buffer size for sparse output"
	n, err := parseSize(sh, *c.sparseArg, what, math.MaxInt64)
	switch {
	case err != nil:
		return err
	case n%512 != 0 || n > maxSparse:
		return failf("Invalid %s specified. Valid sizes are multiples of 512 up to %d. "+
			"Select 0 to disable sparse detection (fully allocates output).", what, maxSparse)
	case n == 0:
		n = -1
	}
	o.Sparse = n
	return nil
}

func (c *convertCommand) readWorkers(_ *shell, o *job.ConvertOptions) error {
	if c.workersArg == nil {
		return nil
	}
	n, err := strconv.Atoi(*c.workersArg)
	if err != nil || n < 1 || n > 16 {
		return failf("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16")
	}
	o.Workers = n
	return nil
}

func (c *convertCommand) readRate(sh *shell, o *job.ConvertOptions) (err error) {
	if c.rateArg != nil {
		o.RateLimit, err = parseSize(sh, *c.rateArg, "rate limit", math.MaxInt64)
	}
	return err
}
