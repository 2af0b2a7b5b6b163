package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/job"
)

// This file is the verb rebase: another image below an overlay.

var rebaseVerb = verb{
	name: "rebase", group: groupChange, args: "FILE",
	summary: "put another image below an overlay, or none",
	about: "FILE reads the same afterwards: what the new image below holds differently is copied\n" +
		"into FILE first. With -u only its name changes, for an image that has been moved, or\n" +
		"made anew with the same content. If the command fails or is interrupted, FILE lies\n" +
		"over the old one.",
	example: "rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\nrebase -b '' overlay.qcow2\nrebase -u -b moved/base.raw -F raw overlay.qcow2",
	new:     func() command { return &rebaseCommand{cache: "writeback", sourceCache: "writeback"} },
}

type rebaseCommand struct {
	input
	backing, backingFormat *string
	cache, sourceCache     cacheMode
	unsafe                 bool
	progress, quiet        bool
}

func (c *rebaseCommand) options() []option {
	return append(c.input.options(), []option{
		{short: 'b', arg: "FILE", help: "the new image below, by a path relative to the overlay;\nempty for none", set: given(&c.backing)},
		{short: 'F', arg: "FMT", help: "format of the image below", set: given(&c.backingFormat)},
		{short: 'u', help: "change the name only; the old image below need not be there", set: on(&c.unsafe)},
		{short: 't', arg: "CACHE", help: "cache mode for writing; with unsafe the command does not\nwait until anything is on disk", set: c.cache.set},
		{short: 'T', arg: "CACHE", help: "cache mode for reading: none, writeback, unsafe …", set: c.sourceCache.set},
		{short: 'p', help: "show progress", set: on(&c.progress)},
		{short: 'q', help: "print errors only", set: on(&c.quiet)},
	}...)
}

func (c *rebaseCommand) run(sh *shell, args []string) error {
	switch {
	case len(args) != 1:
		return usageError("Expecting one image file name")
	case c.backing == nil && !c.unsafe:
		return usageError("Must specify backing file (-b) or use unsafe mode (-u)")
	}
	p := sh.progress(c.progress && !c.quiet)
	defer p.end()
	p.begin()
	if err := c.check(); err != nil {
		return err
	}
	share := c.share
	c.share = false
	img, err := c.open(args[0], diskimg.OpenOptions{Writable: true, NoBacking: c.unsafe, NoSync: c.cache == "unsafe"})
	if err != nil {
		return err
	}
	if c.format == "" && !c.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	c.share = share
	err = c.rebase(sh, p, img)
	if closed := img.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *rebaseCommand) check() error {
	switch {
	case !c.cache.valid():
		return failf("Invalid cache option: %s", c.cache)
	case !c.sourceCache.valid():
		return failf("Invalid source cache option: %s", c.sourceCache)
	}
	return c.input.check()
}

// rebase opens the new image below and does the work.
func (c *rebaseCommand) rebase(sh *shell, p *progress, img *diskimg.Image) error {
	o := job.RebaseOptions{Unsafe: c.unsafe, Same: sameImage, ZerosAsData: sh.emulate}
	if c.backing != nil && *c.backing != "" {
		o.Name = *c.backing
		o.Format = *cmp.Or(c.backingFormat, new(string))
	}
	if c.backingFormat != nil && !diskimg.KnownFormat(*c.backingFormat) {
		return failf("Invalid format name: '%s'", *c.backingFormat)
	}
	var backing *diskimg.Image
	if o.Name != "" && !c.unsafe {
		var err error
		if backing, err = c.openBacking(img, o); err != nil {
			return &sentence.Error{Text: "Could not open new backing file '" + o.Name + "': " + sentence.Of(err), Err: err}
		}
		defer backing.Close()
	}
	if o.Name != "" && o.Format == "" {
		return failf("Could not change the backing file to '%s': backing format must be specified", o.Name)
	}
	if _, ok := block.As[block.BackingChanger](img); !ok {
		p.finish(nil)
		return failf("Could not change the backing file to '%s': Operation not supported", o.Name)
	}
	o.Progress = p.update
	err := job.Rebase(sh.ctx, img, backing, &o)
	p.finish(err)
	err = c.word(err, img, o.Name)
	var damage *block.DamageError
	if errors.As(err, &damage) && !damage.Marked && sh.emulate {
		err = &sentence.Error{Text: fmt.Sprintf("error while reading from %s backing file", whose(err, img)), Err: err}
	}
	return err
}

// whose reports whether err is about an image that lies below img or is to.
func whose(err error, img *diskimg.Image) string {
	var e *block.Error
	for b := img.Backing(); b != nil && errors.As(err, &e); b = b.Backing() {
		if b.Path() == e.Path {
			return "old"
		}
	}
	return "new"
}

// sameImage reports whether two images are one file, read in the same way.
func sameImage(a, b *diskimg.Image) bool {
	p, err := os.Stat(a.Path())
	q, qerr := os.Stat(b.Path())
	return err == nil && qerr == nil && os.SameFile(p, q) && a.Format() == b.Format() && a.Size() == b.Size()
}

func (c *rebaseCommand) openBacking(img *diskimg.Image, o job.RebaseOptions) (*diskimg.Image, error) {
	t, err := diskimg.ParseTarget(diskimg.BackingPath(img.Path(), o.Name))
	if err != nil {
		return nil, err
	}
	return t.Open(&diskimg.OpenOptions{Format: o.Format, HeadOnly: true, Policy: permissive, ForceShare: c.share, Passphrase: c.objects.passphrase})
}

// word tells what kept the overlay from being rebased.
func (c *rebaseCommand) word(err error, img *diskimg.Image, name string) error {
	var e *block.Error
	switch {
	case errors.Is(err, context.Canceled):
		return interrupted("%s lies over the old image still", img.Path())
	case errors.As(err, &e) && e.Op == "rebase":
		return &sentence.Error{Text: "Could not change the backing file to '" + name + "': " + sentence.Of(err), Err: err}
	}
	return copyError(err)
}
