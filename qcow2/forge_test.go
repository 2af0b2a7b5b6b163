package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Valid images as bytes, to be edited into hostile ones. What is found in them
// is found by a reader of its own, so that a mistake of the package can't hide
// in both.

// Places of the header's fields.
const (
	hVersion          = 4
	hBackingOffset    = 8
	hBackingLength    = 16
	hClusterBits      = 20
	hSize             = 24
	hCryptMethod      = 32
	hL1Size           = 36
	hL1Offset         = 40
	hReftableOffset   = 48
	hReftableClusters = 56
	hSnapshots        = 60
	hSnapshotsOffset  = 64
	hIncompat         = 72
	hCompat           = 80
	hAutoclear        = 88
	hRefcountOrder    = 96
	hHeaderLength     = 100
	hCompression      = 104
)

const (
	bitDirty       = 1 << 0
	bitCorrupt     = 1 << 1
	bitDataFile    = 1 << 2
	bitCompression = 1 << 3
	bitExtended    = 1 << 4

	copiedFlag     = 1 << 63
	compressedFlag = 1 << 62
	zeroFlag       = 1
	anOffset       = 0x00fffffffffffe00

	bitmapsExtension  = 0x23852875
	dataFileExtension = 0x44415441
	formatExtension   = 0xe2792aca
	featureExtension  = 0x6803f857
	cryptoExtension   = 0x0537be77
)

var be = binary.BigEndian

// forge is an image file in memory.
type forge struct{ b []byte }

func (f *forge) u32(at int64) uint32        { return be.Uint32(f.b[at:]) }
func (f *forge) u64(at int64) uint64        { return be.Uint64(f.b[at:]) }
func (f *forge) put16(at int64, v uint16)   { be.PutUint16(f.b[at:], v) }
func (f *forge) put32(at int64, v uint32)   { be.PutUint32(f.b[at:], v) }
func (f *forge) put64(at int64, v uint64)   { be.PutUint64(f.b[at:], v) }
func (f *forge) or64(at int64, v uint64)    { f.put64(at, f.u64(at)|v) }
func (f *forge) clear64(at int64, v uint64) { f.put64(at, f.u64(at)&^v) }
func (f *forge) copyIn(at int64, s string)  { copy(f.b[at:], s) }
func (f *forge) cluster() int64             { return 1 << f.u32(hClusterBits) }
func (f *forge) clusters() int64            { return int64(len(f.b)) / f.cluster() }
func (f *forge) v3() bool                   { return f.u32(hVersion) >= 3 }
func (f *forge) l1(i int64) int64           { return int64(f.u64(hL1Offset)) + 8*i }
func (f *forge) reftable(i int64) int64     { return int64(f.u64(hReftableOffset)) + 8*i }
func (f *forge) refblock(i int64) int64     { return int64(f.u64(f.reftable(i)) & anOffset) }
func (f *forge) table(i int64) int64        { return int64(f.u64(f.l1(i)) & anOffset) }
func (f *forge) has(incompat uint64) bool   { return f.v3() && f.u64(hIncompat)&incompat != 0 }
func (f *forge) file() *storage.Memory      { return memoryOf(f.b) }
func (f *forge) refcountBits() int64 {
	if !f.v3() {
		return 16
	}
	return 1 << f.u32(hRefcountOrder)
}

// dataAt returns where the data of a guest offset lies.
func (f *forge) dataAt(guest int64) int64 { return int64(f.u64(f.l2(guest)) & anOffset) }

// l2 returns where the L2 entry of a guest offset stands.
func (f *forge) l2(guest int64) int64 {
	entry := int64(8)
	if f.has(bitExtended) {
		entry = 16
	}
	cluster, perTable := guest/f.cluster(), f.cluster()/entry
	return f.table(cluster/perTable) + cluster%perTable*entry
}

