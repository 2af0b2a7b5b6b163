package cli

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/internal/size"
)

// This file is the verb create, and what it shares with convert: creation
// options from the command line, and the list of them.

var createVerb = verb{
	name: "create", group: groupMake, args: "FILE [SIZE]",
	summary: "make an empty image, or an overlay over another image",
	about: "Without SIZE a new overlay is as large as its backing file. Nothing is written\n" +
		"before all options have been found good, and FILE appears when it is complete.",
	example: "create -f qcow2 disk.qcow2 20G\ncreate -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\ncreate -f qcow2 -o help",
	new:     func() command { return &createCommand{} },
}

type createCommand struct {
	objects          objects
	format           string
	backing          *string
	backingFormat    *string
	list             optionList
	cloud            cloud
	unchecked, quiet bool
}

func (c *createCommand) options() []option {
	return []option{
		c.objects.option(),
		{short: 'q', help: "say nothing", set: on(&c.quiet)},
		{short: 'f', arg: "FMT", help: "format of the new image (default: raw)", set: c.setFormat},
		{short: 'b', arg: "FILE", help: "image below the new one, by a path relative to that", set: given(&c.backing)},
		{short: 'F', arg: "FMT", help: "format of the image below", set: given(&c.backingFormat)},
		{short: 'u', help: "do not open the image below, only name it", set: on(&c.unchecked)},
		optionsOption(&c.list),
		c.cloud.option(),
	}
}

// setFormat takes the format; an empty one is none.
func (c *createCommand) setFormat(name string) error {
	c.format = name
	if name == "" {
		_, err := diskimg.FindCreator(name)
		return err
	}
	return nil
}

func given(value **string) func(string) error {
	return func(s string) error { *value = &s; return nil }
}

func optionsOption(list *optionList) option {
	return option{short: 'o', arg: "OPTIONS", help: "creation options as name=value,name=value\n(\"-o help\" lists those of a format)", set: list.add}
}

func (c *createCommand) wipe() { c.objects.wipe() }

func (c *createCommand) run(sh *shell, args []string) error {
	if len(args) == 0 && !c.list.wantsHelp() {
		return usageError("Expecting image file name")
	}
	if err := c.cloud.apply(&c.format, &c.list); err != nil {
		return err
	}
	var bytes string
	if len(args) >= 2 {
		n, err := parseSize(sh, args[1], "image size", math.MaxInt64)
		if err != nil && !c.list.wantsHelp() {
			return err
		}
		bytes = strconv.FormatInt(n, 10)
	}
	if len(args) > 2 {
		return usageError("Unexpected argument: " + args[2])
	}
	if c.list.wantsHelp() {
		return sh.helpOptions(c.format, args)
	}
	if err := c.create(sh, args[0], bytes); err != nil {
		return c.advise(&sentence.Error{Text: args[0] + ": " + sentence.Of(err), Err: err}, args)
	}
	return nil
}

// advise tells what may be missing from the command line.
func (c *createCommand) advise(err error, args []string) error {
	f, unknown := diskimg.FindCreator(c.format)
	switch {
	case unknown != nil:
		return err
	case errors.Is(err, block.ErrPassphrase):
		return advised{err, "give it with --object secret,id=key,file=PATH -o " + keyOption(c.format) + "=key"}
	case slices.ContainsFunc(c.list.pairs(), func(p pair) bool { return !p.bare && !hasOption(f, p.key) }):
		return advised{err, "'diskimg create -f " + c.format + " -o help' lists what there is for -o"}
	case c.backing != nil && c.backingFormat == nil:
		return advised{err, "say with -F which format " + *c.backing + " has"}
	case len(args) == 1 && c.backing == nil:
		return advised{err, "after the name comes the size of the disk, such as 20G"}
	}
	return err
}

func hasOption(f *diskimg.Format, name string) bool {
	return slices.ContainsFunc(f.Options, func(o diskimg.Option) bool { return o.Name == name })
}

// create makes the image. size is in decimal digits, empty if it is not given.
func (c *createCommand) create(sh *shell, name, size string) error {
	f, err := sh.findCreator(c.format)
	if err != nil {
		return err
	}
	path, err := newPath(name)
	if err != nil {
		return err
	}
	s, err := newSettings(sh, f, &c.list)
	if err != nil {
		return err
	}
	if err := setSize(s, &c.list, size); err != nil {
		return err
	}
	if err := setBacking(s, c.format, c.backing, c.backingFormat); err != nil {
		return err
	}
	plan, err := s.Plan(path, &diskimg.PlanOptions{Policy: permissive, Unchecked: c.unchecked, Passphrase: c.objects.passphrase})
	if err != nil {
		return err
	}
	if !c.quiet {
		sh.printf("Formatting '%s', fmt=%s %s\n", name, c.format, s)
		sh.flush()
	}
	return plan.Create()
}

// findCreator returns the row of a format, without the options that QEMU does
// not have if we stand in for it.
func (sh *shell) findCreator(name string) (*diskimg.Format, error) {
	f, err := diskimg.FindCreator(name)
	if err != nil || !sh.emulate {
		return f, err
	}
	theirs := *f
	theirs.Options = slices.DeleteFunc(slices.Clone(f.Options), func(o diskimg.Option) bool { return o.Ours })
	return &theirs, nil
}

