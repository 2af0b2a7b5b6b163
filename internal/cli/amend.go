package cli

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is the verb amend.

var amendVerb = verb{
	name: "amend", group: groupChange, args: "FILE",
	summary: "change what was chosen when an image was made",
	about: "All options are checked before anything is changed, and a power cut leaves an\n" +
		"image that is sound. A smaller size needs --shrink, but not as qemu-img.",
	example: "amend -o compat=0.10 disk.qcow2\namend -o refcount_bits=64,lazy_refcounts=on disk.qcow2\namend -f qcow2 -o help",
	new:     func() command { return &amendCommand{cache: "writeback"} },
}

type amendCommand struct {
	input
	list          optionList
	cache         cacheMode
	force, shrink bool
	quiet, shown  bool
}

func (c *amendCommand) options() []option {
	return append(without(c.input.options(), 'U'), []option{
		{short: 'o', arg: "OPTIONS", help: "what is to be different, as name=value,name=value\n(\"-o help\" lists what can be)", set: c.list.add},
		{short: 't', arg: "CACHE", help: "cache mode for writing; with unsafe the command does not\nwait until anything is on disk", set: c.cache.set},
		{long: "force", help: "allow what may make the image unreadable: erasing the last\nkey of an encrypted one", set: on(&c.force)},
		{long: "shrink", own: true, help: "allow a smaller size", set: on(&c.shrink)},
		{short: 'p', help: "show progress", set: on(&c.shown)},
		{short: 'q', help: "print errors only", set: on(&c.quiet)},
	}...)
}

func (c *amendCommand) run(sh *shell, args []string) error {
	if c.list.text == "" {
		return usageError("Must specify options (-o)")
	}
	p := sh.progress(c.shown && !c.quiet)
	p.steps = true
	defer p.end()
	if c.format != "" && c.list.wantsHelp() {
		f, err := diskimg.FindFormat(c.format)
		if err != nil {
			return failf("Unknown file format '%s'", c.format)
		}
		return sh.helpAmend(f)
	}
	if len(args) != 1 {
		return bareUsageError("Expecting one image file name")
	}
	if err := c.input.check(); err != nil {
		return err
	}
	if !c.cache.valid() {
		return failf("Invalid cache option: %s", c.cache)
	}
	img, err := c.input.open(args[0], diskimg.OpenOptions{Writable: true, NoSync: c.cache == "unsafe"})
	if err != nil {
		return err
	}
	if c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	err = c.amend(sh, p, img)
	if closed := img.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *amendCommand) amend(sh *shell, p *progress, img *diskimg.Image) error {
	f, err := diskimg.FindFormat(img.Format())
	if err != nil {
		return err
	}
	s, err := f.Amendments()
	if err != nil {
		return err
	}
	if c.list.wantsHelp() {
		return sh.helpAmend(f)
	}
	for _, pair := range c.list.pairs() {
		if err := setOption(sh, f, s, pair); err != nil {
			return err
		}
	}
	p.begin()
	defer p.finish(nil)
	err = f.Amend(sh.ctx, img, s, diskimg.AmendControl{
		Shrink: c.shrink || sh.emulate, Force: c.force, Secret: c.objects.copyOf, Progress: p.update,
	})
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return interrupted("what had not been changed in %s yet is as it was", img.Path())
	}
	if text := sh.words(err); sh.emulate && errors.As(err, &errno) && strings.HasPrefix(text, "Snapshot L1 table") {
		return messages{text, "Failed to turn zero into data clusters: " + sentence.Of(errno)}
	}
	return err
}

func (sh *shell) helpAmend(f *diskimg.Format) error {
	if _, err := f.Amendments(); err != nil {
		return err
	}
	sh.printf("Amend options for '%s':\n", f.Name)
	sh.listOptions(f.Amends)
	return nil
}
