package qed

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/diskimg/diskimg/block"
)

// The header, by the section "Header" of qed_spec.txt: a codec on bytes, and
// the limits of its fields.

const (
	headerSize = 64

	featureBacking   = 0x01 // the image has a backing file
	featureNeedCheck = 0x02 // the tables must be checked before use
	featureNoProbe   = 0x04 // the backing file is raw, whatever it looks like
	knownFeatures    = featureBacking | featureNeedCheck | featureNoProbe

	minClusterBits = 12
	maxClusterBits = 26
	maxTableSize   = 16 // clusters

	// maxTableBytes bounds the memory for the L1 table. Larger tables map more
	// than 2^64 bytes, so the limit on the image size excludes them as well.
	maxTableBytes = 16 << 20
	// maxBackingName is the longest path that QEMU reads from an image.
	maxBackingName = 4095
	// maxSize is the largest disk that offsets in this package can name.
	maxSize = 1<<63 - 512
)

// Offsets of header fields that are written on their own.
const (
	atFeatures  = 16
	atAutoclear = 32
	atSize      = 48
)

var magic = []byte("QED\x00")

// Probe reports whether the first bytes of a file are those of a QED image.
func Probe(head []byte) bool { return bytes.HasPrefix(head, magic) }

// header is the header with the name it points to. Bytes between the header and
// the first cluster that are not known to us stay in the file as they are.
type header struct {
	clusterSize uint32 // bytes
	tableSize   uint32 // clusters
	headerSize  uint32 // clusters
	features    uint64
	compat      uint64
	autoclear   uint64
	l1Offset    uint64
	imageSize   uint64

	backingOffset, backingLength uint32
	backingName                  string // read by readHeader
}

// parseHeader decodes the fixed part of a header.
func parseHeader(b []byte) (*header, error) {
	if len(b) < len(magic) || !bytes.HasPrefix(b, magic) {
		return nil, block.Errorf(block.ErrFormat, "Image not in QED format")
	}
	if len(b) < headerSize {
		return nil, block.Corruptf("QED header is %d bytes long, the file ends after %d", headerSize, len(b))
	}
	le := binary.LittleEndian
	return &header{
		clusterSize: le.Uint32(b[4:]), tableSize: le.Uint32(b[8:]), headerSize: le.Uint32(b[12:]),
		features: le.Uint64(b[atFeatures:]), compat: le.Uint64(b[24:]), autoclear: le.Uint64(b[atAutoclear:]),
		l1Offset: le.Uint64(b[40:]), imageSize: le.Uint64(b[atSize:]),
		backingOffset: le.Uint32(b[56:]), backingLength: le.Uint32(b[60:]),
	}, nil
}

// encode is the reverse of parseHeader.
func (h *header) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, headerSize), magic...)
	for _, v := range []uint32{h.clusterSize, h.tableSize, h.headerSize} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint64{h.features, h.compat, h.autoclear, h.l1Offset, h.imageSize} {
		b = le.AppendUint64(b, v)
	}
	return le.AppendUint32(le.AppendUint32(b, h.backingOffset), h.backingLength)
}

// validate checks all that can be told without the file. The messages are
// those of qemu-img where it has one.
func (h *header) validate() error {
	if unknown := h.features &^ knownFeatures; unknown != 0 {
		return block.Unsupportedf("Unsupported QED features: %x", unknown)
	}
	switch {
	case !validClusterSize(int64(h.clusterSize)):
		return block.Corruptf("QED cluster size is invalid")
	case !validTableSize(int64(h.tableSize)):
		return block.Corruptf("QED table size is invalid")
	case h.imageSize%512 != 0 || h.imageSize > maxImageSize(int64(h.clusterSize), int64(h.tableSize)):
		return block.Corruptf("QED image size is invalid")
	case h.headerSize == 0 || h.headerBytes() > 1<<32-1:
		return block.Corruptf("QED header size of %d clusters is invalid", h.headerSize)
	}
	if err := h.validateBacking(); err != nil {
		return err
	}
	if g := h.geometry(); g.tableBytes > maxTableBytes {
		return block.Unsupportedf("QED tables of %d bytes are larger than the limit of %d", g.tableBytes, maxTableBytes)
	}
	return nil
}

