package diskimg

// This file changes what was chosen when an image was made.

import (
	"context"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
)

// AmendControl goes with Format.Amend.
type AmendControl struct {
	// Shrink allows a smaller size; what lies beyond it is lost.
	Shrink bool
	// Force overwrites key slots that are in use, and erases the last one.
	Force bool
	// Secret finds the passphrases that the settings name; nil knows none.
	// What it returns is cleared after use.
	Secret func(id string) ([]byte, error)
	// Progress, if not nil, is told from time to time how much is done.
	Progress func(done, total int64)
}

// Amendments returns settings for what Format.Amend can change, none of them
// set.
func (f *Format) Amendments() (*Settings, error) {
	if f.Amend == nil {
		return nil, block.Unsupportedf("Format driver '%s' does not support option amendment", f.Name)
	}
	return &Settings{format: f, options: f.Amends, values: map[string]string{}}, nil
}

// creationOnly reports whether an option can be set to value when an image is
// made and not later.
func (s *Settings) creationOnly(name, value string) bool {
	return slices.ContainsFunc(s.format.Options, func(o Option) bool {
		_, err := o.normalize(value)
		return o.Name == name && !o.File && err == nil
	})
}

// qcow2Amends are the options of qcow2 that can be changed.
var qcow2Amends = append(keyOptions("encrypt."),
	Option{Name: "size", Type: Size, Help: "Virtual disk size"},
	Option{Name: "compat", Help: "Compatibility level (v2 [0.10] or v3 [1.1])"},
	Option{Name: "backing_file", Help: "File name of a base image"},
	Option{Name: "backing_fmt", Help: "Image format of the base image"},
	Option{Name: "data_file", Help: "File name of an external data file"},
	Option{Name: "data_file_raw", Type: Switch, Help: "The external data file must stay valid as a raw image"},
	Option{Name: "lazy_refcounts", Type: Switch, Help: "Postpone refcount updates"},
	Option{Name: "refcount_bits", Type: Number, Help: "Width of a reference count entry in bits"},
)

func amendQcow2(ctx context.Context, img *Image, s *Settings, c AmendControl) error {
	o := &qcow2.AmendOptions{RefcountBits: int(s.Number("refcount_bits")), Size: s.Number("size"), Shrink: c.Shrink, Progress: c.Progress}
	if s.Has("compat") {
		o.Version = map[string]int{"1.1": 3, "v3": 3, "0.10": 2, "v2": 2}[s.Text("compat")]
		if o.Version == 0 {
			return block.Invalidf("Unknown compatibility level %s", s.Text("compat"))
		}
	}
	var err error
	if o.Keys, err = amendKeys(img, s, c); err != nil {
		return err
	}
	defer wipe(o.Keys)
	if s.Has("refcount_bits") && o.RefcountBits <= 0 {
		o.RefcountBits = -1
	}
	if s.Has("lazy_refcounts") {
		on := s.Switch("lazy_refcounts")
		o.LazyRefcounts = &on
	}
	if s.Has("data_file") {
		name := s.Text("data_file")
		o.DataFile = &name
	}
	if s.Has("data_file_raw") {
		on := s.Switch("data_file_raw")
		o.DataFileRaw = &on
	}
	if err := sameBacking(img, s); err != nil {
		return err
	}
	return qcow2.Amend(ctx, img, o)
}

// amendKeys returns the change of key slots that is asked for, nil if none is.
func amendKeys(img *Image, s *Settings, c AmendControl) (*block.KeyChange, error) {
	if !s.changesKeys("encrypt.") {
		return nil, nil
	}
	describer, _ := block.As[block.Describer](img)
	d, err := describer.Describe()
	if err == nil && !d.Encrypted {
		err = block.Invalidf("Can't amend encryption options - encryption not present")
	}
	if err != nil {
		return nil, err
	}
	return s.keyChange("encrypt.", c)
}

// sameBacking refuses another backing file or format.
func sameBacking(img *Image, s *Settings) error {
	if !s.Has("backing_file") && !s.Has("backing_fmt") {
		return nil
	}
	describer, _ := block.As[block.Describer](img)
	d, err := describer.Describe()
	if err == nil && (d.BackingName == "" || s.Text("backing_file") != d.BackingName || s.Text("backing_fmt") != d.BackingFormat) {
		err = block.Unsupportedf("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.")
	}
	return err
}
