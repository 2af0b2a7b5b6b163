package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is the commands of qemu-io that are about the image as a whole.

func ioImageWords() []ioWord {
	return []ioWord{
		{name: "open", alias: "o", args: "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", summary: "open the file specified by path",
			about: "The options are those of the program itself; -o takes a list as --image-opts does,\nas in open -o driver=raw disk.", min: 1, max: -1, run: (*ioSession).open},
		{name: "close", alias: "c", summary: "close the current open file", file: true, run: (*ioSession).closeWord},
		{name: "reopen", args: "[(-r|-w)] [-c cache] [-o options]", summary: "reopens an image with new options",
			about: "-r   for reading only\n-w   for writing\n-c m with cache mode m\n-o l with the options of list l", max: -1, file: true, run: (*ioSession).reopen},
		{name: "length", alias: "l", summary: "gets the length of the current file", file: true, run: (*ioSession).length},
		{name: "truncate", alias: "t", args: "[-m prealloc_mode] off", summary: "truncates the current file at the given offset",
			min: 1, max: 3, file: true, write: true, run: (*ioSession).truncate},
		{name: "info", alias: "i", summary: "prints information about the current file", file: true, run: (*ioSession).info},
		{name: "map", summary: "prints the allocated areas of a file", file: true, run: (*ioSession).mapWord},
		{name: "alloc", alias: "a", args: "offset [count]", summary: "checks if offset is allocated in the file", min: 1, max: 2, file: true, run: (*ioSession).alloc},
		{name: "flush", alias: "f", summary: "flush all in-core file state to disk", file: true, run: (*ioSession).flush},
	}
}

// ioOpening is how an image is opened, and again for reopen.
type ioOpening struct {
	openFlags
	name    string // empty: there are options only, unless it was given so
	named   bool
	format  string
	share   bool
	options map[string]string // besides the name
	target  diskimg.Target
}

// parse makes the target of the name and the options.
func (o *ioOpening) parse() (err error) {
	if o.target, err = diskimg.ParseTargetWith(o.name, o.options); err != nil {
		return o.failure(err)
	}
	if _, given := o.options["read-only"]; given && !o.target.ReadOnly {
		o.readOnly = false
	}
	return nil
}

// writethrough reports whether each write is to be on disk when it returns: it
// is, unless somebody asks for something else.
func (o *ioOpening) writethrough() bool {
	return o.cache == "" && !o.direct || o.cache == "writethrough" || o.cache == "directsync"
}