// refcountAt returns where the refcount of a cluster stands, for widths of a
// byte and more.
func (f *forge) refcountAt(c int64) int64 {
	perBlock := f.cluster() * 8 / f.refcountBits()
	return f.refblock(c/perBlock) + c%perBlock*f.refcountBits()/8
}

func (f *forge) setRefcount(c int64, v uint64) {
	at, n := f.refcountAt(c), f.refcountBits()/8
	copy(f.b[at:at+n], be.AppendUint64(nil, v)[8-n:])
}

func (f *forge) refcount(c int64) uint64 {
	at, n := f.refcountAt(c), f.refcountBits()/8
	var p [8]byte
	copy(p[8-n:], f.b[at:at+n])
	return be.Uint64(p[:])
}

// grow adds n clusters that are counted and returns the offset of the first.
func (f *forge) grow(n int64) int64 {
	f.b = append(f.b, make([]byte, -int64(len(f.b))&(f.cluster()-1))...) // the last cluster may end early
	first := f.clusters()
	f.b = append(f.b, make([]byte, n*f.cluster())...)
	for c := first; c < first+n; c++ {
		f.setRefcount(c, 1)
	}
	return first * f.cluster()
}

// ext is a header extension.
type ext struct {
	kind uint32
	data []byte
}

// extensions parses those of the header, up to the end marker.
func (f *forge) extensions() (list []ext) {
	at := int64(72)
	if f.v3() {
		at = int64(f.u32(hHeaderLength))
	}
	for f.u32(at) != 0 {
		n := int64(f.u32(at + 4))
		list = append(list, ext{f.u32(at), slices.Clone(f.b[at+8 : at+8+n])})
		at += 8 + (n+7)/8*8
	}
	return list
}

// setExtensions writes the extensions anew, with the backing name behind them.
func (f *forge) setExtensions(list []ext) {
	name := slices.Clone(f.b[f.u64(hBackingOffset):][:f.u32(hBackingLength)])
	at := int64(72)
	if f.v3() {
		at = int64(f.u32(hHeaderLength))
	}
	clear(f.b[at:f.cluster()])
	for _, e := range list {
		f.put32(at, e.kind)
		f.put32(at+4, uint32(len(e.data)))
		copy(f.b[at+8:], e.data)
		at += 8 + int64(len(e.data)+7)/8*8
	}
	if len(name) > 0 {
		f.setBacking(at+8, string(name))
	}
}

func (f *forge) extend(kind uint32, data string) {
	f.setExtensions(append([]ext{{kind, []byte(data)}}, f.extensions()...))
}

// setBacking places a backing name at an offset of the first cluster.
func (f *forge) setBacking(at int64, name string) {
	f.put64(hBackingOffset, uint64(at))
	f.put32(hBackingLength, uint32(len(name)))
	f.copyIn(at, name)
}

// addSnapshots takes snapshots of the disk as it is, with refcounts of 16 bits.
func (f *forge) addSnapshots(names ...string) {
	n := int64(f.u32(hL1Size))
	var table []byte
	for i, name := range names {
		l1 := f.grow((8*n + f.cluster() - 1) / f.cluster())
		for k := range n {
			f.clear64(f.l1(k), copiedFlag)
			f.share(f.table(k))
			f.put64(l1+8*k, f.u64(f.l1(k)))
		}
		table = append(table, snapshotRecord(fmt.Sprint(i+1), name, uint64(l1), uint32(n), f.u64(hSize))...)
	}
	at := f.grow((int64(len(table)) + f.cluster() - 1) / f.cluster())
	copy(f.b[at:], table)
	f.put32(hSnapshots, uint32(len(names)))
	f.put64(hSnapshotsOffset, uint64(at))
}

