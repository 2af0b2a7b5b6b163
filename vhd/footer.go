package vhd

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/diskimg/diskimg/block"
)

// The footer: 512 bytes, big endian, at the end of every VHD file, and once
// more at the start of those that grow. "Virtual Hard Disk Image Format
// Specification", Hard Disk Footer Format.

// Type is the kind of a disk, as the footer numbers it.
type Type uint32

const (
	// Fixed disks are the guest's bytes as they are, and a footer.
	Fixed Type = 2
	// Dynamic disks have blocks for what has been written.
	Dynamic Type = 3
	// Differencing disks have blocks for what differs from another disk.
	Differencing Type = 4
)

func (t Type) String() string {
	switch t {
	case Fixed:
		return "fixed"
	case Dynamic:
		return "dynamic"
	case Differencing:
		return "differencing"
	}
	return "unknown"
}

const (
	sectorSize = 512
	footerSize = 512

	footerCookie = "conectix"
	version1     = 0x00010000
	nowhere      = ^uint64(0)

	featureReserved = 2 // always set
)

// Places in a footer, in bytes.
const (
	atFeatures       = 8
	atVersion        = 12
	atDataOffset     = 16
	atTimestamp      = 24
	atCreator        = 28
	atCreatorVersion = 32
	atCreatorHost    = 36
	atOriginalSize   = 40
	atCurrentSize    = 48
	atGeometry       = 56
	atType           = 60
	atFooterChecksum = 64
	atUUID           = 68
	atSavedState     = 84
)

// UUID is the identity of a disk, its bytes in the order of the file.
type UUID [16]byte

// footer is a decoded footer. What it does not decode stays in raw.
type footer struct {
	raw        [footerSize]byte
	dataOffset uint64 // of the dynamic header
	timestamp  uint32 // seconds since 2000, UTC
	creator    string // four bytes
	original   uint64
	current    uint64     // size of the disk in bytes
	sizeFrom   SizeSource // as the disk was opened
	chs        Geometry
	kind       Type
	uuid       UUID
}

// isFooter reports whether b begins as a footer does.
func isFooter(b []byte) bool {
	return len(b) >= len(footerCookie) && string(b[:len(footerCookie)]) == footerCookie
}

// parseFooter decodes a footer and verifies its checksum and version.
func parseFooter(b []byte) (*footer, error) {
	if len(b) < footerSize || !isFooter(b) {
		return nil, block.Errorf(block.ErrFormat, "invalid VPC image")
	}
	f := &footer{raw: [footerSize]byte(b)}
	if be32(b[atFooterChecksum:]) != checksum(b[:footerSize], atFooterChecksum) {
		return nil, block.Corruptf("Incorrect header checksum")
	}
	if v := be32(b[atVersion:]); v>>16 != version1>>16 {
		return nil, block.Unsupportedf("version %d.%d of the VHD format is not known, only 1.0", v>>16, v&0xffff)
	}
	f.dataOffset = be64(b[atDataOffset:])
	f.timestamp = be32(b[atTimestamp:])
	f.creator = string(b[atCreator : atCreator+4])
	f.original, f.current = be64(b[atOriginalSize:]), be64(b[atCurrentSize:])
	f.chs = Geometry{Cylinders: binary.BigEndian.Uint16(b[atGeometry:]), Heads: b[atGeometry+2], Sectors: b[atGeometry+3]}
	f.kind = Type(be32(b[atType:]))
	f.uuid = UUID(b[atUUID:])
	return f, nil
}

// encode returns the footer with its checksum. Bytes that it does not decode
// are as they were.
func (f *footer) encode() []byte {
	b := slices.Clone(f.raw[:])
	copy(b, footerCookie)
	put32, put64 := binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	put64(b[atDataOffset:], f.dataOffset)
	put32(b[atTimestamp:], f.timestamp)
	copy(b[atCreator:atCreator+4], f.creator)
	put64(b[atOriginalSize:], f.original)
	put64(b[atCurrentSize:], f.current)
	binary.BigEndian.PutUint16(b[atGeometry:], f.chs.Cylinders)
	b[atGeometry+2], b[atGeometry+3] = f.chs.Heads, f.chs.Sectors
	put32(b[atType:], uint32(f.kind))
	copy(b[atUUID:], f.uuid[:])
	put32(b[atFooterChecksum:], checksum(b, atFooterChecksum))
	return b
}

// setNew fills in what all new footers have.
func (f *footer) setNew() {
	binary.BigEndian.PutUint32(f.raw[atFeatures:], featureReserved)
	binary.BigEndian.PutUint32(f.raw[atVersion:], version1)
	binary.BigEndian.PutUint32(f.raw[atCreatorVersion:], 0x00050003)
	copy(f.raw[atCreatorHost:], "Wi2k")
}

// checksum is the complement of the sum of all bytes but the four at a place,
// which are the checksum's own. Footer and dynamic header have it.
func checksum(b []byte, at int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// epoch is when the time of the format begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// stampOf returns t in the time of the format, the nearest there is.
func stampOf(t time.Time) uint32 {
	return uint32(min(max(t.Unix()-epoch.Unix(), 0), 1<<32-1))
}

// timeOf is the reverse of stampOf.
func timeOf(stamp uint32) time.Time { return epoch.Add(time.Duration(stamp) * time.Second) }
