package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/size"
)

// This file is the verb info: what an image says of itself. It opens no file
// but the one it is asked about or, with --backing-chain, those below it.

var infoVerb = verb{
	name: "info", group: groupLook, longFormat: true, args: "FILE",
	summary: "show format, size, backing file and snapshots of an image",
	about: "Only the image's header is read. What the image refers to is named and not opened,\n" +
		"except with --backing-chain, which goes on to the images below.",
	example: "info disk.qcow2\ninfo --backing-chain --output=json overlay.qcow2",
	new:     func() command { return &infoCommand{output: "human"} },
}

type infoCommand struct {
	input
	output outputFormat
	chain  bool
}

func (c *infoCommand) options() []option {
	return append(c.input.options(), c.output.option(),
		option{long: "backing-chain", help: "show the images below as well", set: on(&c.chain)})
}

func (c *infoCommand) run(sh *shell, args []string) error {
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
	list, err := c.collect(args[0])
	if err != nil {
		return err
	}
	switch {
	case !json:
		for i, info := range list {
			if i > 0 {
				sh.printf("\n")
			}
			printInfo(sh, info)
		}
		return nil
	case c.chain:
		objects := make([]object, len(list))
		for i, info := range list {
			objects[i] = infoObject(info)
		}
		return writeJSON(sh.out, objects)
	}
	return writeJSON(sh.out, infoObject(list[0]))
}

// collect returns what is known of the image and, if that is wanted, of those
// below it.
func (c *infoCommand) collect(name string) ([]diskimg.Info, error) {
	var list []diskimg.Info
	var seen fileSet
	imageOpts, format := c.imageOpts, c.format
	for {
		info, err := c.inspect(name, format, imageOpts, len(list) > 0)
		if err != nil {
			return nil, err
		}
		list = append(list, info)
		switch {
		case !c.chain || info.BackingName == "":
			return list, nil
		case info.BackingPath == "":
			return nil, failf("Could not determine absolute backing filename, but backing filename '%s' present", info.BackingName)
		case !seen.add(info.Path):
			return nil, failf("Backing file '%s' creates an infinite loop.", name)
		case len(list) >= maxChain:
			return nil, failf("the chain of backing files is longer than %d images", maxChain)
		}
		name, format, imageOpts = info.BackingPath, info.BackingFormat, false
	}
}

func (c *infoCommand) inspect(name, format string, imageOpts, below bool) (diskimg.Info, error) {
	t, err := target(name, imageOpts, &format)
	if err != nil {
		return diskimg.Info{}, openError(name, err)
	}
	info, err := t.Inspect(&diskimg.InspectOptions{Format: format, ForceShare: c.share, HeadOnly: below || !c.ends, ThrottleGroup: c.objects.throttleGroup})
	if err != nil {
		return info, openError(name, err)
	}
	return info, nil
}

// printInfo prints for people.
func printInfo(sh *shell, i diskimg.Info) {
	sh.printf("image: %s\nfile format: %s\nvirtual size: %s (%d bytes)\n", i.Name, i.Format, size.Format(i.VirtualSize), i.VirtualSize)
	if i.DiskSize >= 0 {
		sh.printf("disk size: %s\n", size.Format(i.DiskSize))
	} else {
		sh.printf("disk size: unavailable\n")
	}
	if i.Encrypted {
		sh.printf("encrypted: yes\n")
	}
	if i.ClusterSize != 0 {
		sh.printf("cluster_size: %d\n", i.ClusterSize)
	}
	if i.Dirty {
		sh.printf("cleanly shut down: no\n")
	}
	printBacking(sh, i)
	if len(i.Snapshots) > 0 {
		sh.printf("Snapshot list:\n")
		printSnapshots(sh, i.Snapshots)
	}
	if len(i.Specific) > 0 {
		sh.printf("Format specific information:\n")
		printFields(sh, i.Specific, "    ")
	}
	if len(i.More) > 0 && !sh.emulate {
		sh.printf("More information:\n")
		printFields(sh, i.More, "    ")
	}
}

