package qcow2

import (
	"bytes"
	"math/bits"

	"github.com/diskimg/diskimg/block"
)

// Creating an image: the smallest one that is valid, of size 0, which is then
// opened and grown like any other.

// Compression is how compressed clusters are encoded.
type Compression uint8

const (
	// Zlib is raw deflate, with match distances of at most 4096.
	Zlib Compression = compressionZlib
	// Zstd needs a program that knows the compression type feature.
	Zstd Compression = compressionZstd
)

func (c Compression) String() string { return [...]string{"zlib", "zstd"}[c&1] }

// CreateOptions say what image to make. The zero value, with a Size, is what
// qemu-img makes by default.
type CreateOptions struct {
	// Size of the guest disk in bytes; rounded up to a multiple of 512.
	Size int64
	// Version is 2 (compat 0.10) or 3 (compat 1.1); 0 is 3.
	Version int
	// ClusterSize in bytes: a power of two from 512 to 2 MiB; 0 is 64 KiB.
	ClusterSize int64
	// RefcountBits is the width of a refcount: 1, 2, 4 … 64; 0 is 16.
	RefcountBits int
	// BackingFile and BackingFormat go into the header as they are; nothing
	// is opened.
	BackingFile, BackingFormat string
	Preallocation              block.Preallocation
	LazyRefcounts              bool
	ExtendedL2                 bool
	// DataFile names an external data file in the header; Data is that file,
	// empty. DataFileRaw keeps it readable as a raw image of its own.
	DataFile    string
	Data        block.File
	DataFileRaw bool
	Compression Compression
	Encryption  Encryption
	LUKS        LUKSOptions // if Encryption is LUKS
	// Passphrase is asked for that of an encrypted image, once. What it returns
	// is cleared after use.
	Passphrase func() ([]byte, error)
	// NoSync skips the syncs, see OpenOptions.
	NoSync bool
}

// Create writes a new image into f, which must be empty. It closes neither f
// nor o.Data. When it fails, f holds nothing of use.
func Create(f block.File, o *CreateOptions) error {
	c := *o
	c.setDefaults()
	if err := c.create(f); err != nil {
		return &block.Error{Op: "create", Format: "qcow2", Offset: -1, Err: err}
	}
	return nil
}

// Validate reports whether Create would take these options, without a file.
func (o *CreateOptions) Validate() error {
	c := *o
	c.setDefaults()
	return c.validate()
}

func (o *CreateOptions) setDefaults() {
	o.Size = (o.Size + 511) &^ 511
	if o.Version == 0 {
		o.Version = 3
	}
	if o.ClusterSize == 0 {
		o.ClusterSize = 64 << 10
	}
	if o.RefcountBits == 0 {
		o.RefcountBits = 16
	}
	if o.DataFileRaw && o.Preallocation == block.PreallocOff {
		// Only what has a place in the data file is seen by who reads it raw.
		o.Preallocation = block.PreallocMetadata
	}
}

func (o *CreateOptions) create(f block.File) error {
	if err := o.validate(); err != nil {
		return err
	}
	if o.DataFile != "" && o.Data == nil {
		return block.Invalidf("the data file %q has to be made and passed along", o.DataFile)
	}
	h := o.header()
	if err := o.writeSkeleton(f, h); err != nil {
		return err
	}
	d := newDisk(f, h, &OpenOptions{Writable: true, NoSync: true})
	if o.Data != nil {
		d.useData(o.Data)
	}
	if err := d.prepareWrites(); err != nil {
		return err
	}
	err := d.encrypt(o)
	if err == nil {
		err = d.grow(o.Size)
	}
	if err == nil {
		err = d.Preallocate(o.Preallocation)
	}
	if err == nil && d.external {
		err = growFile(d.data, o.Size)
	}
	if err == nil {
		err = d.finish()
	}
	if err != nil || o.NoSync {
		return err
	}
	d.noSync = false
	return d.sync()
}

// growFile makes a file at least size bytes long.
func growFile(f block.File, size int64) error {
	now, err := f.Size()
	if err != nil || now >= size {
		return err
	}
	return f.Truncate(size)
}

func (o *CreateOptions) validate() error {
	for _, check := range []func() error{o.validateGeometry, o.validateBacking, o.validateRefcounts, o.validateData} {
		if err := check(); err != nil {
			return err
		}
	}
	if o.Encryption == LUKS {
		if _, err := o.LUKS.create().Layout(); err != nil {
			return err
		}
	}
	_, err := o.header().encode()
	return err
}

var errTooLarge = block.Invalidf("The image size is too large for file format 'qcow2' (try using a larger cluster size)")

// needsV3 is why something can't be in an image of version 2.
const needsV3 = " supported with compatibility level 1.1 and above (use version=v3 or greater)"

