package diskimg

// This file looks at an image without trusting it: one file is opened, its
// header is read, nothing that it names is touched.

import (
	"cmp"

	"github.com/diskimg/diskimg/block"
)

// Info is what an image says of itself, and what the file system says of it.
type Info struct {
	block.Description
	Path string
	Name string // Target.Name
	// DiskSize is how many bytes the file takes up, -1 if that is not known.
	DiskSize int64
	// BackingPath is where the image below would be looked for; empty if
	// there is none, or if that can't be told.
	BackingPath string
	// Guessed: the format was not given.
	Guessed bool
}

// InspectOptions say how to look at an image.
type InspectOptions struct {
	Format string // empty: the file is probed
	// HeadOnly probes as QEMU does, see OpenOptions.
	HeadOnly bool
	// ForceShare looks at the image although another process writes it.
	ForceShare bool
	// ThrottleGroup is that of OpenOptions.
	ThrottleGroup func(name string) (*ThrottleGroup, error)
	// Formats to know of; nil is the package's table.
	Formats []Format
}

// Inspect describes the image at path. It opens no other file, whatever the
// image refers to, and reads at most 1 MiB. A file that looks like no format is
// described as raw, with Guessed set.
func Inspect(path string, o *InspectOptions) (Info, error) { return Target{Path: path}.Inspect(o) }

// Inspect describes the image that t stands for.
func (t Target) Inspect(o *InspectOptions) (Info, error) {
	if o == nil {
		o = &InspectOptions{}
	}
	info, err := t.inspect(o)
	if err != nil {
		return Info{}, openError(t.Path, err)
	}
	return info, nil
}

func (t Target) inspect(o *InspectOptions) (Info, error) {
	c := &chain{formats: o.Formats, headsOnly: true, throttle: o.ThrottleGroup}
	if c.formats == nil {
		c.formats = Formats
	}
	if t.CopyOnRead {
		return Info{}, block.Errorf(block.ErrReadOnly, "Block node is read-only")
	}
	name := cmp.Or(o.Format, t.Format)
	if err := c.mayName(name); err != nil {
		return Info{}, err
	}
	s, err := c.source(t, openLocal, &OpenOptions{ForceShare: o.ForceShare})
	if err != nil {
		return Info{}, err
	}
	f := s.file
	defer f.Close()
	format, by, err := c.formatOf(f, name, o.HeadOnly)
	if err != nil {
		return Info{}, err
	}
	if err := c.mayUse(s.local, t.Path, lockInspect(format, o.ForceShare || t.ForceShare)); err != nil {
		return Info{}, err
	}
	settings, err := format.settings(t.Settings)
	if err != nil {
		return Info{}, err
	}
	d, err := t.describe(f, format, settings)
	if err != nil {
		return Info{}, err
	}
	info := Info{Description: d, Path: t.Path, Name: t.nameAs(format.Name), DiskSize: -1, Guessed: by != named}
	if n, err := block.AllocatedSize(f); err == nil {
		info.DiskSize = n
	}
	if !(t.scattered() && needsDirectory(d.BackingName)) {
		info.BackingPath = BackingPath(t.Path, d.BackingName)
	}
	return info, nil
}

// describe says what the image in f is, with what its name says of it.
func (t Target) describe(f block.File, format *Format, settings *Settings) (block.Description, error) {
	d, err := format.Inspect(f)
	if err != nil {
		return d, err
	}
	if t.driver != "" { // which has nothing to say but what the image below has
		d = block.Description{Format: t.driver, VirtualSize: d.VirtualSize, ClusterSize: d.ClusterSize}
		if below, ok := f.(*compressed); ok {
			d.ClusterSize = below.cluster
		}
	}
	if t.Offset != 0 || t.Size != 0 || t.Settings["force_size_calc"] != "" {
		img, err := format.Open(f, FormatOptions{Path: t.Path, Offset: t.Offset, Size: t.Size, NoBacking: true, Settings: settings})
		if err != nil {
			return d, err
		}
		d.VirtualSize = img.Size()
	}
	return d, nil
}