// share counts an L2 table, and what it refers to, once more.
func (f *forge) share(table int64) {
	if table == 0 {
		return
	}
	add := func(off, n int64) {
		for c := off / f.cluster(); c <= (off+n-1)/f.cluster(); c++ {
			f.setRefcount(c, f.refcount(c)+1)
		}
	}
	add(table, 1)
	step := int64(8)
	if f.has(bitExtended) {
		step = 16
	}
	for at := table; at < table+f.cluster(); at += step {
		switch e := f.u64(at); {
		case e&compressedFlag != 0:
			x := 70 - f.u32(hClusterBits)
			off := int64(e & (1<<x - 1))
			sectors := int64(e &^ (3 << 62) >> x)
			add(off, (sectors+1)*512-off%512)
		case e&anOffset != 0:
			add(int64(e&anOffset), 1)
			f.clear64(at, copiedFlag)
		}
	}
}

// snapshotRecord is a table entry as QEMU writes it, padded to eight bytes.
func snapshotRecord(id, name string, l1 uint64, l1Size uint32, diskSize uint64) []byte {
	b := be.AppendUint64(nil, l1)
	b = be.AppendUint32(b, l1Size)
	b = be.AppendUint16(b, uint16(len(id)))
	b = be.AppendUint16(b, uint16(len(name)))
	b = be.AppendUint32(b, 1_700_000_000)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint64(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 16) // extra data: VM state size, disk size
	b = be.AppendUint64(b, 0)
	b = be.AppendUint64(b, diskSize)
	b = append(b, id+name...)
	return append(b, make([]byte, -len(b)&7)...)
}

// addBitmap adds a persistent dirty bitmap in which everything is dirty, with a
// granularity of 64 KiB.
func (f *forge) addBitmap(name string) {
	f.put64(hAutoclear, 1)
	data, table, dir := f.grow(1), f.grow(1), f.grow(1)
	clear(f.b[data:][:f.cluster()])
	bits := (f.u64(hSize) + 1<<16 - 1) >> 16
	for i := range bits {
		f.b[data+int64(i/8)] |= 1 << (i % 8)
	}
	f.put64(table, uint64(data))
	size := f.putBitmapEntry(dir, name, uint64(table))
	f.extend(bitmapsExtension, string(bitmapsData(1, uint64(size), uint64(dir))))
}

// putBitmapEntry writes a directory entry and returns its length.
func (f *forge) putBitmapEntry(at int64, name string, table uint64) int64 {
	f.put64(at, table)
	f.put32(at+8, 1)  // table entries
	f.put32(at+12, 2) // flags: auto
	f.b[at+16], f.b[at+17] = 1, 16
	f.put16(at+18, uint16(len(name)))
	f.put32(at+20, 0)
	f.copyIn(at+24, name)
	return (24 + int64(len(name)) + 7) &^ 7
}

func bitmapsData(n uint32, size, dir uint64) []byte {
	b := be.AppendUint32(nil, n)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint64(b, size)
	return be.AppendUint64(b, dir)
}

func memoryOf(b []byte) *storage.Memory {
	m := storage.NewMemory()
	if _, err := m.WriteAt(b, 0); err != nil {
		panic(err)
	}
	return m
}

func contentOf(t testing.TB, f block.File) []byte {
	t.Helper()
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && n > 0 {
		t.Fatal(err)
	}
	return b
}

// A seed's disk, in clusters: data in 0 to 3, nothing in 4 to 7, compressed data
// in 8 to 11, zeros in 12 and 13, data again in 15; nothing from 16 on.
const (
	seedClusters   = 24
	seedCompressed = 8
	seedZero       = 12
	seedHole       = 16
)

// seedOptions are the kinds of images that others are made from.
var seedOptions = map[string]qcow2.CreateOptions{
	"v3":       {ClusterSize: 4096},
	"v2":       {ClusterSize: 4096, Version: 2},
	"512":      {ClusterSize: 512},
	"refs8":    {ClusterSize: 512, RefcountBits: 8},
	"refs64":   {ClusterSize: 512, RefcountBits: 64},
	"64k":      {ClusterSize: 64 << 10},
	"2M":       {ClusterSize: 2 << 20},
	"sub":      {ClusterSize: 16 << 10, ExtendedL2: true},
	"zstd":     {ClusterSize: 4096, Compression: qcow2.Zstd},
	"lazy":     {ClusterSize: 4096, LazyRefcounts: true},
	"backed":   {ClusterSize: 4096, BackingFile: "base.raw", BackingFormat: "raw"},
	"datafile": {ClusterSize: 4096, DataFile: "guest.data"},
	"dataraw":  {ClusterSize: 4096, DataFile: "guest.data", DataFileRaw: true},
}

