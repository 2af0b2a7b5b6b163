package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

// The header codec: what it does not know it keeps to the byte, and each field
// that can't be is refused with a sentence that names it.

// sampleHeader is a valid version 3 header with something in every part that is
// not known: bytes after the compression type, and an extension.
func sampleHeader(clusterBits uint32) *header {
	return &header{
		version:          3,
		clusterBits:      clusterBits,
		size:             1 << 20,
		l1Size:           4096,
		l1Offset:         3 << clusterBits,
		reftableOffset:   1 << clusterBits,
		reftableClusters: 1,
		compat:           compatLazyRefcounts | 1<<40,
		autoclear:        1 << 33,
		refcountOrder:    4,
		length:           128,
		unknown:          []byte("unknown bytes, twenty-3"),
		extensions:       []extension{{0x12345678, []byte("what is this")}, {extBackingFormat, []byte("raw")}},
		backingName:      "base.raw",
	}
}

// encoded returns the first cluster of h.
func encoded(t testing.TB, h *header) []byte {
	t.Helper()
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeaderRoundTrip(t *testing.T) {
	small := sampleHeader(9)
	v2 := &header{
		version: 2, clusterBits: 16, size: 12345 * 512, l1Size: 1, l1Offset: 3 << 16, reftableOffset: 1 << 16,
		reftableClusters: 1, refcountOrder: 4, length: v2HeaderLength, snapshotCount: 7, snapshotsOffset: 5 << 16,
		extensions:  []extension{{extBackingFormat, []byte("qcow2")}, {0xffffffff, bytes.Repeat([]byte{7}, 24)}},
		backingName: "b",
	}
	shortest := sampleHeader(16)
	shortest.length, shortest.unknown = minV3HeaderLength, nil
	bare := sampleHeader(21)
	bare.extensions, bare.backingName = nil, ""
	long := sampleHeader(12)
	long.length, long.unknown = 2048, bytes.Repeat([]byte("0123456789"), 200)[:2048-minV3HeaderLength-1]
	bits := sampleHeader(16)
	bits.incompat, bits.compression = incompatKnown, compressionZstd
	bits.compat, bits.autoclear = math.MaxUint64, math.MaxUint64
	name := sampleHeader(16)
	name.backingName = strings.Repeat("n", maxBackingName)
	for i, h := range []*header{small, v2, shortest, bare, long, bits, name} {
		first := encoded(t, h)
		parsed, err := parseHeader(first, false)
		if err != nil {
			t.Errorf("header %d: %v", i, err)
			continue
		}
		if !reflect.DeepEqual(parsed, h) {
			t.Errorf("header %d was\n%+v\nand comes back as\n%+v", i, h, parsed)
		}
		if again := encoded(t, parsed); !bytes.Equal(again, first) {
			t.Errorf("header %d: the bytes change from parsing and encoding", i)
		}
	}
}

// Every field is kept, whatever is in it.
func TestHeaderRandomRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for range 500 {
		h := sampleHeader(9 + r.Uint32N(13))
		h.size, h.cryptMethod, h.l1Size, h.l1Offset = r.Uint64(), r.Uint32(), r.Uint32(), r.Uint64()
		h.reftableOffset, h.reftableClusters = r.Uint64(), r.Uint32()
		h.snapshotCount, h.snapshotsOffset = r.Uint32(), r.Uint64()
		h.incompat, h.compat, h.autoclear, h.refcountOrder = r.Uint64(), r.Uint64(), r.Uint64(), r.Uint32N(7)
		h.compression = uint8(r.Uint32())
		h.extensions = nil
		for range r.IntN(4) {
			h.extensions = append(h.extensions, extension{1 + r.Uint32N(math.MaxUint32), randomBytes(r, r.IntN(60))})
		}
		parsed, err := parseHeader(encoded(t, h), false)
		if err != nil || !reflect.DeepEqual(parsed, h) {
			t.Fatalf("%v: header was\n%+v\nand comes back as\n%+v", err, h, parsed)
		}
	}
}

func randomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestHeaderTooLargeToEncode(t *testing.T) {
	for what, change := range map[string]func(h *header){
		"header extensions":     func(h *header) { h.extensions[0].data = make([]byte, 512) },
		"the backing file name": func(h *header) { h.backingName = strings.Repeat("n", 400) },
	} {
		h := sampleHeader(9)
		change(h)
		_, err := h.encode()
		want := what + " do not fit into the first cluster of 512 bytes"
		if !errors.Is(err, block.ErrNoSpace) || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestProbe(t *testing.T) {
	be := binary.BigEndian
	for _, c := range []struct {
		head []byte
		want bool
	}{
		{encodedHead(2), true}, {encodedHead(3), true}, {encodedHead(4), true}, {encodedHead(math.MaxUint32), true},
		{encodedHead(1), false}, {encodedHead(0), false},
		{encodedHead(3)[:8], true}, {encodedHead(3)[:7], false}, {nil, false},
		{append([]byte{0}, encodedHead(3)...), false},
		{be.AppendUint32(be.AppendUint32(nil, magic+1), 3), false},
	} {
		if got := Probe(c.head); got != c.want {
			t.Errorf("Probe(%x) = %v", c.head, got)
		}
	}
}

func encodedHead(version uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, magic), version)
}

// headerCase is a valid first cluster with one thing changed, and what is said
// of it.
type headerCase struct {
	at    int    // where value goes
	value string // bytes
	kind  error
	text  string
}

func u32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }
func u64(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

// The extensions of the sample begin after its 128 bytes: 8 + 16 bytes, 8 + 8
// bytes, the end marker; the backing name begins at 176.
const (
	sampleExtension = 128
	sampleName      = 176
)

func TestHeaderParseRefusals(t *testing.T) {
	format, corrupt, unsupported := block.ErrFormat, block.ErrCorrupt, block.ErrUnsupported
	for _, c := range []headerCase{
		{0, "QFI\xfa", format, "Image is not in qcow2 format"},
		{4, u32(0), unsupported, "Unsupported qcow2 version 0"},
		{4, u32(1), unsupported, "Unsupported qcow2 version 1"},
		{4, u32(4), unsupported, "Unsupported qcow2 version 4"},
		{4, u32(math.MaxUint32), unsupported, "Unsupported qcow2 version 4294967295"},
		{20, u32(0), unsupported, "Unsupported cluster size: 2^0"},
		{20, u32(8), unsupported, "Unsupported cluster size: 2^8"},
		{20, u32(22), unsupported, "Unsupported cluster size: 2^22"},
		{20, u32(63), unsupported, "Unsupported cluster size: 2^63"},
		{20, u32(math.MaxUint32), unsupported, "Unsupported cluster size: 2^4294967295"},
		{96, u32(7), corrupt, "Reference count entry width too large; may not exceed 64 bits: refcount_order is 7"},
		{96, u32(math.MaxUint32), corrupt, "refcount_order is 4294967295"},
		{100, u32(0), corrupt, "qcow2 header too short: header_length is 0, version 3 needs 104"},
		{100, u32(103), corrupt, "qcow2 header too short: header_length is 103, version 3 needs 104"},
		{100, u32(4097), corrupt, "qcow2 header exceeds cluster size: header_length is 4097, a cluster has 4096 bytes"},
		{100, u32(math.MaxUint32), corrupt, "header_length is 4294967295, a cluster has 4096 bytes"},
		{8, u64(4097), corrupt, "Invalid backing file offset: 0x1001 is beyond the first cluster of 4096 bytes"},
		{8, u64(math.MaxUint64), corrupt, "Invalid backing file offset: 0xffffffffffffffff is beyond"},
		{16, u32(1024), corrupt, "Backing file name too long: 1024 bytes at offset 0xb0, at most 1023 fit"},
		{16, u32(math.MaxUint32), corrupt, "Backing file name too long: 4294967295 bytes"},
		{8, u64(4090) + u32(7), corrupt, "Backing file name too long: 7 bytes at offset 0xffa, at most 6 fit"},
		{8, u64(4096) + u32(1), corrupt, "at most 0 fit"},
		{sampleName + 3, "\x00", corrupt, "Backing file name contains a NUL byte"},
		{sampleExtension + 4, u32(math.MaxInt32), corrupt, "Header extension too large: 0x12345678 has 2147483647 bytes, 40 are left"},
		{sampleExtension + 4, u32(math.MaxUint32), corrupt, "Header extension too large: 0x12345678 has 4294967295 bytes"},
		{sampleExtension + 4, u32(41), corrupt, "Header extension too large: 0x12345678 has 41 bytes, 40 are left"},
		{sampleName - 8, u32(7) + u32(1), corrupt, "Header extension too large: 0x7 has 1 bytes, 0 are left"},
	} {
		b := encoded(t, sampleHeader(12))
		copy(b[c.at:], c.value)
		_, err := parseHeader(b, false)
		expectError(t, fmt.Sprintf("%x at %d", c.value, c.at), err, c.kind, c.text)
	}
}

func expectError(t *testing.T, what string, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %q, want %v with %q", what, err, kind, text)
	}
}

