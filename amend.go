package diskimg

// This file changes what was chosen when an image was made.

import (
	"errors"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
)

// AmendControl goes with Format.Amend.
type AmendControl struct {
	// Shrink allows a smaller size; what lies beyond it is lost.
	Shrink bool
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

// creationOnly reports whether an option can be set when an image is made and
// not later.
func (s *Settings) creationOnly(name string) bool {
	return slices.ContainsFunc(s.format.Options, func(o Option) bool { return o.Name == name && !o.File })
}

// qcow2Amends are the options of qcow2 that can be changed.
var qcow2Amends = []Option{
	{Name: "encrypt.state", Help: "Select new state of affected keyslots (active/inactive)"},
	{Name: "encrypt.new-secret", Help: "New secret to set in the matching keyslots. Empty string to erase"},
	{Name: "encrypt.old-secret", Help: "Select all keyslots that match this password"},
	{Name: "encrypt.keyslot", Type: Number, Help: "Select a single keyslot to modify explicitly"},
	{Name: "encrypt.iter-time", Type: Number, Help: "Time to spend in PBKDF in milliseconds"},
	{Name: "size", Type: Size, Help: "Virtual disk size"},
	{Name: "compat", Help: "Compatibility level (v2 [0.10] or v3 [1.1])"},
	{Name: "backing_file", Help: "File name of a base image"},
	{Name: "backing_fmt", Help: "Image format of the base image"},
	{Name: "data_file", Help: "File name of an external data file"},
	{Name: "data_file_raw", Type: Switch, Help: "The external data file must stay valid as a raw image"},
	{Name: "lazy_refcounts", Type: Switch, Help: "Postpone refcount updates"},
	{Name: "refcount_bits", Type: Number, Help: "Width of a reference count entry in bits"},
}

func amendQcow2(img *Image, s *Settings, c AmendControl) error {
	o := &qcow2.AmendOptions{RefcountBits: int(s.Number("refcount_bits")), Size: s.Number("size"), Shrink: c.Shrink, Progress: c.Progress}
	if s.Has("compat") {
		o.Version = map[string]int{"1.1": 3, "v3": 3, "0.10": 2, "v2": 2}[s.Text("compat")]
		if o.Version == 0 {
			return block.Invalidf("Unknown compatibility level %s", s.Text("compat"))
		}
	}
	if err := amendKeys(img, s); err != nil {
		return err
	}
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
	return qcow2.Amend(img, o)
}

// amendKeys refuses to change key slots.
func amendKeys(img *Image, s *Settings) error {
	given := slices.ContainsFunc(qcow2Amends, func(o Option) bool { return strings.HasPrefix(o.Name, "encrypt.") && s.Has(o.Name) })
	if !given {
		return nil
	}
	describer, _ := block.As[block.Describer](img)
	d, err := describer.Describe()
	if err == nil && d.Encrypted {
		return block.Unsupportedf("the key slots of an encrypted image can't be changed yet")
	}
	return errors.Join(err, block.Invalidf("Can't amend encryption options - encryption not present"))
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
