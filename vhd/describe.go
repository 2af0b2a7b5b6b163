package vhd

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/diskimg/diskimg/block"
)

// What an image says of itself.

// String returns the usual form, 8-4-4-4-12 hexadecimal digits.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// ParseUUID is the reverse of String. It takes upper case too.
func ParseUUID(s string) (UUID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(UUID{}) || len(s) != 36 {
		return UUID{}, block.Invalidf("%q is not a UUID: it has the form 01234567-89ab-cdef-0123-456789abcdef", s)
	}
	return UUID(b), nil
}

// Inspect describes the image in f. It reads footers, header and the names of
// the parent, and opens no other file. The image may be one that Open refuses
// for an entry of its table or for its parent; but its table is in the file.
func Inspect(f block.File) (block.Description, error) {
	foot, h, size, err := inspect(f)
	if err != nil {
		return block.Description{}, block.OpenError("", formatName, err)
	}
	return describe(f, foot, h, size), nil
}

// inspect reads the footer that counts and, but for fixed disks, the header.
func inspect(f block.File) (*footer, *header, int64, error) {
	s, err := readFooters(f, inspectBehind)
	if err != nil {
		return nil, nil, 0, err
	}
	foot, damage, err := s.choose()
	if err == nil && foot == s.last {
		err = damage
	}
	if err != nil {
		return nil, nil, 0, err
	}
	if foot.kind == Fixed {
		size, err := foot.size()
		return foot, nil, size, err
	}
	h, size, err := readHeader(f, foot)
	if err != nil {
		return nil, nil, 0, err
	}
	return foot, h, size, h.tableInFile(blocks(size, int64(h.blockSize)), s.size)
}

// Describe implements block.Describer.
func (d *disk) Describe() (block.Description, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return describe(d.file, d.foot, d.hdr, d.Size()), nil
}

// Describe implements block.Describer.
func (d *fixed) Describe() (block.Description, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return describe(d.file, d.foot, nil, d.Size()), nil
}

// describe puts a description together. h is nil for a fixed disk.
func describe(f block.File, foot *footer, h *header, size int64) block.Description {
	d := block.Description{Format: formatName, VirtualSize: size, More: foot.fields()}
	if h == nil {
		return d
	}
	d.ClusterSize = int64(h.blockSize)
	if foot.kind != Differencing {
		return d
	}
	if names := parentNames(f, h); len(names) > 0 {
		d.BackingName, d.BackingFormat = names[0], formatName
	}
	d.More = append(d.More, block.Field{Name: "parent-uuid", Value: h.parentUUID.String()},
		block.Field{Name: "parent-time", Value: timeOf(h.parentTime).Format(time.RFC3339)})
	return d
}

// fields lists what the footer says.
func (f *footer) fields() []block.Field {
	return []block.Field{
		{Name: "subformat", Value: f.kind.String()},
		{Name: "uuid", Value: f.uuid.String()},
		{Name: "created", Value: timeOf(f.timestamp).Format(time.RFC3339)},
		{Name: "creator", Value: strings.TrimRight(f.creator, " \x00")},
		{Name: "creator-version", Value: fmt.Sprintf("%d.%d", binary.BigEndian.Uint16(f.raw[atCreatorVersion:]), binary.BigEndian.Uint16(f.raw[atCreatorVersion+2:]))},
		{Name: "geometry", Value: fmt.Sprintf("%d/%d/%d", f.chs.Cylinders, f.chs.Heads, f.chs.Sectors)},
		{Name: "current-size", Value: int64(f.current)},
		{Name: "saved-state", Value: f.raw[atSavedState] != 0},
	}
}