func printBacking(sh *shell, i diskimg.Info) {
	if i.BackingName == "" {
		return
	}
	sh.printf("backing file: %s", i.BackingName)
	switch i.BackingPath {
	case i.BackingName:
	case "":
		sh.printf(" (cannot determine actual path)")
	default:
		sh.printf(" (actual path: %s)", i.BackingPath)
	}
	sh.printf("\n")
	if i.BackingFormat != "" {
		sh.printf("backing file format: %s\n", i.BackingFormat)
	}
}

func printSnapshots(sh *shell, list []block.Snapshot) {
	sh.printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
	for _, s := range list {
		icount := ""
		if s.ICount >= 0 {
			icount = fmt.Sprint(s.ICount)
		}
		sh.printf("%s %s %8s%20s%13s%11s\n", padded(s.ID, 9), padded(s.Name, 16), size.Format(s.VMStateSize),
			s.Date.Local().Format(time.DateTime), clock(s.VMClock), icount)
	}
}

// padded is s in a column of n bytes, for QEMU does not count characters.
func padded(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }

// clock shows how long a machine has run.
func clock(d time.Duration) string {
	ms := d.Milliseconds()
	return fmt.Sprintf("%02d:%02d:%02d.%03d", ms/3600000, ms/60000%60, ms/1000%60, ms%1000)
}

// printFields prints what only one format has, nested as it is.
func printFields(sh *shell, fields []block.Field, indent string) {
	for _, f := range fields {
		sh.printf("%s%s:", indent, strings.ReplaceAll(f.Name, "-", " "))
		printValue(sh, f.Value, indent)
	}
}

func printValue(sh *shell, value any, indent string) {
	switch v := value.(type) {
	case []block.Field:
		sh.printf("\n")
		printFields(sh, v, indent+"    ")
	case []any:
		sh.printf("\n")
		for i, item := range v {
			sh.printf("%s    [%d]:", indent, i)
			printValue(sh, item, indent+"    ")
		}
	default:
		sh.printf(" %v\n", v)
	}
}

// infoObject has the members in QEMU's order.
func infoObject(i diskimg.Info) object {
	var o object
	add := func(present bool, name string, value any) {
		if present {
			o = append(o, member{name, value})
		}
	}
	add(i.BackingFormat != "" && i.BackingName != "", "backing-filename-format", i.BackingFormat)
	add(len(i.Snapshots) > 0, "snapshots", snapshotObjects(i.Snapshots))
	add(true, "virtual-size", i.VirtualSize)
	add(true, "filename", i.Name)
	add(i.ClusterSize != 0, "cluster-size", i.ClusterSize)
	add(true, "format", i.Format)
	add(i.DiskSize >= 0, "actual-size", i.DiskSize)
	add(len(i.Specific) > 0, "format-specific", object{{"type", i.Format}, {"data", fieldsObject(i.Specific)}})
	add(i.BackingPath != "", "full-backing-filename", i.BackingPath)
	add(i.Encrypted, "encrypted", true)
	add(i.BackingName != "", "backing-filename", i.BackingName)
	add(true, "dirty-flag", i.Dirty)
	return o
}

func snapshotObjects(list []block.Snapshot) []object {
	objects := make([]object, len(list))
	for n, s := range list {
		var o object
		if s.ICount >= 0 {
			o = object{{"icount", s.ICount}}
		}
		objects[n] = append(o, object{
			{"vm-clock-nsec", int64(s.VMClock % time.Second)}, {"name", s.Name},
			{"date-sec", s.Date.Unix()}, {"date-nsec", s.Date.Nanosecond()},
			{"vm-clock-sec", int64(s.VMClock / time.Second)}, {"id", s.ID}, {"vm-state-size", s.VMStateSize},
		}...)
	}
	return objects
}

func fieldsObject(fields []block.Field) object {
	o := make(object, len(fields))
	for n, f := range fields {
		o[n] = member{f.Name, fieldValue(f.Value)}
	}
	return o
}

func fieldValue(value any) any {
	switch v := value.(type) {
	case []block.Field:
		return fieldsObject(v)
	case []any:
		list := make([]any, len(v))
		for n, item := range v {
			list[n] = fieldValue(item)
		}
		return list
	}
	return value
}
