package diskimg

// This file is the row of VHD, which the table calls vpc, as QEMU does.

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

var vpcFormat = Format{
	Name:     "vpc",
	Probe:    probeVPC,
	ProbeEnd: vhd.ProbeEnd,
	Open:     openVPC,
	Inspect:  vhd.Inspect,
	Create:   createVPC,
	Runtime:  []Option{{Name: "force_size_calc"}},
	Options: []Option{
		{Name: "size", Type: Size, Help: "Virtual disk size"},
		{Name: "subformat", Help: "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "},
		{Name: "force_size", Type: Switch,
			Help: "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation"},
		{Name: "azure", Type: Switch, Help: "Make a disk that Azure takes: fixed, of exact size, rounded up to a whole MiB", Ours: true},
		{Name: "block_size", Type: Size, Help: "Size of a block of a dynamic disk, a power of two; other than 2M not everybody can read", Ours: true},
		{Name: "uuid", Help: "Identity of the disk; random if it is not given", Ours: true},
		{Name: "creator", Help: "The four letters of the program that is said to have made the disk", Ours: true},
		{Name: "timestamp", Type: Number, Help: "When the disk is said to be made, in seconds since 1970", Ours: true},
		{Name: "backing_file", Help: "File name of the parent: makes a differencing disk", Ours: true},
		{Name: "backing_fmt", Help: "Image format of the parent, which has to be vpc", Ours: true},
		noCOW,
		{Name: "preallocation", Help: "Preallocation mode (allowed values: off, falloc, full)", File: true},
		extentSizeHint,
	},
}

func probeVPC(head []byte) int {
	if vhd.Probe(head) {
		return 100
	}
	return 0
}

func openVPC(f block.File, o FormatOptions) (*Image, error) {
	p := &vhd.OpenOptions{
		Path: o.Path, Writable: o.Writable, NoBacking: o.NoBacking, NoSync: o.NoSync, Repair: o.Repair, Policy: o.Policy,
	}
	if o.Settings != nil && o.Settings.Has("force_size_calc") {
		switch mode := o.Settings.Text("force_size_calc"); mode {
		case "chs":
			p.SizeFrom = vhd.FromGeometry
		case "current_size":
			p.SizeFrom = vhd.FromCurrentSize
		default:
			return nil, block.Invalidf("Invalid size calculation mode: '%s'", mode)
		}
	}
	return vhd.Open(f, p)
}

func createVPC(f block.File, s *Settings, o FormatOptions) error {
	c := &vhd.CreateOptions{
		Size: s.Number("size"), Creator: s.Text("creator"), NoSync: o.NoSync,
		RoundToGeometry: !s.Switch("force_size") && !s.Has("backing_file"),
	}
	if s.Has("block_size") {
		c.BlockSize = given(s.Number("block_size"))
	}
	for _, set := range []func(*vhd.CreateOptions, *Settings) error{setVPCType, setVPCAzure, setVPCIdentity, setVPCPreallocation} {
		if err := set(c, s); err != nil {
			return err
		}
	}
	if err := setVPCParent(c, s, o.Path); err != nil {
		return err
	}
	if err := setVPCReproducible(c, o.Path); err != nil {
		return err
	}
	return vhd.Create(f, c)
}

func setVPCType(c *vhd.CreateOptions, s *Settings) (err error) {
	c.Type, err = choose(s, "subformat", "subformat", map[string]vhd.Type{"": 0, "dynamic": vhd.Dynamic, "fixed": vhd.Fixed})
	if c.Type == vhd.Dynamic && s.Has("backing_file") {
		c.Type = vhd.Differencing
	}
	return err
}

// setVPCAzure refuses what Azure would not take.
func setVPCAzure(c *vhd.CreateOptions, s *Settings) error {
	switch {
	case !s.Switch("azure"):
		return nil
	case s.Has("backing_file") || s.Has("subformat") && c.Type != vhd.Fixed:
		return block.Invalidf("Azure takes fixed disks only")
	case s.Has("force_size") && !s.Switch("force_size"):
		return block.Invalidf("Azure takes disks of exact size only, so force_size can't be off")
	case c.BlockSize != 0:
		return block.Invalidf("fixed disks, which Azure takes, have no blocks")
	}
	c.Type, c.RoundToGeometry, c.WholeMiB = vhd.Fixed, false, true
	return nil
}

// setVPCReproducible has the time and the UUID, where they are not given, be the
// same each time if the environment has SOURCE_DATE_EPOCH, in seconds since
// 1970. The UUID then comes from that, the name of the image and what is asked
// for.
func setVPCReproducible(c *vhd.CreateOptions, path string) error {
	value := os.Getenv("SOURCE_DATE_EPOCH")
	if value == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds < 0 {
		return block.Invalidf("SOURCE_DATE_EPOCH is %q, and not a number of seconds since 1970", value)
	}
	if c.Time == nil {
		t := time.Unix(seconds, 0)
		c.Time = &t
	}
	if c.UUID == nil {
		parent := c.Parent
		if parent == nil {
			parent = &vhd.Parent{}
		}
		u := vhd.UUIDFrom(fmt.Sprintf("%d %d %d %q %q %v", seconds, c.Size, c.Type, filepath.Base(path), parent.Name, parent.UUID))
		c.UUID = &u
	}
	return nil
}

func setVPCIdentity(c *vhd.CreateOptions, s *Settings) error {
	if s.Has("timestamp") {
		t := time.Unix(s.Number("timestamp"), 0)
		c.Time = &t
	}
	if !s.Has("uuid") {
		return nil
	}
	u, err := vhd.ParseUUID(strings.ToLower(s.Text("uuid")))
	c.UUID = &u
	return err
}

func setVPCPreallocation(c *vhd.CreateOptions, s *Settings) (err error) {
	if c.Preallocation, err = s.preallocation(); err != nil {
		return block.Invalidf("invalid parameter value: %s", s.Text("preallocation"))
	}
	return nil
}

// setVPCParent looks at the parent, which is for the caller to choose.
func setVPCParent(c *vhd.CreateOptions, s *Settings, path string) error {
	if !s.Has("backing_file") {
		return nil
	}
	name, format := s.Text("backing_file"), s.Text("backing_fmt")
	if format != "" && format != "vpc" {
		return block.Invalidf("The parent of a VHD has to be a VHD, format vpc, and not %s", format)
	}
	f, err := openFile(BackingPath(path, name), false, openLocal)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fileError(name, f.Lock(storage.LockInfo.Use, storage.LockInfo.Share)); err != nil {
		return err
	}
	id, err := vhd.Identify(f)
	if err != nil {
		return err
	}
	c.Parent = &vhd.Parent{Identity: id, Name: name}
	return nil
}