// seeds remembers the bytes of seeds that were made before.
var seeds = map[string][]byte{}

// seed returns an image of a kind of seedOptions.
func seed(t testing.TB, kind string) *forge {
	t.Helper()
	if _, ok := seeds[kind]; !ok {
		seeds[kind] = makeSeed(t, kind)
	}
	return &forge{slices.Clone(seeds[kind])}
}

func makeSeed(t testing.TB, kind string) []byte {
	t.Helper()
	o, ok := seedOptions[kind]
	if !ok {
		t.Fatalf("there is no seed %q", kind)
	}
	o.Size = seedClusters * o.ClusterSize
	if o.ClusterSize > 64<<10 {
		o.Size = 2 * o.ClusterSize
	}
	f, data := storage.NewMemory(), storage.NewMemory()
	if o.DataFile != "" {
		o.Data = data.Reopen()
	}
	must(t, qcow2.Create(f.Reopen(), &o))
	open := &qcow2.OpenOptions{Writable: true, Policy: memoryBacking{}}
	if o.DataFile != "" {
		open.Data = data.Reopen()
	}
	img, err := qcow2.Open(f.Reopen(), open)
	must(t, err)
	fillSeed(t, img, o)
	must(t, img.Close())
	return contentOf(t, f)
}

func fillSeed(t testing.TB, img *block.Image, o qcow2.CreateOptions) {
	cs := o.ClusterSize
	if o.Size < 16*cs {
		_, err := img.WriteAt(seedData(0, 4096), 0)
		must(t, err)
		return
	}
	for _, c := range []int64{0, 1, 2, 3, 15} {
		_, err := img.WriteAt(seedData(c*cs, cs), c*cs)
		must(t, err)
	}
	if o.DataFile == "" {
		must(t, img.WriteCompressed(seedData(seedCompressed*cs, 4*cs), seedCompressed*cs))
	}
	must(t, img.WriteZeroes(seedZero*cs, 2*cs, block.MayUnmap))
}

func seedData(off, n int64) []byte {
	p := make([]byte, n)
	stamp.Fill(p, off, 1)
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is made here is valid.
func TestSeeds(t *testing.T) {
	for kind := range seedOptions {
		f := seed(t, kind)
		checkSeed(t, kind, f)
		if f.cluster() > 4096 || f.has(bitDataFile) || f.refcountBits() != 16 {
			continue
		}
		f.addSnapshots("one", "two")
		checkSeed(t, kind+" with snapshots", f)
		if f.v3() && f.cluster() >= 4096 {
			f.addBitmap("all")
			f.extend(0x12345678, "what is this")
			checkSeed(t, kind+" with snapshots and a bitmap", f)
		}
	}
}

func checkSeed(t *testing.T, what string, f *forge) {
	t.Helper()
	o := &qcow2.OpenOptions{Policy: memoryBacking{}}
	if f.has(bitDataFile) {
		o.Data = storage.NewMemory()
	}
	img, err := qcow2.Open(f.file(), o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := checkNoCorruption(img, true); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if f.has(bitDataFile) || img.Size() < 16*f.cluster() {
		return
	}
	for _, c := range []int64{0, 3, 8, 11, 15} {
		p := make([]byte, f.cluster())
		if _, err := img.ReadAt(p, c*f.cluster()); err != nil || !bytes.Equal(p, seedData(c*f.cluster(), f.cluster())) {
			t.Errorf("%s: cluster %d: %v", what, c, err)
		}
	}
}
