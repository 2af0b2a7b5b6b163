package diskimg

// This file is the table of formats.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/qed"
	"github.com/diskimg/diskimg/raw"
)

// Format is one row of the table of formats.
type Format struct {
	Name string
	// Probe scores how much the first bytes of a file look like this format:
	// 0 not at all, 100 certainly. Nil: it can't be told by looking.
	Probe func(head []byte) int
	// ProbeEnd reports whether a file of that size with these last 512 bytes is
	// of this format, though it begins like none. Nil: nothing there tells.
	ProbeEnd func(end []byte, size int64) bool
	// Open opens the image in f, which it owns once it has succeeded.
	Open func(f block.File, o FormatOptions) (*Image, error)
	// Inspect describes the image in f without opening anything else.
	Inspect func(f block.File) (block.Description, error)
	// Create makes f an empty image. It checks all settings before it writes.
	// The caller closes f. Nil: there is no way to make an image.
	Create func(f block.File, s *Settings, o FormatOptions) error
	// Measure returns how large an image with these settings and that content
	// will be. Nil: it can't be told.
	Measure func(s *Settings, c *Content) (block.Measurement, error)
	// Options are what Create can be told, in the order in which they are
	// shown. Each format has "size"; "backing_file" and "backing_fmt" stand
	// for the ability to lie above another image, "data_file" for that to have
	// the guest's data in a file of its own.
	Options []Option
	// Amend changes an image that is open for writing, nil if nothing can be
	// changed. What can be known to be refused is refused before anything is.
	Amend func(ctx context.Context, img *Image, s *Settings, c AmendControl) error
	// Amends are the options that Amend can be told.
	Amends []Option
	// Runtime is what Open can be told, by QEMU's names.
	Runtime []Option
	// Compresses: its images are block.CompressedWriters.
	Compresses bool
	// TakesBacking: Open takes FormatOptions.Backing, also for an image that
	// names none. Others take what they name from the policy.
	TakesBacking bool
}

// FormatOptions go with Format.Open and Format.Create.
type FormatOptions struct {
	Path      string
	Writable  bool
	Backing   *Image       // lies below in place of what the image names; nil for that
	NoBacking bool         // leave the backing image closed
	NoIO      bool         // no data will be read, so no passphrase is needed
	NoSync    bool         // wait for nothing to be on disk
	Repair    bool         // nothing but block.Checker writes to the image
	Policy    block.Policy // opens what the image refers to
	Data      block.File   // the external data file, if it is open already
	DataName  string       // what a new image calls it
	// Passphrase is asked for that of an encrypted image; nil if nobody knows.
	// What it returns is cleared after use.
	Passphrase func() ([]byte, error)
	// EncryptFormat is how the image has to be encrypted, if it is not empty.
	EncryptFormat string
	// Offset and Size are the window of the file that is the disk; for raw.
	Offset, Size int64
	// IgnoreDiscards is that of OpenOptions: the image sees to discards itself.
	IgnoreDiscards bool
	// Settings are those of Format.Runtime that are given; nil is none.
	Settings *Settings
	// LooksLike is that of raw.OpenOptions. It is set if the format was guessed:
	// then a write that would turn the image into one of another format must be
	// refused.
	LooksLike func(head, end []byte, size int64) string
}

// Formats are the formats that are known, and probed for where that is
// allowed.
var Formats = []Format{qcow2Format, qedFormat, vpcFormat, luksFormat, rawFormat}

// ErrUnknownFormat: a format that is not in the table. It is a block.ErrUnsupported.
var ErrUnknownFormat = fmt.Errorf("unknown format: %w", block.ErrUnsupported)

// FindFormat returns the row with that name from Formats.
func FindFormat(name string) (*Format, error) { return findFormat(Formats, name) }

func findFormat(formats []Format, name string) (*Format, error) {
	i := slices.IndexFunc(formats, func(f Format) bool { return f.Name == name })
	switch {
	case i >= 0:
		return &formats[i], nil
	case slices.Contains(foreignFormats, name):
		return nil, block.Errorf(ErrUnknownFormat, "Format '%s' is not supported", name)
	}
	if slices.Contains(foreignDrivers, name) || slices.Contains(foreignProtocols, name) {
		return nil, block.Unsupportedf("Driver '%s' is not supported", name)
	}
	return nil, block.Errorf(ErrUnknownFormat, "Unknown driver '%s'", name)
}

