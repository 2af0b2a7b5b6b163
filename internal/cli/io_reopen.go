package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
)

// This file is the command reopen of qemu-io.

func (s *ioSession) reopen(words []string) error {
	var r ioReopening
	args, err := getopt([]option{
		{short: 'r', set: on(&r.readOnly)}, {short: 'w', set: on(&r.writable)},
		{short: 'c', arg: "CACHE", set: text(&r.cache)}, {short: 'o', arg: "OPTIONS", set: r.list.add},
	}, words[1:], false)
	switch {
	case err != nil:
		return err
	case r.readOnly && r.writable:
		return failf("Only one -r/-w option may be given")
	case r.cache != "" && !cacheMode(r.cache).valid():
		return failf("Invalid cache option: %s", r.cache)
	case len(args) > 0:
		return errIOUsage
	}
	if err := r.check(); err != nil {
		return err
	}
	next, err := s.changed(&r)
	if err != nil {
		return err
	}
	return s.openAgain(next)
}

// ioReopening is what reopen is to change.
type ioReopening struct {
	readOnly, writable bool
	cache              string
	list               optionList
}

// check finds options that say the same as a flag.
func (r *ioReopening) check() error {
	for _, p := range r.list.pairs() {
		switch p.key {
		case "read-only":
			if r.readOnly || r.writable {
				return failf("Cannot set both -r/-w and 'read-only'")
			}
		case "cache.direct", "cache.no-flush":
			if r.cache != "" {
				return failf("Cannot set both -c and the cache options")
			}
		}
	}
	return nil
}

// changed is how the image is opened, with what is to be changed.
func (s *ioSession) changed(r *ioReopening) (ioOpening, error) {
	next := s.opened
	next.options = maps.Clone(s.opened.options)
	if next.options == nil {
		next.options = map[string]string{}
	}
	for _, p := range r.list.pairs() {
		if err := s.mayChange(p.key, p.value); err != nil {
			return next, err
		}
		next.options[p.key] = p.value
	}
	if r.cache != "" {
		next.cache = r.cache
	}
	if r.readOnly || r.writable {
		next.readOnly = r.readOnly
		delete(next.options, "read-only")
	}
	if len(r.list.pairs()) == 0 {
		next.target.ReadOnly = next.target.ReadOnly && !r.writable
		return next, nil
	}
	was := next.target
	var err error
	if next.target, err = diskimg.ParseTargetWith(next.name, next.options); err != nil {
		return next, err
	}
	if was.Faults != nil && next.target.Faults != nil {
		next.target.Faults = was.Faults // which remember how far they are
	}
	return next, s.applyReadOnly(&next)
}

// applyReadOnly follows the option read-only.
func (s *ioSession) applyReadOnly(next *ioOpening) error {
	if _, given := next.options["read-only"]; !given {
		return nil
	}
	if next.target.ReadOnly && s.img.Writable() {
		return block.Errorf(block.ErrReadOnly, "Read-only block node cannot support read-write users")
	}
	next.readOnly = next.target.ReadOnly
	return nil
}

// changeable are the options that every node can change. What a format can be
// told when it is opened, it can be told again.
var changeable = []string{"read-only", "auto-read-only", "cache.direct", "cache.no-flush", "discard", "detect-zeroes"}

// mayChange refuses to change what an image is.
func (s *ioSession) mayChange(key, value string) error {
	if slices.Contains(changeable, key) || s.isRuntime(key) {
		return nil
	}
	if now, known := s.current(key); known && now == value {
		return nil
	}
	if key == "file" || key == "backing" {
		return failf("Cannot find device='' nor node-name='%s'", value)
	}
	return failf("Cannot change the option '%s'", s.ownKey(key))
}

func (s *ioSession) isRuntime(key string) bool {
	f, err := diskimg.FindFormat(s.img.Format())
	if err != nil {
		return false
	}
	return slices.ContainsFunc(f.Runtime, func(o diskimg.Option) bool { return o.Name == key })
}

// current returns the value of an option of the open image.
func (s *ioSession) current(key string) (value string, known bool) {
	if value, known = s.opened.options[key]; known {
		return value, true
	}
	switch {
	case key == "driver" && s.opened.target.Driver() != "":
		return s.opened.target.Driver(), true
	case key == "driver":
		return s.img.Format(), true
	case key == "file.driver":
		return "file", true
	case key == "file.filename":
		return s.opened.target.Path, true
	case key == "backing.driver" && s.img.Backing() != nil:
		return s.img.Backing().Format(), true
	}
	return "", false
}

// ownKey is the name of an option for the node that it is about.
func (s *ioSession) ownKey(key string) string {
	for img := s.img; img != nil; {
		rest, below := strings.CutPrefix(key, "backing.")
		if !below || img.Backing() == nil {
			break
		}
		key, img = rest, img.Backing()
	}
	return strings.TrimPrefix(key, "file.")
}

// openAgain closes the image and opens it in another way or, if that fails, as
// it was.
func (s *ioSession) openAgain(next ioOpening) error {
	s.settle()
	if next.snapshot {
		return failf("an image with its changes in memory can't be opened again")
	}
	was := s.opened
	if err := s.close(); err != nil {
		return err
	}
	img, err := next.open(s.objects)
	if err == nil {
		s.img, s.opened = img, next
		return nil
	}
	if img, again := was.open(s.objects); again == nil {
		s.img = img
	}
	return err
}
