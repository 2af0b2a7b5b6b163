package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// The codec of the header: bytes to fields and back. Unknown header bytes and
// unknown extensions are kept. Facts: qcow2 specification, "Header", "Header
// extensions"; limits: those of QEMU, checked before any memory is taken.

const (
	magic = 0x514649fb // "QFI\xfb"

	minClusterBits = 9
	maxClusterBits = 21

	v2HeaderLength    = 72
	minV3HeaderLength = 104
	newHeaderLength   = 112 // with compression_type and padding

	maxL1Bytes       = 32 << 20
	maxReftableBytes = 8 << 20
	maxBackingName   = 1023
	maxExtensions    = 64
	maxSnapshots     = 65536
	maxSize          = 1<<63 - 1<<30
)

// Feature bits, by the name that the specification gives them.
const (
	incompatDirty       = 1 << 0
	incompatCorrupt     = 1 << 1
	incompatDataFile    = 1 << 2
	incompatCompression = 1 << 3
	incompatExtendedL2  = 1 << 4
	incompatKnown       = 1<<5 - 1

	compatLazyRefcounts = 1 << 0

	autoclearBitmaps = 1 << 0
	autoclearRawData = 1 << 1
)

// Types of header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extBitmaps       = 0x23852875
	extCrypto        = 0x0537be77
	extDataFile      = 0x44415441
	// Of no meaning to anybody: room in a header that is being changed.
	extPadding = 0x70616421
)

const (
	cryptNone = 0
	cryptAES  = 1
	cryptLUKS = 2
)

const (
	compressionZlib = 0
	compressionZstd = 1
)

// Places of the fields that are changed in place.
const (
	atL1        = 36 // l1_size, l1_table_offset
	atSize      = 24
	atReftable  = 48 // refcount_table_offset, refcount_table_clusters
	atSnapshots = 60 // nb_snapshots, snapshots_offset
	atIncompat  = 72
	atCompat    = 80
	atAutoclear = 88
)

type extension struct {
	kind uint32
	data []byte
}

type header struct {
	version          uint32
	clusterBits      uint32
	size             uint64
	cryptMethod      uint32
	l1Size           uint32
	l1Offset         uint64
	reftableOffset   uint64
	reftableClusters uint32
	snapshotCount    uint32
	snapshotsOffset  uint64
	incompat         uint64
	compat           uint64
	autoclear        uint64
	refcountOrder    uint32
	length           uint32
	compression      uint8
	unknown          []byte // what follows compression_type up to length
	extensions       []extension
	backingOffset    uint64
	backingName      string
}

// Probe reports whether head, the first bytes of a file, are those of a qcow2
// image of any version from 2 on.
func Probe(head []byte) bool {
	return len(head) >= 8 && binary.BigEndian.Uint32(head) == magic && binary.BigEndian.Uint32(head[4:]) >= 2
}

// parseFixed decodes the fields up to header_length and checks what does not
// depend on the rest of the first cluster.
func parseFixed(b []byte) (*header, error) {
	be := binary.BigEndian
	if len(b) < v2HeaderLength || be.Uint32(b) != magic {
		return nil, block.Errorf(block.ErrFormat, "Image is not in qcow2 format")
	}
	h := &header{
		version:          be.Uint32(b[4:]),
		backingOffset:    be.Uint64(b[8:]),
		clusterBits:      be.Uint32(b[20:]),
		size:             be.Uint64(b[24:]),
		cryptMethod:      be.Uint32(b[32:]),
		l1Size:           be.Uint32(b[36:]),
		l1Offset:         be.Uint64(b[40:]),
		reftableOffset:   be.Uint64(b[48:]),
		reftableClusters: be.Uint32(b[56:]),
		snapshotCount:    be.Uint32(b[60:]),
		snapshotsOffset:  be.Uint64(b[64:]),
		refcountOrder:    4,
		length:           v2HeaderLength,
	}
	if h.version != 2 && h.version != 3 {
		return nil, block.Unsupportedf("Unsupported qcow2 version %d", h.version)
	}
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		return nil, block.Unsupportedf("Unsupported cluster size: 2^%d", h.clusterBits)
	}
	if h.version == 2 {
		return h, nil
	}
	return h, h.parseV3(b)
}