// foreignDrivers are those that QEMU knows besides and this module does not.
var foreignDrivers = []string{"blkreplay", "copy-before-write", "host_cdrom", "replication", "snapshot-access", "vvfat"}

// FindCreator is FindFormat for a format in which images can be made.
func FindCreator(name string) (*Format, error) {
	f, err := FindFormat(name)
	switch {
	case name == "file":
		return fileFormat(), nil
	case err == nil && f.Create != nil:
		return f, nil
	case err == nil || slices.Contains(foreignFormats, name):
		return nil, block.Errorf(ErrUnknownFormat, "Format driver '%s' does not support image creation", name)
	}
	return nil, block.Errorf(ErrUnknownFormat, "Unknown file format '%s'", name)
}

// fileFormat returns the row of files, which are as raw images are.
func fileFormat() *Format {
	f := rawFormat
	f.Name, f.Options = "file", slices.Clone(f.Options)
	for i := range f.Options {
		f.Options[i].File = false
	}
	return &f
}

// KnownFormat reports whether there is a format with that name, be it one that
// only QEMU can open.
func KnownFormat(name string) bool {
	_, err := FindFormat(name)
	return err == nil || slices.Contains(foreignFormats, name)
}

// foreignFormats are those that QEMU knows and this module does not. An image
// may name one as that of its backing file.
var foreignFormats = []string{"bochs", "cloop", "dmg", "parallels", "qcow", "vdi", "vhdx", "vmdk", "vvfat",
	"file", "host_device", "nbd", "http", "https", "ssh", "iscsi", "rbd", "nfs", "gluster"}

const rawName = "raw"

// Options for the file of an image of any format. The extent size is a hint for
// XFS, and not passed on.
var (
	noCOW             = Option{Name: "nocow", Type: Switch, Help: "Turn off copy-on-write (valid only on btrfs)", File: true}
	filePreallocation = Option{Name: "preallocation", Help: "Preallocation mode (allowed values: off, falloc, full)", File: true}
	extentSizeHint    = Option{Name: "extent_size_hint", Type: Size, Help: "Extent size hint for the image file, 0 to disable", File: true}
)

var rawFormat = Format{
	Name:    rawName,
	Open:    openRaw,
	Inspect: inspectRaw,
	Create:  createRaw,
	Measure: measureRaw,
	Runtime: []Option{{Name: "offset", Type: Size}, {Name: "size", Type: Size}},
	Options: []Option{
		{Name: "size", Type: Size, Help: "Virtual disk size"},
		noCOW,
		filePreallocation,
		extentSizeHint,
	},
}

func openRaw(f block.File, o FormatOptions) (*Image, error) {
	if s := o.Settings; s != nil {
		o.Offset, o.Size = cmp.Or(o.Offset, s.Number("offset")), cmp.Or(o.Size, s.Number("size"))
	}
	return raw.Open(f, &raw.OpenOptions{
		Path: o.Path, Writable: o.Writable, Offset: o.Offset, Size: o.Size, LooksLike: o.LooksLike, NoSync: o.NoSync,
	})
}

func inspectRaw(f block.File) (block.Description, error) {
	img, err := raw.Open(f, nil)
	if err != nil {
		return block.Description{}, err
	}
	return block.Description{Format: rawName, VirtualSize: img.Size()}, nil
}

func createRaw(f block.File, s *Settings, o FormatOptions) error {
	mode, err := s.filePreallocation()
	if err != nil {
		return err
	}
	_, err = raw.Create(f, s.Number("size"), &raw.CreateOptions{Path: o.Path, Preallocation: mode})
	return err
}

