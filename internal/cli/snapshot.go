package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is the verb snapshot: the internal snapshots of an image.

var snapshotVerb = verb{
	name: "snapshot", group: groupChange, args: "FILE",
	summary: "list, create, apply or delete internal snapshots",
	about: "A snapshot is applied by its ID or else its name, and deleted by its name (or, but\n" +
		"not as qemu-img, by its ID). Applying one discards what the disk holds now.",
	example: "snapshot -c before-update disk.qcow2\nsnapshot -l disk.qcow2\nsnapshot -a before-update disk.qcow2",
	new:     func() command { return &snapshotCommand{} },
}

type snapshotCommand struct {
	input           input
	quiet, progress bool
	action          byte // of l c a d; 0 if none was given
	name            string
}

func (c *snapshotCommand) options() []option {
	return append(without(c.input.options(), 'f'),
		option{short: 'q', help: "print errors only", set: on(&c.quiet)},
		ownProgress(&c.progress),
		option{short: 'l', help: "list the snapshots", set: func(string) error { return c.choose('l', "") }},
		option{short: 'c', arg: "NAME", help: "create a snapshot", set: func(s string) error { return c.choose('c', s) }},
		option{short: 'a', arg: "SNAPSHOT", help: "make the disk what it was", set: func(s string) error { return c.choose('a', s) }},
		option{short: 'd', arg: "SNAPSHOT", help: "delete a snapshot", set: func(s string) error { return c.choose('d', s) }})
}

func (c *snapshotCommand) choose(action byte, name string) error {
	if c.action != 0 {
		return usageError("Cannot mix '-l', '-a', '-c', '-d'")
	}
	c.action, c.name = action, name
	return nil
}

func (c *snapshotCommand) wipe() { c.input.wipe() }

func (c *snapshotCommand) run(sh *shell, args []string) error {
	if len(args) != 1 {
		return usageError("Expecting one image file name")
	}
	if err := c.input.check(); err != nil {
		return err
	}
	writable := c.action != 'l'
	img, err := c.input.open(args[0], diskimg.OpenOptions{Writable: writable, LiveRaw: true})
	if err != nil {
		return err
	}
	if writable && !c.input.imageOpts {
		sh.warnGuessed(args[0], img)
	}
	if c.action == 'a' && sh.emulate && !c.input.imageOpts {
		sh.warnGuessed(args[0], img) // it opens a raw image once more
	}
	err = c.act(sh, img)
	if closed := img.Close(); err == nil || !errors.Is(closed, block.ErrBroken) {
		err = errors.Join(err, closed) // that an image is broken is said once
	}
	return err
}

func (c *snapshotCommand) act(sh *shell, img *diskimg.Image) error {
	maker, _ := block.As[block.Snapshotter](img)
	if c.action == 'c' {
		return c.create(sh, maker)
	}
	list, err := snapshotsOf(img)
	if err != nil && sh.emulate {
		return openError(img.Path(), err)
	}
	if err != nil {
		return err
	}
	switch c.action {
	case 'l':
		if len(list) > 0 {
			sh.printf("Snapshot list:\n")
			printSnapshots(sh, list)
		}
	case 'a':
		return c.apply(sh, maker, list)
	case 'd':
		return c.delete(sh, img, list)
	}
	return nil
}

func snapshotsOf(img *diskimg.Image) ([]block.Snapshot, error) {
	lister, ok := block.As[block.SnapshotLister](img)
	if !ok {
		return nil, nil
	}
	return lister.Snapshots()
}

// maxSnapshotName is how long the name of a snapshot is for qemu-img: the rest
// is cut off.
const maxSnapshotName = 255

func (c *snapshotCommand) create(sh *shell, maker block.Snapshotter) error {
	err := error(block.ErrUnsupported)
	if maker != nil {
		name := c.name[:min(len(c.name), maxSnapshotName)]
		err = sh.follow(c.progress && !c.quiet, func(update func(done, total int64)) error {
			_, err := maker.CreateSnapshot(sh.ctx, block.Snapshot{Name: name}, update)
			return err
		})
	}
	switch {
	case err == nil:
		return nil
	case !sh.emulate || errors.Is(err, context.Canceled):
		return c.failed("create", err)
	}
	errno := errnoOf(err)
	return failf("Could not create snapshot '%s': -%d (%s)", c.name, int(errno), sentence.Of(errno))
}

// errnoOf returns the number that stands for an error of making a snapshot.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, block.ErrCorrupt):
		return syscall.EAGAIN
	case errors.Is(err, block.ErrUnsupported):
		return syscall.EOPNOTSUPP
	}
	return syscall.EINVAL
}

func (c *snapshotCommand) failed(verb string, err error) error {
	return &sentence.Error{Text: fmt.Sprintf("Could not %s snapshot '%s': %s", verb, c.name, sentence.Of(err)), Err: err}
}

func (c *snapshotCommand) apply(sh *shell, maker block.Snapshotter, list []block.Snapshot) error {
	if maker == nil {
		return failf("Could not apply snapshot '%s': Block driver does not support snapshots", c.name)
	}
	id := c.name
	if sh.emulate {
		id = firstOf(list, id, true)
	}
	err := sh.follow(c.progress && !c.quiet, func(update func(done, total int64)) error {
		return maker.ApplySnapshot(sh.ctx, id, update)
	})
	switch {
	case err == nil || !sh.emulate:
	case errors.Is(err, fs.ErrNotExist):
		return failf("Could not apply snapshot '%s': Failed to load snapshot: No such file or directory", c.name)
	case errors.Is(err, block.ErrUnsupported):
		return failf("Could not apply snapshot '%s': Failed to load snapshot: Operation not supported", c.name)
	}
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case sh.emulate && errors.As(err, &errno):
		return messages{sh.words(err), fmt.Sprintf("Could not apply snapshot '%s': Failed to load snapshot: %s", c.name, sentence.Of(errno))}
	}
	return c.failed("apply", err)
}

func (c *snapshotCommand) delete(sh *shell, img *diskimg.Image, list []block.Snapshot) error {
	maker, _ := block.As[block.Snapshotter](img)
	id := c.name
	if sh.emulate {
		if id = firstOf(list, id, false); id == "" {
			return failf("Could not delete snapshot '%s': snapshot not found", c.name)
		}
	}
	err := error(fs.ErrNotExist)
	if maker != nil {
		err = sh.follow(c.progress && !c.quiet, func(update func(done, total int64)) error {
			return maker.DeleteSnapshot(sh.ctx, id, update)
		})
	}
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case sh.emulate && errors.As(err, &errno) && errors.Is(err, block.ErrBroken) && isGone(id, img):
		fmt.Fprintf(sh.err, "qcow2_free_clusters failed: %s\n", sentence.Of(errno))
		return failf("Could not delete snapshot '%s': Failed to free the cluster and L1 table: %s", c.name, sentence.Of(errno))
	}
	return c.failed("delete", err)
}

// isGone reports whether there is no such snapshot any more.
func isGone(id string, img *diskimg.Image) bool {
	list, err := snapshotsOf(img)
	return err == nil && !slices.ContainsFunc(list, func(s block.Snapshot) bool { return s.ID == id })
}

// firstOf returns the id of the snapshot that qemu-img takes: the one with that
// id, if ids count, or the first with that name. It is name if ids count and
// there is none, otherwise empty.
func firstOf(list []block.Snapshot, name string, ids bool) string {
	for _, s := range list {
		if ids && s.ID == name {
			return name
		}
	}
	for _, s := range list {
		if s.Name == name {
			return s.ID
		}
	}
	if ids {
		return name
	}
	return ""
}