// cloud names who is to take an image, as --for has it.
type cloud string

// clouds says what those take: the format, and what to tell it.
var clouds = map[cloud]struct{ format, options string }{"azure": {"vpc", "azure=on"}}

func (c *cloud) option() option {
	return option{long: "for", arg: "CLOUD", own: true, set: func(s string) error { *c = cloud(s); return nil },
		help: "make what a cloud takes. azure: a fixed VHD with a size of\nwhole MiB, as -f vpc -o azure makes it"}
}

// apply sets format, which is raw if nothing else is given, and options.
func (c cloud) apply(format *string, list *optionList) error {
	if c == "" {
		*format = cmp.Or(*format, "raw")
		return nil
	}
	takes, ok := clouds[c]
	switch {
	case !ok:
		return failf("--for %s: not known, only azure is", c)
	case *format != "" && *format != takes.format:
		return failf("--for %s takes the format %s, not %s", c, takes.format, *format)
	}
	*format = takes.format
	return list.add(takes.options)
}

// newPath returns the path of a file that is to be made.
func newPath(name string) (string, error) {
	if strings.HasPrefix(name, "json:") {
		return "", block.Unsupportedf("Unknown protocol 'json'")
	}
	t, err := diskimg.ParseTarget(name)
	if err == nil && (t.Faults != nil || t.Null != nil || t.Copy != nil) {
		driver, _, _ := strings.Cut(name, ":")
		err = block.Unsupportedf("Protocol driver '%s' does not support image creation", driver)
	}
	return t.Path, err
}

// newSettings returns the creation options of a format with those given set.
func newSettings(sh *shell, f *diskimg.Format, list *optionList) (*diskimg.Settings, error) {
	s := f.Settings()
	for _, p := range list.pairs() {
		if err := setOption(sh, f, s, p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// setOption sets one option. A name alone that begins with "no" is one
// switched off.
func setOption(sh *shell, f *diskimg.Format, s *diskimg.Settings, p pair) error {
	if name, ok := strings.CutPrefix(p.key, "no"); ok && p.bare {
		p.key, p.value = name, "off"
	}
	i := slices.IndexFunc(f.Options, func(o diskimg.Option) bool { return o.Name == p.key })
	if i >= 0 && f.Options[i].Type == diskimg.Size && size.HexWithSuffix(p.value) {
		sh.warnHex(p.value)
	}
	return s.Set(p.key, p.value)
}

func setSize(s *diskimg.Settings, list *optionList, size string) error {
	switch {
	case size == "":
		return nil
	case slices.ContainsFunc(list.pairs(), func(p pair) bool { return p.key == "size" }):
		return failf("The image size must be specified only once")
	}
	return s.Set("size", size)
}

// setBacking sets what -b and -F say.
func setBacking(s *diskimg.Settings, format string, file, fileFormat *string) error {
	if file != nil && s.Set("backing_file", *file) != nil {
		return failf("Backing file not supported for file format '%s'", format)
	}
	if fileFormat != nil && s.Set("backing_fmt", *fileFormat) != nil {
		return failf("Backing file format not supported for file format '%s'", format)
	}
	return nil
}

// parseSize reads a size from the command line; what names it in messages.
func parseSize(sh *shell, s, what string, limit uint64) (int64, error) {
	if size.HexWithSuffix(s) {
		sh.warnHex(s)
	}
	return readSize(s, what, 0, int64(limit))
}

// readSize is parseSize without warnings.
func readSize(s, what string, least, most int64) (int64, error) {
	n, err := size.Parse(s)
	switch {
	case errors.Is(err, size.ErrSyntax):
		return 0, messages{"Invalid " + what + " specified. You may use k, M, G, T, P or E suffixes for",
			"kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."}
	case err != nil || n > uint64(most) || n < uint64(least):
		return 0, failf("Invalid %s specified. Must be between %d and %d.", what, least, most)
	}
	return int64(n), nil
}

func (sh *shell) warnHex(s string) {
	sh.warn("Using a multiplier suffix on hex numbers is deprecated: %s", s)
}

// helpOptions lists the creation options of a format; those about the file
// only if a file is named.
func (sh *shell) helpOptions(format string, args []string) error {
	f, err := sh.findCreator(format)
	if err != nil {
		return err
	}
	options := slices.Clone(f.Options)
	if len(args) > 0 {
		if _, err := newPath(args[0]); err != nil {
			return err
		}
		sh.printf("Supported options:\n")
	} else {
		sh.printf("Supported %s options:\n", format)
		options = slices.DeleteFunc(options, func(o diskimg.Option) bool { return o.File })
	}
	sh.listOptions(options)
	if len(args) == 0 {
		sh.printf("\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n")
	}
	return nil
}

// listOptions shows options of a format, sorted.
func (sh *shell) listOptions(options []diskimg.Option) {
	options = slices.SortedFunc(slices.Values(options), func(a, b diskimg.Option) int { return strings.Compare(a.Name, b.Name) })
	for _, o := range options {
		left := "  " + o.Name + "=<" + [...]string{"str", "bool (on/off)", "size", "num"}[o.Type&3] + ">"
		sh.printf("%-24s - %s\n", left, o.Help)
	}
}
