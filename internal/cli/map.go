package cli

import (
	"fmt"
	"math"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb map: where the content of a disk lies, through its
// whole backing chain.

var mapVerb = verb{
	name: "map", group: groupLook, longFormat: true, args: "FILE",
	summary: "show where in which file the content of a disk lies",
	about: "For people only data is listed that lies in a file as it is; with --output=json\n" +
		"everything is, zeros and compressed data as well.",
	example: "map --output=json overlay.qcow2",
	new:     func() command { return &mapCommand{output: "human", length: math.MaxInt64} },
}

type mapCommand struct {
	input
	output        outputFormat
	start, length int64
	startArg      *string
	lengthArg     *string
}

func (c *mapCommand) options() []option {
	return append(c.input.options(), c.output.option(),
		option{short: 's', long: "start-offset", arg: "OFFSET", help: "begin there", set: given(&c.startArg)},
		option{short: 'l', long: "max-length", arg: "LENGTH", help: "go no further than that from the beginning", set: given(&c.lengthArg)})
}

func (c *mapCommand) run(sh *shell, args []string) error {
	if err := c.parse(sh); err != nil {
		return err
	}
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
	img, err := c.open(args[0], diskimg.OpenOptions{LiveRaw: true})
	if err != nil {
		return err
	}
	defer img.Close()
	if json {
		return c.printJSON(sh, img)
	}
	return c.print(sh, img)
}

func (c *mapCommand) parse(sh *shell) (err error) {
	if c.startArg != nil {
		if c.start, err = parseSize(sh, *c.startArg, "start offset", math.MaxInt64); err != nil {
			return err
		}
	}
	if c.lengthArg != nil {
		c.length, err = parseSize(sh, *c.lengthArg, "max length", math.MaxInt64)
	}
	return err
}

// print lists the data for people, adjacent runs as one.
func (c *mapCommand) print(sh *shell, img *diskimg.Image) error {
	sh.printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File")
	var held job.MapEntry
	for e, err := range job.Map(sh.ctx, img, c.start, c.length) {
		switch {
		case err != nil:
			return mapError(err)
		case !e.Data || e.Zero:
			continue
		case !e.HasOffset:
			printRun(sh, held)
			return failf("File contains external, encrypted or compressed clusters.")
		case held.Length > 0 && held.File == e.File && held.End() == e.Start && held.Offset+held.Length == e.Offset:
			held.Length += e.Length
			continue
		}
		printRun(sh, held)
		held = e
	}
	printRun(sh, held)
	return nil
}

func printRun(sh *shell, e job.MapEntry) {
	if e.Length == 0 {
		return
	}
	sh.printf("%-16s%-16s%-16s%s\n", hex(e.Start), hex(e.Length), hex(e.Offset), fileName(e.File))
}

func hex(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

func fileName(f block.File) string {
	if named, ok := f.(interface{ Name() string }); ok {
		return named.Name()
	}
	return ""
}

// printJSON lists all entries, one a line. An empty range is one empty entry.
func (c *mapCommand) printJSON(sh *shell, img *diskimg.Image) error {
	held := job.MapEntry{Start: c.start}
	separator := ""
	sh.printf("[")
	for e, err := range job.Map(sh.ctx, img, c.start, c.length) {
		if err != nil {
			return mapError(err)
		}
		if held.Length > 0 {
			sh.printf("%s%s", separator, entryJSON(held))
			separator = ",\n"
		}
		held = e
	}
	sh.printf("%s%s]\n", separator, entryJSON(held))
	return nil
}

func entryJSON(e job.MapEntry) string {
	s := fmt.Sprintf(`{ "start": %d, "length": %d, "depth": %d, "present": %t, "zero": %t, "data": %t`,
		e.Start, e.Length, e.Depth, e.Present, e.Zero, e.Data)
	if e.HasOffset {
		s += fmt.Sprintf(`, "offset": %d`, e.Offset)
	}
	return s + "}"
}

func mapError(err error) error {
	return &sentence.Error{Text: "Could not read file metadata: " + sentence.Of(err), Err: err}
}