func (o *ioOpening) open(objects *objects) (*diskimg.Image, error) {
	if err := o.checkImage(); err != nil {
		return nil, err
	}
	img, err := o.target.Open(&diskimg.OpenOptions{
		Format: o.format, HeadOnly: true, Policy: permissive, ForceShare: o.share, Snapshot: o.snapshot && !o.readOnly,
		Writable: !o.readOnly, NoSync: o.cache == "unsafe", CopyOnRead: o.copyOnRead, Passphrase: objects.passphrase, ThrottleGroup: objects.throttleGroup, IgnoreDiscards: o.ignoresDiscard(),
	})
	if err != nil {
		return nil, err
	}
	if e, ok := block.As[block.BitmapEditor](img); ok && img.Writable() {
		err = e.HoldBitmaps()
	}
	if err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// openNamed opens the image that the command line names.
func (s *ioSession) openNamed(name string, in *input, flags openFlags) error {
	o := ioOpening{openFlags: flags, name: name, named: true, format: in.format, share: in.share}
	if in.imageOpts {
		o.name, o.named, o.options = "", false, imageOptions(name)
	}
	if err := o.parse(); err != nil {
		return err
	}
	return s.openAs(o)
}

func (s *ioSession) openAs(o ioOpening) error {
	img, err := o.open(s.objects)
	if err != nil {
		return o.failure(err)
	}
	s.img, s.opened = img, o
	if f := o.target.Faults; f != nil {
		f.Say = s.heard.say
	}
	if o.format == "" && o.target.Format == "" && !o.readOnly && img.Format() == "raw" {
		fmt.Fprintf(s.sh.err, "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"+
			"         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n"+
			"         Specify the 'raw' format explicitly to remove the restrictions.\n", o.shown())
	}
	return nil
}

// shown is what a message calls the image.
func (o *ioOpening) shown() string {
	if o.name == "" || strings.HasPrefix(o.name, "json:") || strings.HasPrefix(o.name, "file:") {
		return o.target.Path
	}
	return o.name
}

func (o *ioOpening) failure(err error) error {
	var m *diskimg.MismatchError
	if errors.As(err, &m) {
		return ioComplains(m.Error())
	}
	text := "can't open"
	if o.named {
		text += " device " + o.name
	}
	return &sentence.Error{Text: text + ": " + sentence.Of(err), Err: err}
}

// open is the command: options, then a name or none.
func (s *ioSession) open(words []string) error {
	var o ioOpening
	var list optionList
	options := append(o.shortOptions(), option{short: 'U', set: on(&o.share)},
		option{short: 'o', arg: "OPTIONS", set: list.add})
	args, err := getopt(options, words[1:], false)
	if err == nil {
		err = o.openFlags.check()
	}
	switch {
	case err != nil:
		return err
	case len(args) > 1:
		return errIOUsage
	case s.img != nil:
		return failf("file open already, try 'help close'")
	case len(args) == 0 && list.text == "":
		return failf("can't open: Must specify either driver or file")
	case len(args) == 1:
		o.name, o.named = args[0], true
	}
	o.options = map[string]string{}
	for _, p := range list.pairs() {
		o.options[p.key] = p.value
	}
	if err := o.parse(); err != nil {
		return err
	}
	return s.openAs(o)
}

// shortOptions are the short options only: commands have no long ones.
func (o *ioOpening) shortOptions() []option {
	list := o.openFlags.options()
	for i := range list {
		list[i].long = ""
	}
	return list
}

func (s *ioSession) closeWord([]string) error { return s.close() }

// close waits for what is under way and closes the image.
func (s *ioSession) close() error {
	if f := s.opened.target.Faults; f != nil {
		f.ReleaseAll()
	}
	s.settle()
	err := s.img.Close()
	s.img = nil
	if s.damaged {
		err = nil // it has been told
	}
	s.damaged, s.gone = false, false
	if s.sh.emulate && errors.Is(err, block.ErrBroken) && errors.As(err, new(syscall.Errno)) {
		return s.unwritten(err)
	}
	return err
}

// unwritten tells, as QEMU does, that tables could not be written. It would have
// tried again meanwhile: what has failed once is over.
func (s *ioSession) unwritten(err error) error {
	if f := s.opened.target.Faults; f != nil && !f.Failing() {
		return nil
	}
	s.sh.complain("Failed to flush the L2 table cache: %s", ioCause(err))
	s.sh.complain("Failed to flush the refcount block cache: %s", ioCause(err))
	return errIOSaid
}

func (s *ioSession) length([]string) error {
	if s.gone {
		return saysf("getlength: %s", ioCause(errGone))
	}
	fmt.Fprintln(s.out, ioAmount(float64(s.img.Size())))
	return nil
}

func (s *ioSession) truncate(words []string) error {
	var mode string
	args, err := ioFlags(words, "m:", func(_ byte, value string) error { mode = value; return nil })
	if err != nil {
		return err
	}
	o := block.ResizeOptions{Shrink: true}
	if mode != "" {
		if o.Preallocation, err = block.ParsePreallocation(mode); err != nil {
			return failf("Invalid preallocation mode '%s'", mode)
		}
	}
	if len(args) != 1 && len(args) != 2 {
		return errIOUsage
	}
	size, err := ioSize(args[0])
	if err != nil {
		return err
	}
	if s.gone {
		return failf("No medium inserted")
	}
	r, ok := block.As[block.Resizer](s.img)
	if !ok {
		return failf("Image format driver does not support resize")
	}
	s.settle()
	err = r.Resize(s.sh.ctx, size, o)
	if errors.Is(err, block.ErrUnsupported) && s.opened.target.Null != nil {
		return failf("Image format driver does not support resize")
	}
	if errors.As(err, new(*block.DamageError)) && s.sh.emulate {
		return failf("Failed to discard cropped clusters: %s", s.cause(err))
	}
	return err
}

func (s *ioSession) flush([]string) error {
	if s.img.Flush() != nil {
		return errIOSaid
	}
	return nil
}

func (s *ioSession) info([]string) error {
	if s.gone {
		return errIOSaid
	}
	t := s.opened.target
	fmt.Fprintf(s.out, "format name: %s\n", cmp.Or(t.Driver(), s.img.Format()))
	if t.IsProtocol() {
		fmt.Fprintf(s.out, "format name: %s\n", t.Driver())
	}
	describer, ok := block.As[block.Describer](s.img)
	if !ok || t.Null != nil {
		return errIOSaid
	}
	d, err := describer.Describe()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "cluster size: %s\n", ioAmount(float64(d.ClusterSize)))
	fmt.Fprintf(s.out, "vm state offset: %s\n", ioAmount(float64(stateOffset(d))))
	if len(d.Specific) > 0 && t.Driver() == "" {
		fmt.Fprintln(s.out, "Format specific information:")
		printFields(s.sh, d.Specific, "    ")
	}
	return nil
}

