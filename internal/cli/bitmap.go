package cli

import (
	"errors"
	"math"
	"slices"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is the verb bitmap: the persistent dirty bitmaps of an image.

var bitmapVerb = verb{
	name: "bitmap", group: groupChange, args: "FILE BITMAP",
	summary: "add, remove, clear, enable, disable or merge dirty bitmaps",
	about: "A dirty bitmap records which parts of a disk have been written. The operations are\n" +
		"done in the order in which they are given, all of them or none.",
	example: "bitmap --add -g 64k disk.qcow2 monday\nbitmap --merge monday -b disk.qcow2 -F qcow2 copy.qcow2 all",
	new:     func() command { return &bitmapCommand{} },
}

type bitmapCommand struct {
	input
	granularityArg *string
	source         *string
	sourceFormat   *string
	edits          []block.BitmapEdit
}

func (c *bitmapCommand) options() []option {
	shared := slices.DeleteFunc(c.input.options(), func(o option) bool { return o.short == 'U' })
	do := func(op block.BitmapOp) func(string) error {
		return func(s string) error {
			c.edits = append(c.edits, block.BitmapEdit{Op: op, Source: s})
			return nil
		}
	}
	return append(shared, []option{
		{long: "add", help: "make a bitmap in which nothing is dirty", set: do(block.AddBitmap)},
		{long: "remove", help: "delete the bitmap", set: do(block.RemoveBitmap)},
		{long: "clear", help: "forget all that it has recorded", set: do(block.ClearBitmap)},
		{long: "enable", help: "record writes from now on", set: do(block.EnableBitmap)},
		{long: "disable", help: "record writes no more", set: do(block.DisableBitmap)},
		{long: "merge", arg: "SOURCE", help: "add what the bitmap SOURCE has recorded", set: do(block.MergeBitmap)},
		{short: 'b', long: "source-file", arg: "FILE", help: "with --merge: the image that has SOURCE", set: given(&c.source)},
		{short: 'F', long: "source-format", arg: "FMT", help: "format of that image", set: given(&c.sourceFormat)},
		{short: 'g', long: "granularity", arg: "SIZE", help: "with --add: bytes of the disk for each bit", set: given(&c.granularityArg)},
	}...)
}

func (c *bitmapCommand) run(sh *shell, args []string) error {
	granularity, err := c.granularity(sh)
	if err != nil {
		return err
	}
	if err := c.check(args); err != nil {
		return err
	}
	for i := range c.edits {
		c.edits[i].Name, c.edits[i].Granularity = args[1], granularity
	}
	img, err := c.input.open(args[0], diskimg.OpenOptions{Writable: true, NoBacking: true})
	if err != nil {
		return err
	}
	if c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	err = c.openSource(func() error { return sh.editBitmaps(img, c.edits) })
	if closed := img.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *bitmapCommand) granularity(sh *shell) (int64, error) {
	if c.granularityArg == nil {
		return 0, nil
	}
	return parseSize(sh, *c.granularityArg, "granularity", math.MaxInt64)
}

// check finds options that exclude each other or need another one.
func (c *bitmapCommand) check(args []string) error {
	has := func(op block.BitmapOp) bool {
		return slices.ContainsFunc(c.edits, func(e block.BitmapEdit) bool { return e.Op == op })
	}
	switch {
	case len(c.edits) == 0:
		return failf("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
	case c.granularityArg != nil && !has(block.AddBitmap):
		return failf("granularity only supported with --add")
	case c.sourceFormat != nil && c.source == nil:
		return failf("-F only supported with -b")
	case c.source != nil && !has(block.MergeBitmap):
		return failf("Merge bitmap source file only supported with --merge")
	case len(args) != 2:
		return failf("Expecting filename and bitmap name")
	}
	return c.input.check()
}

// openSource calls f with the image of -b open, if there is one.
func (c *bitmapCommand) openSource(f func() error) error {
	if c.source == nil {
		return f()
	}
	in := input{objects: c.objects}
	if c.sourceFormat != nil {
		in.format = *c.sourceFormat
	}
	from, err := in.open(*c.source, diskimg.OpenOptions{NoBacking: true})
	if err != nil {
		return err
	}
	defer from.Close()
	for i := range c.edits {
		c.edits[i].From = from
	}
	return f()
}

// editBitmaps makes the changes and words what goes wrong as qemu-img does.
func (sh *shell) editBitmaps(img *diskimg.Image, edits []block.BitmapEdit) error {
	editor, ok := block.As[block.BitmapEditor](img)
	if !ok {
		e := edits[0]
		if e.Op == block.AddBitmap {
			return bitmapFailure(e, "Can't store persistent bitmaps to "+sh.node(img)+": Operation not supported", block.ErrUnsupported)
		}
		return bitmapFailure(e, "Dirty bitmap '"+e.Name+"' not found", block.ErrInvalid)
	}
	err := editor.EditBitmaps(sh.ctx, edits, nil)
	var failed *block.BitmapEditError
	if !errors.As(err, &failed) {
		return err
	}
	text := sentence.Of(failed.Err)
	if failed.Edit.Op == block.AddBitmap && !errors.Is(err, block.ErrInvalid) {
		text = "Can't make bitmap '" + failed.Edit.Name + "' persistent in '" + sh.node(img) + "': " + text
	}
	return bitmapFailure(failed.Edit, text, err)
}

func bitmapFailure(e block.BitmapEdit, text string, err error) error {
	return &sentence.Error{Text: "Operation " + e.Op.String() + " on bitmap " + e.Name + " failed: " + text, Err: err}
}

// node is what messages call an image that has been opened: its path, or a
// name such as QEMU makes up.
func (sh *shell) node(img *diskimg.Image) string {
	if sh.emulate {
		return "#block100"
	}
	return img.Path()
}