var qcow2Format = Format{
	Name:    "qcow2",
	Probe:   probeQcow2,
	Open:    openQcow2,
	Inspect: qcow2.Inspect,
	Create:  createQcow2,
	Measure: measureQcow2,
	Amend:   amendQcow2,
	Amends:  qcow2Amends,

	Compresses: true, TakesBacking: true,
	Runtime: qcow2Runtime,
	Options: append(encryptOptions("encrypt."),
		Option{Name: "cluster_size", Type: Size, Help: "qcow2 cluster size", Default: "65536"},
		Option{Name: "extended_l2", Type: Switch, Help: "Extended L2 tables", Default: "off"},
		Option{Name: "preallocation", Help: "Preallocation mode (allowed values: off, metadata, falloc, full)"},
		Option{Name: "compression_type", Help: "Compression method used for image cluster compression", Default: "zlib"},
		Option{Name: "size", Type: Size, Help: "Virtual disk size"},
		Option{Name: "compat", Help: "Compatibility level (v2 [0.10] or v3 [1.1])"},
		Option{Name: "backing_file", Help: "File name of a base image"},
		Option{Name: "backing_fmt", Help: "Image format of the base image"},
		Option{Name: "data_file", Help: "File name of an external data file"},
		Option{Name: "data_file_raw", Type: Switch, Help: "The external data file must stay valid as a raw image"},
		Option{Name: "lazy_refcounts", Type: Switch, Help: "Postpone refcount updates", Default: "off"},
		Option{Name: "refcount_bits", Type: Number, Help: "Width of a reference count entry in bits", Default: "16"},
		noCOW,
		extentSizeHint,
	),
}

// qcow2Runtime tunes how an image is used; see tuneQcow2.
var qcow2Runtime = []Option{
	{Name: "lazy-refcounts", Type: Switch}, {Name: "pass-discard-request", Type: Switch},
	{Name: "pass-discard-snapshot", Type: Switch}, {Name: "pass-discard-other", Type: Switch},
	{Name: "overlap-check"}, {Name: "overlap-check.template"},
	{Name: "overlap-check.main-header", Type: Switch}, {Name: "overlap-check.active-l1", Type: Switch},
	{Name: "overlap-check.active-l2", Type: Switch}, {Name: "overlap-check.refcount-table", Type: Switch},
	{Name: "overlap-check.refcount-block", Type: Switch}, {Name: "overlap-check.snapshot-table", Type: Switch},
	{Name: "overlap-check.inactive-l1", Type: Switch}, {Name: "overlap-check.inactive-l2", Type: Switch},
	{Name: "overlap-check.bitmap-directory", Type: Switch},
	{Name: "cache-size", Type: Size}, {Name: "l2-cache-size", Type: Size}, {Name: "l2-cache-entry-size", Type: Size},
	{Name: "refcount-cache-size", Type: Size}, {Name: "cache-clean-interval", Type: Number},
}

// settings checks what an image is to be opened with.
func (f *Format) settings(given map[string]string) (*Settings, error) {
	s := &Settings{options: f.Runtime, values: map[string]string{}}
	unknown := ""
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(f.Runtime, func(o Option) bool { return o.Name == key }) {
			unknown = cmp.Or(unknown, key)
			continue
		}
		if err := s.Set(key, given[key]); err != nil {
			return nil, err
		}
	}
	if name, ok := strings.CutPrefix(unknown, "encrypt."); ok && f.Name == "qcow2" {
		return nil, block.Invalidf("Parameter '%s' is unexpected", name)
	}
	if unknown != "" {
		return nil, block.Unsupportedf("Block format '%s' does not support the option '%s'", f.Name, unknown)
	}
	return s, nil
}

func probeQcow2(head []byte) int {
	if qcow2.Probe(head) {
		return 100
	}
	return 0
}

func openQcow2(f block.File, o FormatOptions) (*Image, error) {
	p := &qcow2.OpenOptions{
		Path: o.Path, Writable: o.Writable, NoBacking: o.NoBacking, NoSync: o.NoSync, Repair: o.Repair, Policy: o.Policy, Data: o.Data,
		Passphrase: o.Passphrase, EncryptFormat: o.EncryptFormat, NoIO: o.NoIO,
		Backing: o.Backing,
	}
	p.Discard.KeepRequested = o.IgnoreDiscards
	if s := o.Settings; s != nil {
		if err := tuneQcow2(p, s); err != nil {
			return nil, err
		}
	}
	return qcow2.Open(f, p)
}

func createQcow2(f block.File, s *Settings, o FormatOptions) error {
	c, err := qcow2Options(s, o)
	if err != nil {
		return err
	}
	return qcow2.Create(f, c)
}