// stateOffset is where the saved state of a machine begins in the address space
// of a qcow2 disk: behind the L2 tables that the disk needs.
func stateOffset(d block.Description) int64 {
	if d.Format != "qcow2" {
		return 0
	}
	entry := int64(8)
	for _, f := range d.Specific {
		if f.Name == "extended-l2" && f.Value == true {
			entry = 16
		}
	}
	covered := d.ClusterSize / entry * d.ClusterSize
	return (d.VirtualSize + covered - 1) / covered * covered
}

// runs calls yield for each run of the disk that is alike in whether this
// image, and not one below it, decides what it holds.
func (s *ioSession) runs(off, n int64, yield func(off, n int64, allocated bool)) error {
	s.collect()
	if s.gone {
		return errGone
	}
	start, allocated := off, false
	end := off
	for e, err := range s.img.Extents(off, n) {
		if err != nil {
			if end > start {
				yield(start, end-start, allocated)
			}
			return err
		}
		if own := e.Allocated && e.Depth == 0; own != allocated || end == off {
			if end > start {
				yield(start, end-start, allocated)
			}
			start, allocated = e.Start, own
		}
		end = e.End()
	}
	if end > start {
		yield(start, end-start, allocated)
	}
	return nil
}

func (s *ioSession) mapWord([]string) error {
	if s.gone {
		return failf("Failed to query image length: %s", ioCause(errGone))
	}
	err := s.runs(0, math.MaxInt64, func(off, n int64, allocated bool) {
		word := "not allocated"
		if allocated {
			word = "    allocated"
		}
		fmt.Fprintf(s.out, "%s (0x%x) bytes %s at offset %s (0x%x)\n", ioAmount(float64(n)), n, word, ioAmount(float64(off)), off)
	})
	if err != nil {
		return failf("Failed to get allocation status: %s", s.cause(err))
	}
	return nil
}

func (s *ioSession) alloc(words []string) error {
	off, err := ioSize(words[1])
	if err != nil {
		return err
	}
	n := int64(sector)
	if len(words) == 3 {
		if n, err = ioSize(words[2]); err != nil {
			return err
		}
	}
	given := len(words) == 3
	if off+n > s.img.Size() && !given {
		n = max(0, s.img.Size()-off)
	}
	sum := int64(0)
	n = max(0, min(n, s.img.Size()-off))
	err = s.runs(off, n, func(_, n int64, allocated bool) {
		if allocated {
			sum += n
		}
	})
	if err != nil {
		return saysf("is_allocated failed: %s", s.cause(err))
	}
	fmt.Fprintf(s.out, "%d/%d bytes allocated at offset %s\n", sum, n, ioAmount(float64(off)))
	return nil
}

func (s *ioSession) readState(p []byte, off int64) error {
	v, ok := block.As[block.VMStateKeeper](s.img)
	if !ok {
		return block.ErrUnsupported
	}
	return v.ReadVMState(p, off)
}

func (s *ioSession) writeState(p []byte, off int64) error {
	v, ok := block.As[block.VMStateKeeper](s.img)
	if !ok {
		return block.ErrUnsupported
	}
	return v.WriteVMState(p, off)
}

// cause words the error of a request, and tells of damage to the image when it
// is met first.
func (s *ioSession) cause(err error) string {
	var e *block.DamageError
	if errors.As(err, &e) && !s.damaged {
		s.damaged = true
		s.sh.tellDamage(s.img.Format(), e)
		s.gone = e.Marked && s.sh.emulate
	}
	var m *diskimg.MismatchError
	if errors.As(err, &m) {
		fmt.Fprintln(s.sh.err, m)
		s.quit = true
	}
	return ioCause(err)
}