func (h *header) validateBacking() error {
	if h.features&featureBacking == 0 {
		return nil
	}
	switch off, n := uint64(h.backingOffset), uint64(h.backingLength); {
	case off+n > h.headerBytes():
		return block.Corruptf("QED backing filename offset is invalid")
	case n > maxBackingName:
		return block.Corruptf("Failed to read backing filename: it has %d bytes, the most is %d", n, maxBackingName)
	}
	return nil
}

// headerBytes is where the first cluster may begin.
func (h *header) headerBytes() uint64 { return uint64(h.headerSize) * uint64(h.clusterSize) }

func validClusterSize(n int64) bool {
	return n >= 1<<minClusterBits && n <= 1<<maxClusterBits && n&(n-1) == 0
}

func validTableSize(n int64) bool { return n >= 1 && n <= maxTableSize && n&(n-1) == 0 }

// maxImageSize returns how many bytes the tables can map, as QEMU reckons it:
// modulo 2^64, so that it is 0 where they could map more than there can be.
func maxImageSize(clusterSize, tableSize int64) uint64 {
	entries := uint64(tableSize*clusterSize) / 8
	n := entries * entries * uint64(clusterSize)
	return min(n, maxSize)
}

// backingFormat returns what the header says of the backing file's format.
func (h *header) backingFormat() string {
	if h.features&(featureBacking|featureNoProbe) == featureBacking|featureNoProbe {
		return "raw"
	}
	return ""
}

// Offsets in the guest disk and in the image file are not to be mixed up.
type (
	guestOff int64
	hostOff  int64
)

// zeroCluster is the entry of an L2 table for a cluster of zeros ("Data cluster
// offsets"); 0 stands for what is not allocated, in both kinds of table.
const zeroCluster = 1

// geometry is what follows from the header's sizes.
type geometry struct {
	clusterBits int
	clusterSize int64
	tableBytes  int64 // of the L1 table and of each L2 table
	entries     int64 // in a table
	entryBits   int   // entries is 1 << entryBits
	firstHost   hostOff
}

func (h *header) geometry() geometry {
	g := geometry{clusterSize: int64(h.clusterSize), firstHost: hostOff(h.headerBytes())}
	g.clusterBits = bits.TrailingZeros32(h.clusterSize)
	g.tableBytes = g.clusterSize * int64(h.tableSize)
	g.entries = g.tableBytes / 8
	g.entryBits = bits.TrailingZeros64(uint64(g.entries))
	return g
}

func (g *geometry) alignDown(off int64) int64 { return off &^ (g.clusterSize - 1) }
func (g *geometry) alignUp(off int64) int64   { return g.alignDown(off + g.clusterSize - 1) }

// clusters returns how many clusters n bytes take up.
func (g *geometry) clusters(n int64) int64 { return (n + g.clusterSize - 1) >> g.clusterBits }

// l1Index returns the entry of the L1 table for off; it may be too large.
func (g *geometry) l1Index(off guestOff) int64 { return int64(off) >> (g.clusterBits + g.entryBits) }

func (g *geometry) l2Index(off guestOff) int64 {
	return int64(off) >> g.clusterBits & (g.entries - 1)
}

// inFile reports whether [off, off+n) can be clusters of a file that ends at
// end: aligned, behind the header, not past the last whole cluster.
func (g *geometry) inFile(off uint64, n int64, end hostOff) bool {
	return off&uint64(g.clusterSize-1) == 0 && off >= uint64(g.firstHost) && off < uint64(end) && n <= int64(end)-int64(off)
}

// tableInFile makes sure that a file that ends at end has all of the L1 table.
func (h *header) tableInFile(end hostOff) error {
	g := h.geometry()
	if !g.inFile(h.l1Offset, g.tableBytes, end) {
		return block.Corruptf("QED table offset is invalid")
	}
	return nil
}
