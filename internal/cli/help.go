package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/diskimg/diskimg"
)

// This file makes all help texts from the tables of verbs, options and formats.

// verb is one row of the table of commands.
type verb struct {
	name    string
	group   string
	summary string // one line
	args    string // what follows the options
	about   string // one or two paragraphs
	example string // one line or several
	own     bool   // qemu-img does not have it
	// longFormat: qemu-img's command knows --format, not only -f.
	longFormat bool
	new        func() command
}

const (
	groupMake   = "Make and copy"
	groupLook   = "Look inside"
	groupChange = "Change"
	groupAbout  = "About diskimg"
)

// verbs returns the table of commands, in the order in which they are shown.
func verbs() []verb {
	return []verb{
		createVerb,
		convertVerb,
		ddVerb,
		infoVerb,
		mapVerb,
		checkVerb,
		compareVerb,
		measureVerb,
		benchVerb,
		ioVerb,
		commitVerb,
		rebaseVerb,
		snapshotVerb,
		bitmapVerb,
		resizeVerb,
		amendVerb,
		completionVerb,
		manVerb,
	}
}

// allowed returns those of a verb's options that can be given.
func (sh *shell) allowed(v *verb, options []option) []option {
	if sh.emulate {
		return v.asQEMU(options)
	}
	return options
}

// asQEMU leaves of the options what qemu-img's command has: the beginnings of
// the others' names may stand for something there.
func (v *verb) asQEMU(options []option) []option {
	options = slices.DeleteFunc(options, func(o option) bool { return o.own })
	for i := range options {
		if options[i].long == "format" && !v.longFormat {
			options[i].long = ""
		}
	}
	return options
}

func findVerb(name string) *verb {
	list := verbs()
	if i := slices.IndexFunc(list, func(v verb) bool { return v.name == name }); i >= 0 {
		return &list[i]
	}
	return nil
}

func (sh *shell) version() error {
	if sh.emulate {
		sh.printf("%s version %s (diskimg %s)\n", sh.name, Emulated, Version)
	} else {
		sh.printf("diskimg version %s\n", Version)
	}
	return nil
}

// overview shows what there is.
func (sh *shell) overview() error {
	if sh.emulate {
		return sh.overviewEmulated()
	}
	sh.printf("diskimg reads, writes, checks and converts the disk images of virtual machines.\n\n")
	sh.printf("usage: %s COMMAND [options] arguments\n", sh.name)
	group := ""
	for _, v := range verbs() {
		if v.group != group {
			group = v.group
			sh.printf("\n%s\n", group)
		}
		sh.printf("  %-10s %s\n", v.name, v.summary)
	}
	sh.printf("\nFormats: %s\n", strings.Join(formatNames(), " "))
	sh.printf("Sizes are in bytes or end in k, M, G, T, P or E, each 1024 times the one before.\n\n")
	sh.printf("%s COMMAND --help tells more about a command, %s --version the version.\n", sh.name, sh.name)
	sh.printf("Called as qemu-img, or as %s qemu-img, it does and prints what qemu-img %s does.\n", sh.name, Emulated)
	return nil
}

// overviewEmulated has the lines of qemu-img's help that programs look for.
func (sh *shell) overviewEmulated() error {
	if err := sh.version(); err != nil {
		return err
	}
	sh.printf("usage: qemu-img [standard options] command [command options]\n\n")
	sh.options(topOptions{sh}.options())
	sh.printf("\nCommand syntax:\n")
	for _, v := range verbs() {
		if v.own {
			continue
		}
		sh.printf("  %s %s%s\n", v.name, syntax(sh.allowed(&v, v.new().options())), v.args)
	}
	sh.printf("\nqemu-img COMMAND --help tells more about a command.\n")
	sh.printf("\nSupported formats: %s\n", strings.Join(formatNames(), " "))
	return nil
}

func formatNames() []string {
	var names []string
	for _, f := range diskimg.Formats {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}

// syntax shows options the short way: [-f FMT] [--output=FMT].
func syntax(options []option) string {
	var b strings.Builder
	for _, o := range options {
		switch {
		case o.short != 0 && o.takesArg():
			fmt.Fprintf(&b, "[-%c %s] ", o.short, o.arg)
		case o.short != 0:
			fmt.Fprintf(&b, "[-%c] ", o.short)
		case o.takesArg():
			fmt.Fprintf(&b, "[--%s=%s] ", o.long, o.arg)
		default:
			fmt.Fprintf(&b, "[--%s] ", o.long)
		}
	}
	return b.String()
}

func (sh *shell) helpVerb(v *verb) error {
	sh.printf("%s %s: %s\n\n", sh.name, v.name, v.summary)
	sh.printf("usage: %s %s [options] %s\n\n%s\n", sh.name, v.name, v.args, v.about)
	sh.printf("\nOptions:\n")
	sh.options(sh.allowed(v, v.allOptions()))
	if v.example != "" {
		sh.printf("\nExample:\n")
		for line := range strings.Lines(v.example) {
			sh.printf("  %s %s", sh.name, line)
		}
		sh.printf("\n")
	}
	return nil
}

const helpColumn = 26

// options prints a table of options, help texts in a column of their own.
func (sh *shell) options(list []option) {
	for _, o := range list {
		left := "  " + o.spelling()
		if len(left) >= helpColumn-1 {
			sh.printf("%s\n", left)
			left = ""
		}
		for line := range strings.SplitSeq(o.help, "\n") {
			sh.printf("%-*s%s\n", helpColumn, left, line)
			left = ""
		}
	}
}

// spelling shows how an option is written: -f, --format=FMT.
func (o *option) spelling() string {
	switch {
	case o.long == "" && o.takesArg():
		return fmt.Sprintf("-%c %s", o.short, o.arg)
	case o.long == "":
		return fmt.Sprintf("-%c", o.short)
	}
	left := "    "
	if o.short != 0 {
		left = fmt.Sprintf("-%c, ", o.short)
	}
	left += "--" + o.long
	if o.takesArg() {
		left += "=" + o.arg
	}
	return left
}