// A file that ends within the header is refused, wherever it ends.
func TestHeaderCutShort(t *testing.T) {
	h := sampleHeader(12)
	whole := encoded(t, h)
	for n := range sampleName + len(h.backingName) {
		_, err := parseHeader(whole[:n], false)
		kind, text := error(block.ErrCorrupt), "cut short"
		switch {
		case n < v2HeaderLength:
			kind, text = block.ErrFormat, "not in qcow2 format"
		case n < minV3HeaderLength:
			text = fmt.Sprintf("qcow2 header too short: the file ends after %d bytes, version 3 needs 104", n)
		case n < int(h.length):
			text = fmt.Sprintf("qcow2 header is cut short: header_length is 128, the file has %d bytes", n)
		case n >= sampleExtension+8 && n < sampleExtension+8+12, n >= sampleExtension+24+8 && n < sampleExtension+24+8+3:
			text = "Header extension too large"
		}
		expectError(t, fmt.Sprintf("%d bytes", n), err, kind, text)
	}
}

func TestTooManyExtensions(t *testing.T) {
	h := sampleHeader(16)
	h.extensions = nil
	for i := range uint32(maxExtensions) {
		h.extensions = append(h.extensions, extension{kind: i + 1})
	}
	if _, err := parseHeader(encoded(t, h), false); err != nil {
		t.Error(err)
	}
	h.extensions = append(h.extensions, extension{kind: 1 << 20})
	_, err := parseHeader(encoded(t, h), false)
	expectError(t, "65 extensions", err, block.ErrCorrupt, "Too many header extensions: more than 64")
}