func qcow2Options(s *Settings, o FormatOptions) (*qcow2.CreateOptions, error) {
	c := &qcow2.CreateOptions{
		Size: s.Number("size"), ClusterSize: given(s.Number("cluster_size")), RefcountBits: int(given(s.Number("refcount_bits"))),
		BackingFile: s.Text("backing_file"), BackingFormat: s.Text("backing_fmt"),
		LazyRefcounts: s.Switch("lazy_refcounts"), ExtendedL2: s.Switch("extended_l2"),
		DataFile: cmp.Or(o.DataName, s.Text("data_file")), DataFileRaw: s.Switch("data_file_raw"), Data: o.Data,
		NoSync: o.NoSync, Passphrase: o.Passphrase,
	}
	var err error
	if c.Encryption, err = s.encryption(); err != nil {
		return nil, err
	}
	if c.Encryption == qcow2.LUKS {
		c.LUKS = s.luks("encrypt.")
	}
	if c.Preallocation, err = s.preallocation(); err != nil {
		return nil, err
	}
	if c.Version, err = choose(s, "compat", "version", map[string]int{"": 3, "1.1": 3, "v3": 3, "0.10": 2, "v2": 2}); err != nil {
		return nil, err
	}
	c.Compression, err = choose(s, "compression_type", "compression-type",
		map[string]qcow2.Compression{"zlib": qcow2.Zlib, "zstd": qcow2.Zstd})
	return c, err
}

var qedFormat = Format{
	Name:    "qed",
	Probe:   probeQED,
	Open:    openQED,
	Inspect: qed.Inspect,
	Create:  createQED,
	Options: []Option{
		{Name: "size", Type: Size, Help: "Virtual disk size"},
		{Name: "backing_file", Help: "File name of a base image"},
		{Name: "backing_fmt", Help: "Image format of the base image"},
		{Name: "cluster_size", Type: Size, Help: "Cluster size (in bytes)", Default: "65536"},
		{Name: "table_size", Type: Size, Help: "L1/L2 table size (in clusters)"},
		noCOW,
		filePreallocation,
		extentSizeHint,
	},
}

func probeQED(head []byte) int {
	if qed.Probe(head) {
		return 100
	}
	return 0
}

func openQED(f block.File, o FormatOptions) (*Image, error) {
	return qed.Open(f, &qed.OpenOptions{
		Path: o.Path, Writable: o.Writable, NoBacking: o.NoBacking, NoSync: o.NoSync, Repair: o.Repair, Policy: o.Policy,
	})
}

func createQED(f block.File, s *Settings, o FormatOptions) error {
	// The file is created empty, so there is nothing to reserve.
	mode, err := s.filePreallocation()
	switch {
	case err != nil:
		return err
	case mode == block.PreallocMetadata:
		return block.Unsupportedf("Unsupported preallocation mode: %s", mode)
	}
	c := &qed.CreateOptions{
		Size: s.Number("size"), ClusterSize: given(s.Number("cluster_size")),
		BackingFile: s.Text("backing_file"), BackingFormat: s.Text("backing_fmt"), NoSync: o.NoSync,
	}
	if s.Has("table_size") {
		c.TableSize = given(s.Number("table_size"))
	}
	return qed.Create(f, c)
}

// given turns 0, which would stand for the default, into what is refused.
func given(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// choose returns what the value of an option stands for. Messages call the
// option by its other name, as QEMU's do.
func choose[T any](s *Settings, option, other string, values map[string]T) (T, error) {
	v, ok := values[s.Text(option)]
	if !ok || s.Has(option) && s.Text(option) == "" {
		return v, block.Invalidf("Parameter '%s' does not accept value '%s'", other, s.Text(option))
	}
	return v, nil
}

func (s *Settings) preallocation() (block.Preallocation, error) {
	name := "preallocation"
	return choose(s, name, name, map[string]block.Preallocation{
		"": block.PreallocOff, "off": block.PreallocOff, "metadata": block.PreallocMetadata,
		"falloc": block.PreallocFalloc, "full": block.PreallocFull,
	})
}

// filePreallocation is preallocation for an option of the file.
func (s *Settings) filePreallocation() (block.Preallocation, error) {
	mode, err := s.preallocation()
	if err != nil {
		err = block.Invalidf("invalid parameter value: %s", s.Text("preallocation"))
	}
	return mode, err
}
