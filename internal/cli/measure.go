package cli

import (
	"errors"
	"math"
	"strconv"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb measure: how large an image file will be.

var measureVerb = verb{
	name: "measure", group: groupLook, args: "[FILE]",
	summary: "tell how large a new image would be",
	about: "With FILE, an image that holds what FILE does; with --size, an empty one. The required\n" +
		"size is that of the new file, the fully allocated size what it grows to when all of\n" +
		"its disk is written; bitmaps and internal snapshots come on top.",
	example: "measure -O qcow2 disk.raw\nmeasure -O qcow2 --size 100G",
	new:     func() command { return &measureCommand{output: "human"} },
}

type measureCommand struct {
	input
	output    outputFormat
	outFormat *string
	list      optionList
	snapshot  snapshotChoice
	sizeArg   *string
	size      int64
}

func (c *measureCommand) options() []option {
	return append(c.input.options(), c.output.option(),
		option{short: 'O', arg: "FMT", help: "format of the new image (default: raw)", set: given(&c.outFormat)},
		optionsOption(&c.list),
		option{long: "size", arg: "SIZE", help: "measure an empty disk of that size", set: given(&c.sizeArg)},
		option{short: 'l', arg: "SNAPSHOT", help: "measure an internal snapshot, by ID or name, or as\nsnapshot.id=ID,snapshot.name=NAME", set: c.snapshot.set})
}

func (c *measureCommand) run(sh *shell, args []string) error {
	c.snapshot.warn(sh)
	if err := c.parse(sh); err != nil {
		return err
	}
	json, err := c.check(args)
	if err != nil {
		return err
	}
	var content *diskimg.Content
	if len(args) == 1 {
		img, err := c.open(args[0], diskimg.OpenOptions{LiveRaw: true})
		if err != nil {
			return err
		}
		defer img.Close()
		if content, err = c.content(sh, img); err != nil {
			return err
		}
	}
	m, err := c.measure(sh, content)
	if err != nil {
		return err
	}
	return printMeasurement(sh, m, json)
}

func (c *measureCommand) parse(sh *shell) (err error) {
	if c.sizeArg != nil {
		c.size, err = parseSize(sh, *c.sizeArg, "image size", math.MaxInt64)
	}
	return err
}

func (c *measureCommand) check(args []string) (json bool, err error) {
	if json, err = c.output.json(); err != nil {
		return false, err
	}
	switch {
	case len(args) > 1:
		return false, bareUsageError("At most one filename argument is allowed.")
	case len(args) == 1 && c.sizeArg != nil:
		return false, bareUsageError("--size N cannot be used together with a filename.")
	case len(args) == 0 && (c.imageOpts || c.format != "" || c.snapshot.given):
		return false, bareUsageError("--image-opts, -f, and -l require a filename argument.")
	case len(args) == 0 && c.sizeArg == nil:
		return false, bareUsageError("Either --size N or one filename must be specified.")
	}
	return json, c.input.check()
}

// content returns what the new image would have of img.
func (c *measureCommand) content(sh *shell, img *diskimg.Image) (*diskimg.Content, error) {
	content := &diskimg.Content{}
	if l, ok := block.As[block.BitmapLister](img); ok {
		list, err := l.Bitmaps()
		if err != nil && !errors.Is(err, block.ErrUnsupported) {
			return nil, err
		}
		content.Bitmaps, content.HasBitmaps = list, err == nil
	}
	img, err := sh.snapshotOf(img, &c.snapshot)
	if err != nil {
		return nil, err
	}
	c.size = img.Size()
	content.Data = func(clusterSize int64) (int64, error) {
		return job.Measure(sh.ctx, img, &job.MeasureOptions{ClusterSize: clusterSize})
	}
	return content, nil
}

// measure tells the size of an image with that content.
func (c *measureCommand) measure(sh *shell, content *diskimg.Content) (m block.Measurement, err error) {
	name := "raw"
	if c.outFormat != nil {
		name = *c.outFormat
	}
	f, err := findMeasured(name)
	if err != nil {
		return m, err
	}
	s, err := newSettings(sh, f, &c.list)
	if err != nil {
		return m, messages{sentence.Of(err), "Invalid options for file format '" + name + "'"}
	}
	if err := s.Set("size", strconv.FormatInt(c.size, 10)); err != nil {
		return m, err
	}
	if name == "luks" || s.Text("encrypt.format") == "luks" {
		p, err := c.objects.passphrase(diskimg.KeyRequest{Format: name, Secret: s.Text("encrypt.key-secret") + s.Text("key-secret")})
		if err != nil {
			return m, err
		}
		clear(p)
	}
	return s.Measure(content)
}

// findMeasured returns a format of which images can be measured.
func findMeasured(name string) (*diskimg.Format, error) {
	f, err := diskimg.FindFormat(name)
	switch {
	case err == nil && f.Measure != nil:
		return f, nil
	case diskimg.KnownFormat(name):
		return nil, block.Unsupportedf("Block driver '%s' does not support size measurement", name)
	}
	return nil, block.Unsupportedf("Unknown file format '%s'", name)
}

func printMeasurement(sh *shell, m block.Measurement, json bool) error {
	if json {
		o := object{{"required", m.Required}, {"fully-allocated", m.FullyAllocated}}
		if m.Bitmaps >= 0 {
			o = append(object{{"bitmaps", m.Bitmaps}}, o...)
		}
		return writeJSON(sh.out, o)
	}
	sh.printf("required size: %d\nfully allocated size: %d\n", m.Required, m.FullyAllocated)
	if m.Bitmaps >= 0 {
		sh.printf("bitmaps size: %d\n", m.Bitmaps)
	}
	return nil
}