func TestHeaderValidate(t *testing.T) {
	corrupt, unsupported := block.ErrCorrupt, block.ErrUnsupported
	for _, c := range []struct {
		change func(h *header)
		kind   error // nil: valid
		text   string
	}{
		{func(h *header) {}, nil, ""},
		{func(h *header) { h.incompat = 1 << 63 }, unsupported, "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000"},
		{func(h *header) { h.incompat = 3<<5 | incompatDirty }, unsupported, "Unknown incompatible feature: 60"},
		{func(h *header) {
			h.incompat = 1<<5 | 1<<6 | 1<<7
			h.name(0, 6, "time travel")
			h.name(1, 5, "not this")
		}, unsupported,
			"Unsupported qcow2 feature(s): time travel, Unknown incompatible feature: a0"},
		{func(h *header) { h.incompat = 1 << 63; h.name(0, 63, strings.Repeat("n", 46)) }, unsupported, "feature(s): " + strings.Repeat("n", 46)},
		{func(h *header) { h.compat, h.autoclear = math.MaxUint64, math.MaxUint64&^autoclearRawData }, nil, ""},
		{func(h *header) { h.autoclear = autoclearRawData }, corrupt, "data-file-raw requires a data file"},
		{func(h *header) { h.incompat |= incompatDirty | incompatCorrupt }, nil, ""},
		{func(h *header) { h.compression = 2; h.incompat |= incompatCompression }, unsupported, "qcow2: unknown compression type: 2: known are 0 (zlib) and 1 (zstd)"},
		{func(h *header) { h.compression = 255 }, unsupported, "unknown compression type: 255"},
		{func(h *header) { h.compression = 1; h.incompat |= incompatCompression }, nil, ""},
		{func(h *header) { h.compression = 1 }, corrupt, "feature bit must be set: compression_type is 1"},
		{func(h *header) { h.incompat |= incompatCompression }, corrupt, "feature bit must not be set: compression_type is 0 (zlib)"},
		{func(h *header) { h.incompat |= incompatExtendedL2; h.setBits(13) }, corrupt, "Extended L2 entries need clusters of at least 16384 bytes, this image has 8192"},
		{func(h *header) { h.incompat |= incompatExtendedL2; h.setBits(14) }, nil, ""},
		{func(h *header) { h.incompat |= incompatDataFile; h.autoclear = autoclearRawData }, corrupt, `an image with a raw data file can't have a backing file, this one names "base.raw"`},
		{func(h *header) { h.incompat |= incompatDataFile; h.autoclear, h.backingName = autoclearRawData, "" }, nil, ""},
		{func(h *header) { h.cryptMethod = 1 }, nil, ""},
		{func(h *header) { h.cryptMethod = 2 }, corrupt, "Missing CRYPTO header for crypt method 2"},
		{func(h *header) {
			h.cryptMethod, h.extensions = 2, append(h.extensions, extension{extCrypto, make([]byte, 15)})
		}, corrupt, "CRYPTO header extension size 15, but expected size 16"},
		{func(h *header) {
			h.cryptMethod, h.extensions = 2, append(h.extensions, extension{extCrypto, encodeTable([]uint64{1, 1})})
		}, corrupt, "Encryption header offset '1' is not a multiple of cluster size"},
		{func(h *header) {
			h.cryptMethod, h.extensions = 2, append(h.extensions, extension{extCrypto, encodeTable([]uint64{0, 1 << 63})})
		}, corrupt, "Encryption header of 9223372036854775808 bytes at 0x0 is beyond what can be"},
		{func(h *header) { h.cryptMethod = 3 }, unsupported, "Unsupported encryption method 3"},
		{func(h *header) { h.cryptMethod = math.MaxUint32 }, unsupported, "Unsupported encryption method 4294967295"},
		{func(h *header) { h.size = 0; h.l1Size = 0 }, nil, ""},
		{func(h *header) { h.size = 1 << 63 }, corrupt, "virtual size of 9223372036854775808 bytes, the limit is 9223372035781033984"},
		{func(h *header) { h.size = math.MaxUint64 }, corrupt, "virtual size of 18446744073709551615 bytes"},
		{func(h *header) { h.size = maxSize + 1 }, corrupt, "Image is too big"},
		{func(h *header) { h.size = maxSize }, corrupt, "Image is too big: 9223372035781033984 bytes need"},
		{func(h *header) { h.setBits(16); h.l1Size = 2; h.size = 1<<30 + 1 }, corrupt, "L1 table is too small: it has 2 entries, a disk of 1073741825 bytes needs 3"},
		{func(h *header) { h.setBits(16); h.l1Size = 2; h.size = 1 << 30 }, nil, ""},
		{func(h *header) { h.setBits(16); h.incompat |= incompatExtendedL2; h.l1Size = 2; h.size = 1 << 30 }, corrupt, "a disk of 1073741824 bytes needs 4"},
		{func(h *header) { h.l1Size = 4194304 }, nil, ""},
		{func(h *header) { h.l1Size = 4194305 }, corrupt, "Active L1 table too large: 4194305 entries, the limit is 4194304"},
		{func(h *header) { h.l1Size = math.MaxUint32 }, corrupt, "Active L1 table too large: 4294967295 entries"},
		{func(h *header) { h.l1Offset = 0 }, corrupt, "Active L1 table offset invalid: 0x0"},
		{func(h *header) { h.l1Offset++ }, corrupt, "Active L1 table offset invalid: 0x3001"},
		{func(h *header) { h.l1Offset = 1 << 56 }, corrupt, "Active L1 table offset invalid: 0x100000000000000"},
		{func(h *header) { h.l1Offset = 0xfffffffffffff000 }, corrupt, "Active L1 table offset invalid: 0xfffffffffffff000"},
		{func(h *header) { h.reftableClusters = 2049 }, corrupt, "Reference count table too large: 2049 clusters of 4096 bytes, the limit is 8388608 bytes"},
		{func(h *header) { h.setBits(16); h.reftableClusters = 129 }, corrupt, "129 clusters of 65536 bytes, the limit is 8388608 bytes"},
		{func(h *header) { h.reftableClusters = 1 << 20 }, corrupt, "1048576 clusters of 4096 bytes"},
		{func(h *header) { h.reftableClusters = math.MaxUint32 }, corrupt, "4294967295 clusters of 4096 bytes"},
		{func(h *header) { h.reftableOffset = 513 }, corrupt, "Reference count table offset invalid: 0x201"},
		{func(h *header) { h.reftableOffset = 1 << 56 }, corrupt, "Reference count table offset invalid: 0x100000000000000"},
		{func(h *header) { h.snapshotCount, h.snapshotsOffset = 65536, 4096 }, nil, ""},
		{func(h *header) { h.snapshotCount, h.snapshotsOffset = 65537, 4096 }, corrupt, "Snapshot table too large: 65537 snapshots, the limit is 65536"},
		{func(h *header) { h.snapshotCount = 1 }, corrupt, "Snapshot table offset invalid: 0x0"},
		{func(h *header) { h.snapshotCount, h.snapshotsOffset = 1, 4097 }, corrupt, "Snapshot table offset invalid: 0x1001"},
		{func(h *header) { h.snapshotCount, h.snapshotsOffset = 1, 1<<63 }, corrupt, "Snapshot table offset invalid: 0x8000000000000000"},
	} {
		h := sampleHeader(12)
		c.change(h)
		err := h.validate()
		if c.kind == nil && err != nil {
			t.Errorf("%+v: %v", h, err)
		} else if c.kind != nil {
			expectError(t, fmt.Sprintf("%+v", h), err, c.kind, c.text)
		}
	}
}