func (o *CreateOptions) validateGeometry() error {
	cs := o.ClusterSize
	switch {
	case o.Version != 2 && o.Version != 3:
		return block.Invalidf("Version %d of qcow2 does not exist; it is 2 or 3", o.Version)
	case o.ExtendedL2 && o.Version == 2:
		return block.Invalidf("Extended L2 entries are only" + needsV3)
	case cs < 1<<minClusterBits || cs > 1<<maxClusterBits || cs&(cs-1) != 0:
		return block.Invalidf("Cluster size must be a power of two between %d and %dk", 1<<minClusterBits, 1<<maxClusterBits>>10)
	case o.Encryption > LUKS:
		return block.Invalidf("Encryption method %d does not exist", o.Encryption)
	case o.Size < 0:
		return block.Invalidf("Image size must not be negative")
	case o.ExtendedL2 && cs < 1<<14:
		return block.Invalidf("Extended L2 entries are only supported with cluster sizes of at least %d bytes", 1<<14)
	}
	g := o.header().geometry()
	if o.Size > maxSize || g.l1Entries(o.Size) > maxL1Bytes/8 {
		return errTooLarge
	}
	return nil
}

func (o *CreateOptions) validateBacking() error {
	switch {
	case o.BackingFile != "" && o.Preallocation != block.PreallocOff && !o.ExtendedL2 && !o.DataFileRaw:
		return block.Invalidf("Backing file and preallocation can only be used at the same time if extended_l2 is on")
	case len(o.BackingFile) > maxBackingName:
		return block.Invalidf("Backing file name too long: %d bytes, the limit is %d", len(o.BackingFile), maxBackingName)
	case o.BackingFile == "" && o.BackingFormat != "":
		return block.Invalidf("Backing format cannot be used without backing file")
	}
	return nil
}

func (o *CreateOptions) validateRefcounts() error {
	switch {
	case o.LazyRefcounts && o.Version == 2:
		return block.Invalidf("Lazy refcounts only" + needsV3)
	case o.RefcountBits < 1 || o.RefcountBits > 64 || o.RefcountBits&(o.RefcountBits-1) != 0:
		return block.Invalidf("Refcount width must be a power of two and may not exceed 64 bits")
	case o.RefcountBits != 16 && o.Version == 2:
		return block.Invalidf("Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)")
	}
	return nil
}

func (o *CreateOptions) validateData() error {
	external := o.DataFile != "" || o.Data != nil
	switch {
	case o.DataFileRaw && !external:
		return block.Invalidf("data-file-raw requires data-file")
	case o.DataFileRaw && o.BackingFile != "":
		return block.Invalidf("Backing file and data-file-raw cannot be used at the same time")
	case external && o.Version == 2:
		return block.Invalidf("External data files are only" + needsV3)
	case o.Compression != Zlib && o.Version == 2:
		return block.Invalidf("Non-zlib compression type is only" + needsV3)
	}
	return nil
}

// header returns the header of the skeleton: no L1 table and size 0.
func (o *CreateOptions) header() *header {
	h := &header{
		version:          uint32(o.Version),
		clusterBits:      uint32(bits.TrailingZeros64(uint64(o.ClusterSize))),
		reftableOffset:   uint64(o.ClusterSize),
		reftableClusters: 1,
		refcountOrder:    uint32(bits.TrailingZeros(uint(o.RefcountBits))),
		length:           v2HeaderLength,
		backingName:      o.BackingFile,
		cryptMethod:      uint32(o.Encryption),
	}
	if o.Version >= 3 {
		o.headerV3(h)
	}
	if o.BackingFormat != "" {
		h.extensions = append(h.extensions, extension{extBackingFormat, []byte(o.BackingFormat)})
	}
	if o.Encryption == LUKS {
		h.extensions = append(h.extensions, extension{extCrypto, make([]byte, 16)}) // see createLUKS
	}
	if o.DataFile != "" {
		h.extensions = append(h.extensions, extension{extDataFile, []byte(o.DataFile)})
	}
	if o.Version >= 3 && roomForNames(o.ClusterSize) {
		h.extensions = append(h.extensions, extension{extFeatureNames, featureNameTable()})
	}
	return h
}

// roomForNames reports whether the names of features, which are for people only,
// go into the first cluster: into those that have room for a long name of a backing
// file besides, as QEMU has it.
func roomForNames(clusterSize int64) bool { return clusterSize > 4096 }

func (o *CreateOptions) headerV3(h *header) {
	h.length = newHeaderLength
	h.unknown = make([]byte, newHeaderLength-minV3HeaderLength-1)
	h.compression = uint8(o.Compression)
	set := func(field *uint64, on bool, bit uint64) {
		if on {
			*field |= bit
		}
	}
	set(&h.compat, o.LazyRefcounts, compatLazyRefcounts)
	set(&h.incompat, o.Compression != Zlib, incompatCompression)
	set(&h.incompat, o.ExtendedL2, incompatExtendedL2)
	set(&h.incompat, o.DataFile != "" || o.Data != nil, incompatDataFile)
	set(&h.autoclear, o.DataFileRaw, autoclearRawData)
}

// writeSkeleton writes header, refcount table and the first refcount block, a
// cluster each, counted.
func (o *CreateOptions) writeSkeleton(f block.File, h *header) error {
	first, err := h.encode()
	if err != nil {
		return err
	}
	table := make([]byte, o.ClusterSize)
	copy(table, be64(uint64(2*o.ClusterSize)))
	counts := make([]byte, o.ClusterSize)
	for c := range int64(3) {
		setRef(counts, c, uint(h.refcountOrder), 1)
	}
	_, err = f.WriteAt(bytes.Join([][]byte{first, table, counts}, nil), 0)
	return err
}
