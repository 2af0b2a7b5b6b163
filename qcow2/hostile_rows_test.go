package qcow2_test

import (
	"fmt"
	"math"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// The rows of TestHostileHeaders: each field of a header with each value that
// should not be there.

// verdict is what is said when an image is opened; of kind nil if it opens.
type verdict struct {
	kind error
	text string
}

var opens = verdict{}

func corrupt(format string, args ...any) verdict {
	return verdict{block.ErrCorrupt, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) verdict {
	return verdict{block.ErrUnsupported, fmt.Sprintf(format, args...)}
}

func refusal(format string, args ...any) verdict {
	return verdict{block.ErrRefused, fmt.Sprintf(format, args...)}
}

// hostile is an image and what is said of it.
type hostile struct {
	name, seed string
	edit       func(f *forge)

	// What is said to opening it for reading and for writing, and to
	// inspecting it.
	read, write, inspect verdict
	keeps                string // what is said to each write of what opens; empty: nothing
	asks                 string // what the policy is asked for
	// Why QEMU decides otherwise, when it does: of reading and of writing.
	differs, differsWriting string
}

type hostiles []*hostile

// add adds an image that is treated alike by all who look at it.
func (l *hostiles) add(name, seed string, v verdict, edit func(*forge)) *hostile {
	h := &hostile{name: seed + " " + name, seed: seed, edit: edit, read: v, write: v, inspect: v}
	*l = append(*l, h)
	return h
}

func (h *hostile) writes(v verdict) *hostile   { h.write = v; return h }
func (h *hostile) inspects(v verdict) *hostile { h.inspect = v; return h }
func (h *hostile) asksFor(s string) *hostile   { h.asks = s; return h }

// unlike notes why QEMU decides otherwise.
func (h *hostile) unlike(why string) *hostile {
	h.differs, h.differsWriting = why, why
	return h
}

// unlikeReading and unlikeWriting are unlike where only one is meant.
func (h *hostile) unlikeReading(why string) *hostile { h.differs = why; return h }
func (h *hostile) unlikeWriting(why string) *hostile { h.differsWriting = why; return h }

func field32(at int64, v uint32) func(*forge) { return func(f *forge) { f.put32(at, v) } }
func field64(at int64, v uint64) func(*forge) { return func(f *forge) { f.put64(at, v) } }

func hostileHeaders() hostiles {
	var l hostiles
	l.sizes()
	l.lengths()
	l.l1Tables()
	l.refcountTables()
	l.extensions()
	l.names()
	l.dataFiles()
	l.snapshots()
	l.features()
	l.bitmaps()
	l.cutFiles()
	return l
}

func (l *hostiles) sizes() {
	for _, v := range []uint32{0, 1, 4, 5, math.MaxUint32} {
		l.add(fmt.Sprintf("version %d", v), "v3", unsupported("Unsupported qcow2 version %d", v), field32(hVersion, v))
	}
	for _, bits := range []uint32{0, 8, 22, 31, 32, 63, 64, math.MaxUint32} {
		for _, seed := range []string{"v2", "v3"} {
			l.add(fmt.Sprintf("cluster_bits %d", bits), seed, unsupported("Unsupported cluster size: 2^%d", bits), field32(hClusterBits, bits))
		}
	}
	for _, order := range []uint32{7, 8, 31, 32, 63, math.MaxUint32} {
		l.add(fmt.Sprintf("refcount_order %d", order), "v3", corrupt("refcount_order is %d", order), field32(hRefcountOrder, order))
	}
	for _, size := range []uint64{1 << 63, math.MaxUint64, math.MaxUint64 - 4095, math.MaxInt64, 1<<63 - 1<<30 + 512} {
		l.add(fmt.Sprintf("size %#x", size), "v3", corrupt("virtual size of %d bytes, the limit is 9223372035781033984", size), field64(hSize, size))
	}
	for _, size := range []uint64{2<<20 + 1, 1 << 40, 1<<63 - 1<<30} {
		text := fmt.Sprintf("L1 table is too small: it has 1 entries, a disk of %d bytes needs %d", size, (size+2<<20-1)>>21)
		if size > 1<<52 {
			text = fmt.Sprintf("Image is too big: %d bytes need an L1 table of %d entries", size, (size+2<<20-1)>>21)
		}
		l.add(fmt.Sprintf("size %#x", size), "v3", corrupt("%s", text), field64(hSize, size))
	}
}

func (l *hostiles) lengths() {
	for _, n := range []uint32{0, 1, 71, 72, 103} {
		l.add(fmt.Sprintf("header_length %d", n), "v3", corrupt("header_length is %d, version 3 needs 104", n), field32(hHeaderLength, n))
	}
	for _, n := range []uint32{4097, 65537, 1 << 31, math.MaxUint32} {
		l.add(fmt.Sprintf("header_length %d", n), "v3", corrupt("header_length is %d, a cluster has 4096 bytes", n), field32(hHeaderLength, n))
	}
	l.add("header_length of 2 MiB", "2M", unsupported("The header with its extensions is longer than 262144 bytes"), field32(hHeaderLength, 2<<20)).
		unlike("no header is that long, and describing an image takes at most 1 MiB")
}

func (l *hostiles) l1Tables() {
	for _, n := range []uint32{4194305, 1 << 28, 1 << 29, math.MaxInt32, math.MaxUint32} {
		l.add(fmt.Sprintf("l1_size %d", n), "v3", corrupt("Active L1 table too large: %d entries, the limit is 4194304", n), field32(hL1Size, n))
	}
	l.add("l1_size 4194304", "v3", corrupt("Active L1 table of 33554432 bytes at 0x3000 lies beyond the end of the file"), field32(hL1Size, 4194304)).inspects(opens).unlike(cutTable)
	l.add("l1_size 0", "v3", corrupt("L1 table is too small: it has 0 entries, a disk of 98304 bytes needs 1"), field32(hL1Size, 0))
	for _, off := range []uint64{0, 1, 511, 0x3008, 0xffffffffffff0000, 1 << 56, 1 << 62, math.MaxUint64} {
		h := l.add(fmt.Sprintf("l1_table_offset %#x", off), "v3", corrupt("Active L1 table offset invalid: %#x", off), field64(hL1Offset, off))
		if off%4096 == 0 && off < 1<<63 {
			h.unlike(cutTable)
		}
	}
	for _, off := range []uint64{1 << 30, 1 << 55, 1<<56 - 4096} {
		l.add(fmt.Sprintf("l1_table_offset %#x", off), "v3", corrupt("Active L1 table of 8 bytes at %#x lies beyond the end of the file", off), field64(hL1Offset, off)).inspects(opens).unlike(cutTable)
	}
	l.add("l1 table at the end of the file", "v3", corrupt("Active L1 table of 8 bytes at"), func(f *forge) { f.put64(hL1Offset, (uint64(len(f.b))+4095)&^4095) }).inspects(opens).unlike(cutTable)
}

// Reasons to decide otherwise than QEMU, which reads tables that lie beyond the
// end of the file as zeros.
const (
	cutTable    = "a table that is not in the file is not a table of zeros: that would lose the disk without a word"
	needCounts  = "without its refcounts an image can't be written"
	readable    = "reading needs no refcounts"
	unusedTable = "nothing that is not needed is read: the disk is there, whatever the snapshots are"
)

func (l *hostiles) refcountTables() {
	l.add("no refcount table clusters", "v3", opens, field32(hReftableClusters, 0)).
		writes(corrupt("Image does not contain a reference count table")).unlikeReading(readable)
	for _, c := range []struct {
		seed     string
		clusters uint32
	}{
		{"64k", 129}, {"64k", 1 << 16}, {"64k", math.MaxUint32}, {"v3", 2049}, {"v2", 1 << 20}, {"v3", math.MaxUint32},
		{"512", 16385}, {"512", 1 << 23}, {"512", math.MaxUint32}, {"2M", 5}, {"2M", 1 << 11}, {"2M", math.MaxUint32},
	} {
		l.add(fmt.Sprintf("refcount_table_clusters %d", c.clusters), c.seed, corrupt("Reference count table too large: %d clusters of", c.clusters), field32(hReftableClusters, c.clusters))
	}
	for _, off := range []uint64{1, 513, 0x1008, 0xffffffffffff0000, 1 << 56, 1 << 63, math.MaxUint64} {
		h := l.add(fmt.Sprintf("refcount_table_offset %#x", off), "v3", corrupt("Reference count table offset invalid: %#x", off), field64(hReftableOffset, off))
		if off == 1<<56 {
			h.unlike(needCounts)
		}
	}
	l.add("refcount_table_offset 0", "v3", opens, field64(hReftableOffset, 0)).
		writes(corrupt("Image does not contain a reference count table")).unlikeWriting(needCounts)
	for _, off := range []uint64{1 << 30, 1<<56 - 4096} {
		l.add(fmt.Sprintf("refcount_table_offset %#x", off), "v3", opens, field64(hReftableOffset, off)).
			writes(corrupt("refcount table of 4096 bytes at %#x lies beyond the end of the file", off)).unlikeWriting(needCounts)
	}
	l.add("a refcount table that is longer than the file", "v3", opens, field32(hReftableClusters, 2048)).
		writes(corrupt("refcount table of 8388608 bytes at 0x1000 lies beyond the end of the file")).unlikeWriting(needCounts)
}

func (l *hostiles) extensions() {
	const first = 112 // where extensions begin in a seed
	for _, n := range []uint32{math.MaxInt32, math.MaxUint32, 4096, 4096 - first - 8 + 1} {
		l.add(fmt.Sprintf("extension of %d bytes", n), "v3", corrupt("Header extension too large: 0xabad1dea has %d bytes, 3976 are left", n), func(f *forge) {
			f.put32(first, 0xabad1dea)
			f.put32(first+4, n)
		})
	}
	l.add("extension into the backing name", "backed", corrupt("Header extension too large: 0xabad1dea has 4000 bytes"), func(f *forge) {
		f.put32(first, 0xabad1dea)
		f.put32(first+4, 4000)
	})
	l.add("8000 extensions", "64k", corrupt("Too many header extensions: more than 64"), func(f *forge) {
		for at := int64(first); at < first+8000*8; at += 8 {
			f.put32(at, 0xabad1dea)
			f.put32(at+4, 0)
		}
	}).unlike("each costs time, and nobody has use for that many")
	l.add("65 extensions", "v3", corrupt("Too many header extensions: more than 64"), func(f *forge) {
		f.setExtensions(make([]ext, 0))
		for i := range uint32(65) {
			f.extend(0xabad0000+i, "x")
		}
	}).unlike("each costs time, and nobody has use for that many")
	l.add("64 extensions", "v3", opens, func(f *forge) {
		f.setExtensions(nil)
		for i := range uint32(64) {
			f.extend(0xabad0000+i, "x")
		}
	})
	l.add("no end of the extensions", "v3", opens, func(f *forge) {
		f.setExtensions(nil)
		f.put32(first, 0xabad1dea)
		f.put32(first+4, 4096-first-8)
	})
	l.add("extension of 2 MiB", "2M", unsupported("The header with its extensions is longer than 262144 bytes"), func(f *forge) {
		f.setExtensions(nil)
		f.put32(first, 0xabad1dea)
		f.put32(first+4, 2<<20-first-8)
	}).unlike("no header is that long, and describing an image takes at most 1 MiB")
	l.add("feature names that are no table", "v3", opens, func(f *forge) {
		f.setExtensions(nil)
		f.extend(featureExtension, "names")
	})
}

func (l *hostiles) names() {
	set := func(off uint64, n uint32) func(*forge) {
		return func(f *forge) { f.put64(hBackingOffset, off); f.put32(hBackingLength, n) }
	}
	for _, n := range []uint32{1024, 1 << 16, math.MaxInt32, math.MaxUint32} {
		l.add(fmt.Sprintf("backing name of %d bytes", n), "v3", corrupt("Backing file name too long: %d bytes at offset 0x400, at most 1023 fit", n), set(1024, n))
	}
	for _, off := range []uint64{4097, 65537, 1 << 32, 1 << 63, math.MaxUint64 - 1023, math.MaxUint64} {
		l.add(fmt.Sprintf("backing_file_offset %#x", off), "v3", corrupt("Invalid backing file offset: %#x is beyond the first cluster of 4096 bytes", off), set(off, 10))
	}
	l.add("backing name at the end of the cluster", "v3", corrupt("Backing file name too long: 6 bytes at offset 0xffb, at most 5 fit"), set(4096-5, 6))
	l.add("backing name with a NUL", "backed", corrupt("Backing file name contains a NUL byte"), func(f *forge) { f.copyIn(int64(f.u64(hBackingOffset))+4, "\x00") })
	for _, name := range []string{"/etc/passwd", "../../x", `json:{"driver":"file","filename":"/etc/passwd"}`, "nbd://localhost/x", "https://example.com/x", "base\nraw", "base\x1b[2J", strings.Repeat("n", 1023)} {
		l.add(fmt.Sprintf("backing name %.20q", name), "v3", refusal("names backing file %q and no policy allows opening it", name), func(f *forge) { f.setBacking(2048, name) }).
			inspects(opens).asksFor(fmt.Sprintf(`backing file %q ""`, name))
	}
	l.add("backing format of 16 bytes", "backed", refusal("names backing file"), func(f *forge) {
		f.setExtensions([]ext{{formatExtension, []byte("0123456789abcdef")}})
	}).inspects(opens).asksFor(`backing file "base.raw" "0123456789abcdef"`)
	l.add("backing name of no bytes", "v3", opens, set(4096, 0))
}

func (l *hostiles) dataFiles() {
	l.add("data file", "datafile", refusal(`names data file "guest.data" and no policy allows opening it`), func(f *forge) {}).
		inspects(opens).asksFor(`data file "guest.data"`)
	l.add("data file /etc/shadow", "dataraw", refusal(`names data file "/etc/shadow" and no policy allows opening it`), func(f *forge) {
		f.setExtensions([]ext{{dataFileExtension, []byte("/etc/shadow")}})
	}).inspects(opens).asksFor(`data file "/etc/shadow"`)
	l.add("data file without a name", "datafile", verdict{block.ErrInvalid, "'data-file' is required for this image"}, func(f *forge) { f.setExtensions(nil) }).inspects(opens)
	l.add("data file with an empty name", "datafile", verdict{block.ErrInvalid, "'data-file' is required for this image"}, func(f *forge) {
		f.setExtensions([]ext{{dataFileExtension, nil}})
	}).inspects(opens)
	l.add("name of a data file without the feature", "v3", opens, func(f *forge) { f.extend(dataFileExtension, "/etc/shadow") })
	l.add("raw data file and backing file", "dataraw", corrupt(`an image with a raw data file can't have a backing file, this one names "base"`), func(f *forge) {
		f.setBacking(2048, "base")
	})
}

func (l *hostiles) snapshots() {
	l.add("65537 snapshots", "v3", corrupt("Snapshot table too large: 65537 snapshots, the limit is 65536"), func(f *forge) {
		f.addSnapshots("a")
		f.put32(hSnapshots, 65537)
	})
	l.add("4294967295 snapshots", "v2", corrupt("Snapshot table too large: 4294967295 snapshots, the limit is 65536"), field32(hSnapshots, math.MaxUint32))
	for _, off := range []uint64{0, 1, 0x1008, 1 << 56, 1 << 63, 0xffffffffffff0000} {
		h := l.add(fmt.Sprintf("snapshots_offset %#x", off), "v3", corrupt("Snapshot table offset invalid: %#x", off), func(f *forge) {
			f.addSnapshots("a")
			f.put64(hSnapshotsOffset, off)
		})
		if off == 0 || off == 1<<56 {
			h.unlike(cutTable)
		}
	}
	broken := func(name, text string, edit func(f *forge, at int64)) *hostile {
		return l.add(name, "v3", opens, func(f *forge) {
			f.addSnapshots("a", "b")
			edit(f, int64(f.u64(hSnapshotsOffset)))
		}).writes(corrupt("%s", text)).inspects(corrupt("%s", text))
	}
	cut := func(name, text string, edit func(f *forge, at int64)) {
		broken(name, text, edit).writes(opens).keeps = "the image can't be written while its snapshots can't be read: " + text
	}
	cut("snapshot table beyond the end", "snapshot table entry 0: snapshot table at 0x1000000000000 lies beyond the end of the file", func(f *forge, _ int64) {
		f.put64(hSnapshotsOffset, 1<<48)
	})
	cut("more snapshots than the file holds", "snapshot table entry", func(f *forge, _ int64) { f.put32(hSnapshots, 65536) })
	for _, n := range []uint32{1025, math.MaxInt32, math.MaxUint32} {
		broken(fmt.Sprintf("snapshot extra data of %d bytes", n), fmt.Sprintf("Too much extra metadata in snapshot table entry 0: %d bytes, the limit is 1024", n), func(f *forge, at int64) { f.put32(at+36, n) }).unlikeReading(unusedTable)
	}
	cut("snapshot name beyond the end", "snapshot table entry 1: snapshot table at", func(f *forge, at int64) {
		f.put16(at+64+14, 65535)
	})
}

func (l *hostiles) features() {
	unknown := func(bits uint64, text string) {
		l.add(fmt.Sprintf("incompatible features %#x", bits), "v3", unsupported("Unsupported qcow2 feature(s): %s", text), field64(hIncompat, bits))
	}
	unknown(1<<63, "Unknown incompatible feature: 8000000000000000")
	unknown(1<<5, "Unknown incompatible feature: 20")
	unknown(math.MaxUint64, "Unknown incompatible feature: ffffffffffffffe0")
	unknown(1<<63|bitDirty|bitCorrupt, "Unknown incompatible feature: 8000000000000000")
	l.add("named incompatible feature", "v3", unsupported("feature(s): time travel, Unknown incompatible feature: 40"), func(f *forge) {
		f.put64(hIncompat, 3<<5)
		f.setExtensions([]ext{{featureExtension, append([]byte{0, 5}, "time travel"+strings.Repeat("\x00", 35)...)}})
	})
	for _, v := range []byte{2, 3, 255} {
		l.add(fmt.Sprintf("compression_type %d", v), "zstd", unsupported("unknown compression type: %d", v), func(f *forge) { f.b[hCompression] = v })
	}
	l.add("compression_type without its feature", "zstd", corrupt("feature bit must be set: compression_type is 1"), field64(hIncompat, 0))
	l.add("feature without its compression_type", "zstd", corrupt("feature bit must not be set: compression_type is 0 (zlib)"), func(f *forge) { f.b[hCompression] = 0 })
	l.add("extended L2 with small clusters", "v3", corrupt("Extended L2 entries need clusters of at least 16384 bytes, this image has 4096"), field64(hIncompat, bitExtended))
	for method, text := range map[uint32]string{3: "Unsupported encryption method 3", math.MaxUint32: "Unsupported encryption method 4294967295"} {
		l.add(fmt.Sprintf("crypt_method %d", method), "v3", unsupported("%s", text), field32(hCryptMethod, method))
	}
	l.add("crypt_method 1", "v3", verdict{block.ErrPassphrase, "the image is encrypted (aes) and no passphrase is given"}, field32(hCryptMethod, 1)).inspects(opens)
	l.add("crypt_method 2", "v3", corrupt("Missing CRYPTO header for crypt method 2"), field32(hCryptMethod, 2))
	l.add("corrupt", "v3", opens, field64(hIncompat, bitCorrupt)).writes(corrupt("Image is corrupt; cannot be opened read/write"))
	l.add("dirty and corrupt", "v3", opens, field64(hIncompat, bitDirty|bitCorrupt)).writes(corrupt("Image is corrupt; cannot be opened read/write"))
	l.add("dirty", "v3", opens, field64(hIncompat, bitDirty))
	l.add("unknown compatible features", "v3", opens, field64(hCompat, math.MaxUint64))
	l.add("unknown autoclear features", "v3", opens, field64(hAutoclear, math.MaxUint64&^3))
	l.add("raw data file feature without a data file", "v3", corrupt("data-file-raw requires a data file"), field64(hAutoclear, 2))
}

func (l *hostiles) bitmaps() {
	add := func(name string, data []byte) *hostile {
		return l.add(name, "v3", opens, func(f *forge) {
			f.addBitmap("all")
			list := f.extensions()
			list[0].data = data
			f.setExtensions(list)
		}).unlike("bitmaps are looked at by who uses them only")
	}
	add("65536 bitmaps", bitmapsData(65536, 32, 4096))
	add("no bitmaps", bitmapsData(0, 0, 0))
	add("bitmap directory of 1 TiB", bitmapsData(1, 1<<40, 4096))
	add("bitmap directory at 2^63", bitmapsData(1, 32, 1<<63))
	add("bitmap directory that is not aligned", bitmapsData(1, 32, 4097))
	add("bitmap extension of 3 bytes", []byte("abc"))
	add("bitmap extension with reserved bits", func() []byte {
		b := bitmapsData(1, 32, 4096)
		b[7] = 1
		return b
	}())
}

func (l *hostiles) cutFiles() {
	cut := func(n int) func(*forge) { return func(f *forge) { f.b = f.b[:n] } }
	for _, n := range []int{0, 1, 4, 8, 71} {
		l.add(fmt.Sprintf("file of %d bytes", n), "v3", verdict{block.ErrFormat, "Image is not in qcow2 format"}, cut(n))
	}
	for _, n := range []int{72, 103} {
		l.add(fmt.Sprintf("file of %d bytes", n), "v3", corrupt("the file ends after %d bytes, version 3 needs 104", n), cut(n))
	}
	for _, n := range []int{512, 4096, 3 * 4096} {
		l.add(fmt.Sprintf("file of %d bytes", n), "v3", corrupt("Active L1 table of 8 bytes at 0x3000 lies beyond the end of the file (%d bytes)", n), cut(n)).inspects(opens).unlike(cutTable)
	}
	l.add("text", "v3", verdict{block.ErrFormat, "Image is not in qcow2 format"}, func(f *forge) { f.copyIn(0, "# Disk DescriptorFile\n") })
}
