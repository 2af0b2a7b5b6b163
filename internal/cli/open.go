package cli

import (
	"os"
	"slices"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file opens the images that a command line names.

// maxChain is how long a backing chain may be for a command.
const maxChain = 200

// permissive is what an image that a user names may refer to.
var permissive = diskimg.Permissive{MaxDepth: maxChain}

// input is the options by which a command says how its images are to be read.
type input struct {
	format    string
	imageOpts bool
	share     bool
	objects   objects
	ends      bool // a format may be known by the end of a file
}

// seeEnds has the images be probed in a way that qemu-img does not know.
func (i *input) seeEnds() { i.ends = true }

func (i *input) options() []option {
	return []option{
		i.objects.option(),
		{long: "image-opts", help: "file names are lists as driver=qcow2,file.filename=disk", set: on(&i.imageOpts)},
		{short: 'f', long: "format", arg: "FMT", help: "format of the image; without it, it is guessed", set: i.setFormat},
		{short: 'U', long: "force-share", help: "open the image even if another program is writing it", set: on(&i.share)},
	}
}

// setFormat takes the format. To guess it, the option is left out.
func (i *input) setFormat(name string) error {
	i.format = name
	if name == "" {
		_, err := diskimg.FindFormat(name)
		return err
	}
	return nil
}

var errBothFormats = failf("--image-opts and --format are mutually exclusive")

// check finds options that exclude each other.
func (i *input) check() error {
	if i.imageOpts && i.format != "" {
		return errBothFormats
	}
	return nil
}

func (i *input) wipe() { i.objects.wipe() }

// open opens the image called name. The caller closes it.
func (i *input) open(name string, o diskimg.OpenOptions) (*diskimg.Image, error) {
	if o.Format == "" {
		o.Format = i.format
	}
	o.Policy, o.ForceShare, o.Passphrase, o.HeadOnly = permissive, i.share, i.objects.passphrase, !i.ends
	o.ThrottleGroup = i.objects.throttleGroup
	t, err := target(name, i.imageOpts, &o.Format)
	if err != nil {
		return nil, openError(name, err)
	}
	img, err := t.Open(&o)
	if err != nil {
		return nil, openError(name, err)
	}
	return img, nil
}

// target reads a name, or with --image-opts a list of options. A format that is
// a driver of another kind becomes a part of it.
func target(name string, imageOpts bool, format *string) (diskimg.Target, error) {
	switch {
	case imageOpts:
		return diskimg.TargetFromOptions(imageOptions(name))
	case diskimg.IsDriver(*format):
		options := map[string]string{"driver": *format}
		*format = ""
		return diskimg.ParseTargetWith(name, options)
	}
	return diskimg.ParseTarget(name)
}

// imageOptions reads the list that --image-opts takes.
func imageOptions(list string) map[string]string {
	options := map[string]string{}
	for _, p := range splitImplied(list, "file") {
		options[p.key] = p.value
	}
	return options
}

func openError(name string, err error) error {
	return &sentence.Error{Text: "Could not open '" + name + "': " + sentence.Of(err), Err: err}
}

// on, text and ignore are what most options do with what they are told.
func on(flag *bool) func(string) error {
	return func(string) error { *flag = true; return nil }
}

func text(value *string) func(string) error {
	return func(s string) error { *value = s; return nil }
}

// outputFormat is the value of --output.
type outputFormat string

func (o *outputFormat) option() option {
	return option{long: "output", arg: "human|json", help: "how to print the result",
		set: func(s string) error { *o = outputFormat(s); return nil }}
}

// json checks the value and reports whether it asks for JSON.
func (o outputFormat) json() (bool, error) {
	switch o {
	case "human":
		return false, nil
	case "json":
		return true, nil
	}
	return false, failf("--output must be used with human or json as argument.")
}

// cacheMode is how the operating system's cache is used. What it comes to
// here: whether the result is known to be on disk when the command ends.
type cacheMode string

var cacheModes = map[cacheMode]bool{"none": true, "off": true, "directsync": true, "writeback": true, "writethrough": true, "unsafe": true}

func (m cacheMode) valid() bool { return cacheModes[m] }

// fileSet is a set of files, whatever names they are known by.
type fileSet []os.FileInfo

// add reports whether the file at path was not in the set.
func (s *fileSet) add(path string) bool {
	info, err := os.Stat(path)
	if err != nil || s.has(info) {
		return err != nil
	}
	*s = append(*s, info)
	return true
}

func (s fileSet) has(info os.FileInfo) bool {
	return slices.ContainsFunc(s, func(other os.FileInfo) bool { return os.SameFile(info, other) })
}

func (m *cacheMode) set(s string) error { *m = cacheMode(s); return nil }