func (h *header) parseV3(b []byte) error {
	be := binary.BigEndian
	if len(b) < minV3HeaderLength {
		return block.Corruptf("qcow2 header too short: the file ends after %d bytes, version 3 needs %d", len(b), minV3HeaderLength)
	}
	h.incompat = be.Uint64(b[atIncompat:])
	h.compat = be.Uint64(b[atCompat:])
	h.autoclear = be.Uint64(b[atAutoclear:])
	h.refcountOrder = be.Uint32(b[96:])
	h.length = be.Uint32(b[100:])
	switch {
	case h.length < minV3HeaderLength:
		return block.Detailf(block.ErrCorrupt, "qcow2 header too short", "header_length is %d, version 3 needs %d", h.length, minV3HeaderLength)
	case int64(h.length) > h.clusterSize():
		return block.Detailf(block.ErrCorrupt, "qcow2 header exceeds cluster size", "header_length is %d, a cluster has %d bytes", h.length, h.clusterSize())
	case h.refcountOrder > 6:
		return block.Detailf(block.ErrCorrupt, "Reference count entry width too large; may not exceed 64 bits", "refcount_order is %d", h.refcountOrder)
	}
	return nil
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// errMoreHeader says that the header goes on behind what was read of it.
var errMoreHeader = errors.New("more of the first cluster is needed")

// parseHeader decodes the start of an image. more says that the file goes on
// behind b; if the header does too, parseHeader returns errMoreHeader.
func parseHeader(b []byte, more bool) (*header, error) {
	h, err := parseFixed(b)
	if err != nil {
		return nil, err
	}
	more = more && h.clusterSize() > int64(len(b))
	b = b[:min(int64(len(b)), h.clusterSize())]
	if more && max(uint64(h.length), h.backingEnd(b)) > uint64(len(b)) {
		return nil, errMoreHeader
	}
	if int64(h.length) > int64(len(b)) {
		return nil, block.Corruptf("qcow2 header is cut short: header_length is %d, the file has %d bytes", h.length, len(b))
	}
	if h.length > minV3HeaderLength {
		h.compression = b[minV3HeaderLength]
		h.unknown = bytes.Clone(b[minV3HeaderLength+1 : h.length])
	}
	if err := h.parseExtensions(b, more); err != nil {
		return nil, err
	}
	return h, h.parseBackingName(b)
}

// parseExtensions reads extensions until the end marker, the backing file name
// or the end of the cluster. more is that of parseHeader.
func (h *header) parseExtensions(b []byte, more bool) error {
	end := uint64(len(b))
	if h.backingOffset != 0 {
		if h.backingOffset > uint64(h.clusterSize()) {
			return block.Detailf(block.ErrCorrupt, "Invalid backing file offset", "%#x is beyond the first cluster of %d bytes", h.backingOffset, h.clusterSize())
		}
		if h.backingOffset <= end {
			end, more = h.backingOffset, false
		}
	}
	for at := uint64(h.length); at < end && at+8 <= uint64(len(b)); {
		kind, n := binary.BigEndian.Uint32(b[at:]), uint64(binary.BigEndian.Uint32(b[at+4:]))
		if kind == extEnd {
			return nil
		}
		at += 8
		if n > end-at && more {
			return errMoreHeader
		}
		if left := max(end, at) - at; n > left {
			return block.Detailf(block.ErrCorrupt, "Header extension too large", "%#x has %d bytes, %d are left", kind, n, left)
		}
		if len(h.extensions) == maxExtensions {
			return block.Corruptf("Too many header extensions: more than %d", maxExtensions)
		}
		h.extensions = append(h.extensions, extension{kind, bytes.Clone(b[at : at+n])})
		at += (n + 7) &^ 7
	}
	if more {
		return errMoreHeader
	}
	return nil
}

// backingEnd returns where the backing file name ends, 0 if it is not in the
// first cluster at all.
func (h *header) backingEnd(b []byte) uint64 {
	if h.backingOffset >= uint64(h.clusterSize()) {
		return 0
	}
	return h.backingOffset + min(maxBackingName, backingLength(b))
}

func backingLength(b []byte) uint64 { return uint64(binary.BigEndian.Uint32(b[16:])) }

func (h *header) parseBackingName(b []byte) error {
	if h.backingOffset == 0 {
		return nil
	}
	n := backingLength(b)
	limit := min(maxBackingName, uint64(h.clusterSize())-h.backingOffset)
	if n > limit {
		return block.Detailf(block.ErrCorrupt, "Backing file name too long", "%d bytes at offset %#x, at most %d fit", n, h.backingOffset, limit)
	}
	if h.backingOffset+n > uint64(len(b)) {
		return block.Corruptf("Backing file name is cut short: %d bytes at offset %#x, the file has %d", n, h.backingOffset, len(b))
	}
	name := b[h.backingOffset : h.backingOffset+n]
	if bytes.IndexByte(name, 0) >= 0 {
		return block.Corruptf("Backing file name contains a NUL byte")
	}
	h.backingName = string(name)
	return nil
}

// find returns the data of an extension, nil if there is none. Of several the
// last one counts.
func (h *header) find(kind uint32) (data []byte) {
	for _, e := range h.extensions {
		if e.kind == kind {
			data = e.data
		}
	}
	return data
}

// encode returns the first cluster. It fails if the header does not fit.
func (h *header) encode() ([]byte, error) {
	b := make([]byte, h.clusterSize())
	at := h.encodeFixed(b)
	for _, e := range append(h.extensions, extension{kind: extEnd}) {
		n := (len(e.data) + 7) &^ 7
		if at+8+n > len(b) {
			return nil, h.tooLarge("header extensions")
		}
		binary.BigEndian.PutUint32(b[at:], e.kind)
		binary.BigEndian.PutUint32(b[at+4:], uint32(len(e.data)))
		copy(b[at+8:], e.data)
		at += 8 + n
	}
	if h.backingName != "" {
		if at+len(h.backingName) > len(b) {
			return nil, h.tooLarge("the backing file name")
		}
		h.backingOffset = uint64(at)
		binary.BigEndian.PutUint64(b[8:], h.backingOffset)
		binary.BigEndian.PutUint32(b[16:], uint32(len(h.backingName)))
		copy(b[at:], h.backingName)
	}
	return b, nil
}

func (h *header) tooLarge(what string) error {
	return block.Errorf(block.ErrNoSpace, "%s do not fit into the first cluster of %d bytes", what, h.clusterSize())
}

// encodeFixed writes the header fields and returns their length.
func (h *header) encodeFixed(b []byte) int {
	be := binary.BigEndian
	be.PutUint32(b[0:], magic)
	be.PutUint32(b[4:], h.version)
	be.PutUint32(b[20:], h.clusterBits)
	be.PutUint64(b[atSize:], h.size)
	be.PutUint32(b[32:], h.cryptMethod)
	be.PutUint32(b[36:], h.l1Size)
	be.PutUint64(b[40:], h.l1Offset)
	be.PutUint64(b[48:], h.reftableOffset)
	be.PutUint32(b[56:], h.reftableClusters)
	be.PutUint32(b[60:], h.snapshotCount)
	be.PutUint64(b[64:], h.snapshotsOffset)
	if h.version == 2 {
		return v2HeaderLength
	}
	be.PutUint64(b[atIncompat:], h.incompat)
	be.PutUint64(b[atCompat:], h.compat)
	be.PutUint64(b[atAutoclear:], h.autoclear)
	be.PutUint32(b[96:], h.refcountOrder)
	be.PutUint32(b[100:], h.length)
	if h.length > minV3HeaderLength {
		b[minV3HeaderLength] = h.compression
		copy(b[minV3HeaderLength+1:h.length], h.unknown)
	}
	return int(h.length)
}

// The names that go into a new image's feature name table, so that a program
// which does not know a feature can say which one it is.
var featureNames = []struct {
	kind, bit byte
	name      string
}{
	{0, 0, "dirty bit"},
	{0, 1, "corrupt bit"},
	{0, 2, "external data file"},
	{0, 3, "compression type"},
	{0, 4, "extended L2 entries"},
	{1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},
	{2, 1, "raw external data"},
}

const featureNameEntry = 48

func featureNameTable() []byte {
	b := make([]byte, featureNameEntry*len(featureNames))
	for i, f := range featureNames {
		e := b[i*featureNameEntry:]
		e[0], e[1] = f.kind, f.bit
		copy(e[2:featureNameEntry], f.name)
	}
	return b
}

// unknownFeatures returns an error that names the incompatible bits we do not
// know, by the image's own feature name table where it has them.
func (h *header) unknownFeatures() error {
	bits := h.incompat &^ incompatKnown
	if bits == 0 {
		return nil
	}
	e := &block.FeatureError{Bits: bits}
	left := bits
	for t := h.find(extFeatureNames); len(t) >= featureNameEntry; t = t[featureNameEntry:] {
		if t[0] == 0 && t[1] < 64 && left>>t[1]&1 != 0 {
			name, _, _ := bytes.Cut(t[2:featureNameEntry], []byte{0})
			e.Names = append(e.Names, string(name))
			left &^= 1 << t[1]
		}
	}
	if left != 0 {
		e.Names = append(e.Names, fmt.Sprintf("Unknown incompatible feature: %x", left))
	}
	return e
}

// validate checks fields against each other and against the limits, before
// memory is taken by any of them, and that this package can read the guest's
// data.
func (h *header) validate() error { return h.validateBut(false) }

// validateBut is validate, and passes over the snapshot table if it is to be
// repaired.
func (h *header) validateBut(repair bool) error {
	snapshots := h.validateSnapshots
	if repair {
		snapshots = func() error { return nil }
	}
	for _, check := range []func() error{h.unknownFeatures, h.validateFeatures, h.validateRefcounts, snapshots, h.validateL1, h.validateSize, h.validateCrypt} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (h *header) validateFeatures() error {
	zstd := h.incompat&incompatCompression != 0
	switch {
	case h.compression > compressionZstd:
		return block.Detailf(block.ErrUnsupported, fmt.Sprintf("qcow2: unknown compression type: %d", h.compression), "known are 0 (zlib) and 1 (zstd)")
	case zstd && h.compression == compressionZlib:
		return block.Detailf(block.ErrCorrupt, "qcow2: Compression type incompatible feature bit must not be set", "compression_type is 0 (zlib)")
	case !zstd && h.compression != compressionZlib:
		return block.Detailf(block.ErrCorrupt, "qcow2: Compression type incompatible feature bit must be set", "compression_type is %d", h.compression)
	case h.incompat&incompatExtendedL2 != 0 && h.clusterBits < 14:
		return block.Corruptf("Extended L2 entries need clusters of at least 16384 bytes, this image has %d", h.clusterSize())
	case h.autoclear&autoclearRawData != 0 && h.incompat&incompatDataFile == 0:
		return block.Corruptf("data-file-raw requires a data file")
	case h.autoclear&autoclearRawData != 0 && h.backingName != "":
		return block.Corruptf("an image with a raw data file can't have a backing file, this one names %q", h.backingName)
	}
	return nil
}

func (h *header) validateCrypt() error {
	switch h.cryptMethod {
	case cryptNone:
		return nil
	case cryptAES:
		return nil
	case cryptLUKS:
		_, _, err := h.luksPlace()
		return err
	}
	return block.Unsupportedf("Unsupported encryption method %d", h.cryptMethod)
}

func (h *header) validateSize() error {
	if h.size > maxSize {
		return block.Detailf(block.ErrCorrupt, "Image is too big", "virtual size of %d bytes, the limit is %d", h.size, int64(maxSize))
	}
	g := h.geometry()
	switch need := g.l1Entries(int64(h.size)); {
	case need > math.MaxInt32:
		return block.Detailf(block.ErrCorrupt, "Image is too big", "%d bytes need an L1 table of %d entries", h.size, need)
	case need > uint64(h.l1Size):
		return block.Detailf(block.ErrCorrupt, "L1 table is too small", "it has %d entries, a disk of %d bytes needs %d", h.l1Size, h.size, need)
	}
	return nil
}

func (h *header) validateRefcounts() error {
	cs := uint64(h.clusterSize())
	switch {
	case uint64(h.reftableClusters)*cs > maxReftableBytes:
		return block.Detailf(block.ErrCorrupt, "Reference count table too large", "%d clusters of %d bytes, the limit is %d bytes", h.reftableClusters, cs, maxReftableBytes)
	case h.reftableOffset%cs != 0 || h.reftableOffset >= maxHostOffset:
		return block.Detailf(block.ErrCorrupt, "Reference count table offset invalid", "%#x", h.reftableOffset)
	}
	return nil
}

func (h *header) validateSnapshots() error {
	cs := uint64(h.clusterSize())
	switch {
	case h.snapshotCount > maxSnapshots:
		return block.Detailf(block.ErrCorrupt, "Snapshot table too large", "%d snapshots, the limit is %d (%w)", h.snapshotCount, maxSnapshots, syscall.EFBIG)
	case h.snapshotsOffset%cs != 0 || h.snapshotsOffset >= maxHostOffset || h.snapshotsOffset == 0 && h.snapshotCount > 0:
		return block.Detailf(block.ErrCorrupt, "Snapshot table offset invalid", "%#x (%w)", h.snapshotsOffset, syscall.EINVAL)
	}
	return nil
}

func (h *header) validateL1() error {
	cs := uint64(h.clusterSize())
	switch {
	case uint64(h.l1Size)*8 > maxL1Bytes:
		return block.Detailf(block.ErrCorrupt, "Active L1 table too large", "%d entries, the limit is %d", h.l1Size, maxL1Bytes/8)
	case h.l1Offset%cs != 0 || h.l1Offset >= maxHostOffset || h.l1Size > 0 && h.l1Offset == 0:
		return block.Detailf(block.ErrCorrupt, "Active L1 table offset invalid", "%#x", h.l1Offset)
	}
	return nil
}
