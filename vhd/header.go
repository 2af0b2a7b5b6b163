package vhd

import (
	"encoding/binary"
	"slices"
	"unicode/utf16"

	"github.com/diskimg/diskimg/block"
)

// The dynamic header: 1024 bytes, big endian, of disks that grow. "Virtual Hard
// Disk Image Format Specification", Dynamic Disk Header Format.

const (
	headerSize   = 1024
	headerCookie = "cxsparse"

	atTableOffset    = 16
	atHeaderVersion  = 24
	atEntries        = 28
	atBlockSize      = 32
	atHeaderChecksum = 36
	atParentUUID     = 40
	atParentTime     = 56
	atParentName     = 64
	atLocators       = 576
	locatorSize      = 24
	locatorCount     = 8
	parentNameBytes  = 512
)

// Limits of what is opened. QEMU takes any power of two for the block size, and
// tables of 2 GiB; of blocks with fewer sectors than a byte has bits, it and
// others understand the bitmap differently.
const (
	minBlockSize     = 4 << 10
	maxBlockSize     = 256 << 20
	maxEntries       = 1<<29 - 1
	maxTableBytes    = 16 << 20 // 2 TiB in blocks of 512 KiB
	defaultBlockSize = 2 << 20
	unused           = ^uint32(0) // a BAT entry without a block
)

// header is a decoded dynamic header. What it does not decode stays in raw.
type header struct {
	raw         [headerSize]byte
	tableOffset uint64
	entries     uint32 // of the BAT
	blockSize   uint32
	parentUUID  UUID
	parentTime  uint32
	parentName  string
	locators    [locatorCount]locator
}

// locator says where in the file one of the names of the parent is.
type locator struct {
	code   string // four bytes: "W2ru", "W2ku", …; zeros for none
	space  uint32 // set aside for it
	length uint32 // of the name, bytes
	offset uint64
}

// none is the code of a locator that is not there.
const none = "\x00\x00\x00\x00"

// parseHeader decodes a dynamic header and verifies its checksum and version.
func parseHeader(b []byte) (*header, error) {
	if len(b) < headerSize || string(b[:len(headerCookie)]) != headerCookie {
		return nil, block.Corruptf("Invalid header magic: a dynamic header begins with %q", headerCookie)
	}
	if n := be32(b[atEntries:]); n > maxEntries {
		return nil, block.Corruptf("Max Table Entries too large (%d)", n)
	}
	if have, want := be32(b[atHeaderChecksum:]), checksum(b[:headerSize], atHeaderChecksum); have != want {
		return nil, block.Corruptf("the dynamic header has checksum %#x, its bytes make %#x", have, want)
	}
	if v := be32(b[atHeaderVersion:]); v>>16 != version1>>16 {
		return nil, block.Unsupportedf("version %d.%d of the dynamic header is not known, only 1.0", v>>16, v&0xffff)
	}
	h := &header{
		raw: [headerSize]byte(b), tableOffset: be64(b[atTableOffset:]), entries: be32(b[atEntries:]), blockSize: be32(b[atBlockSize:]),
		parentUUID: UUID(b[atParentUUID:]), parentTime: be32(b[atParentTime:]),
		parentName: decodeName(b[atParentName:][:parentNameBytes], binary.BigEndian),
	}
	for i := range h.locators {
		l := b[atLocators+i*locatorSize:][:locatorSize]
		h.locators[i] = locator{code: string(l[:4]), space: be32(l[4:]), length: be32(l[8:]), offset: be64(l[16:])}
	}
	return h, nil
}

// encode returns the header with its checksum. Bytes that it does not decode
// are as they were.
func (h *header) encode() []byte {
	b := slices.Clone(h.raw[:])
	copy(b, headerCookie)
	put32, put64 := binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	put64(b[atTableOffset:], h.tableOffset)
	put32(b[atEntries:], h.entries)
	put32(b[atBlockSize:], h.blockSize)
	copy(b[atParentUUID:], h.parentUUID[:])
	put32(b[atParentTime:], h.parentTime)
	for i, l := range h.locators {
		p := b[atLocators+i*locatorSize:][:locatorSize]
		copy(p[:4], l.code)
		put32(p[4:], l.space)
		put32(p[8:], l.length)
		put64(p[16:], l.offset)
	}
	put32(b[atHeaderChecksum:], checksum(b, atHeaderChecksum))
	return b
}

// setNew fills in what all new dynamic headers have.
func (h *header) setNew() {
	binary.BigEndian.PutUint64(h.raw[8:], nowhere)
	binary.BigEndian.PutUint32(h.raw[atHeaderVersion:], version1)
	h.clearParent()
}

// validate checks the header against the limits and the size of the disk.
func (h *header) validate(size int64) error {
	bs := int64(h.blockSize)
	switch {
	case bs < minBlockSize || bs&(bs-1) != 0:
		return block.Corruptf("Invalid block size %d: it must be a power of two, at least %d", bs, minBlockSize)
	case bs > maxBlockSize:
		return block.Unsupportedf("blocks of %d bytes are not supported, only up to %d", bs, maxBlockSize)
	case blocks(size, bs) > int64(h.entries):
		return block.Corruptf("Page table too small: %d entries for a disk of %d blocks", h.entries, blocks(size, bs))
	case blocks(size, bs)*4 > maxTableBytes:
		return block.Unsupportedf("a block allocation table of %d entries is not supported, the limit is %d", blocks(size, bs), maxTableBytes/4)
	case h.tableOffset%sectorSize != 0:
		return block.Corruptf("the block allocation table lies at %#x, which is not the beginning of a sector", h.tableOffset)
	}
	return nil
}

// blocks returns how many blocks a disk has.
func blocks(size, blockSize int64) int64 { return (size + blockSize - 1) / blockSize }

// decodeName decodes UTF-16 up to its end or a zero.
func decodeName(b []byte, order binary.ByteOrder) string {
	var units []uint16
	for ; len(b) >= 2 && order.Uint16(b) != 0; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// encodeName encodes a name as UTF-16.
func encodeName(s string, order binary.AppendByteOrder) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}