// setBits changes the cluster size and moves the tables along.
func (h *header) setBits(n uint32) {
	h.clusterBits, h.l1Offset, h.reftableOffset = n, 3<<n, 1<<n
}

// name adds an entry to the table of feature names.
func (h *header) name(kind, bit byte, name string) {
	e := make([]byte, featureNameEntry)
	e[0], e[1] = kind, bit
	copy(e[2:], name)
	for i := range h.extensions {
		if h.extensions[i].kind == extFeatureNames {
			h.extensions[i].data = append(h.extensions[i].data, e...)
			return
		}
	}
	h.extensions = append(h.extensions, extension{extFeatureNames, e})
}

// A header that goes on behind what is read at first is read on, if it is not
// longer than maxHeader; a file that ends there is a file that ends.
func TestReadLongHeader(t *testing.T) {
	const big = 21
	padded := func(n int) *header {
		h := sampleHeader(big)
		h.extensions[0].data = make([]byte, n)
		return h
	}
	longName := sampleHeader(big)
	longName.backingName = strings.Repeat("n", maxBackingName)
	longName.extensions[0].data = make([]byte, headerRead-300)
	long := sampleHeader(big)
	long.length, long.unknown = 100<<10, make([]byte, 100<<10-minV3HeaderLength-1)
	for i, h := range []*header{sampleHeader(big), longName, long, padded(100 << 10), padded(maxHeader - 300), padded(headerRead - sampleExtension - 8), padded(headerRead - sampleExtension - 16)} {
		got, err := readHeader(fileOf(encoded(t, h)))
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("header %d: %v", i, err)
		}
	}
	_, err := readHeader(fileOf(encoded(t, padded(maxHeader))))
	expectError(t, "a header of more than 256 KiB", err, block.ErrUnsupported, "The header with its extensions is longer than 262144 bytes")
	for _, n := range []int{headerRead - 1, headerRead, headerRead + 1, maxHeader - 1} {
		_, err := readHeader(fileOf(encoded(t, padded(maxHeader))[:n]))
		expectError(t, fmt.Sprintf("an extension that ends behind %d bytes", n), err, block.ErrCorrupt, "Header extension too large")
		_, err = readHeader(fileOf(encoded(t, long)[:min(n, 90<<10)]))
		expectError(t, fmt.Sprintf("a header that ends behind %d bytes", n), err, block.ErrCorrupt, "header is cut short")
		if n < 100<<10 {
			_, err = readHeader(fileOf(encoded(t, sampleHeader(big))[:n]))
			if err != nil {
				t.Errorf("a file of %d bytes: %v", n, err)
			}
		}
	}
}

func fileOf(b []byte) block.File {
	f := storage.NewMemory()
	if _, err := f.WriteAt(b, 0); err != nil {
		panic(err)
	}
	return f
}

// The unknown bits can be had from the error.
func TestFeatureError(t *testing.T) {
	h := sampleHeader(16)
	h.incompat = 1<<63 | 1<<5 | incompatDirty
	h.name(0, 5, "five")
	var e *block.FeatureError
	if err := h.unknownFeatures(); !errors.As(err, &e) || e.Bits != 1<<63|1<<5 {
		t.Errorf("got %v", err)
	}
	if want := []string{"five", "Unknown incompatible feature: 8000000000000000"}; !reflect.DeepEqual(e.Names, want) {
		t.Errorf("got %q, want %q", e.Names, want)
	}
}

// A new image's table of names has one for each feature that this package knows.
func TestFeatureNameTable(t *testing.T) {
	names := map[[2]byte]string{}
	for b := featureNameTable(); len(b) > 0; b = b[featureNameEntry:] {
		name, _, ended := bytes.Cut(b[2:featureNameEntry], []byte{0})
		if !ended || len(name) == 0 {
			t.Errorf("entry %x", b[:featureNameEntry])
		}
		names[[2]byte{b[0], b[1]}] = string(name)
	}
	for bit := byte(0); incompatKnown>>bit != 0; bit++ {
		if names[[2]byte{0, bit}] == "" {
			t.Errorf("incompatible feature bit %d has no name", bit)
		}
	}
	if len(names) != len(featureNames) {
		t.Errorf("%d names for %d features", len(names), len(featureNames))
	}
}
