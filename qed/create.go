package qed

import (
	"github.com/diskimg/diskimg/block"
)

// Creating an image: a header and an empty L1 table.

// Defaults of CreateOptions.
const (
	DefaultClusterSize = 64 << 10
	DefaultTableSize   = 4
)

// CreateOptions say what image to make. The zero value, with a Size, is what
// qemu-img makes by default.
type CreateOptions struct {
	// Size of the guest disk in bytes; rounded up to a multiple of 512.
	Size int64
	// ClusterSize in bytes: a power of two from 4 KiB to 64 MiB; 0 is 64 KiB.
	ClusterSize int64
	// TableSize is the size of L1 and L2 tables in clusters: 1, 2, 4, 8 or 16;
	// 0 is 4. QEMU 7.2 makes images with 1, but does not open them.
	TableSize int64
	// BackingFile goes into the header as it is; nothing is opened. Of
	// BackingFormat the image can say only whether it is "raw".
	BackingFile, BackingFormat string
	// NoSync skips the sync, see OpenOptions.
	NoSync bool
}

// Create writes a new image into f, which must be empty, and so not a device. It
// does not close f.
// When it fails, f holds nothing of use.
func Create(f block.File, o *CreateOptions) error {
	c := *o
	c.setDefaults()
	if err := c.create(f); err != nil {
		return &block.Error{Op: "create", Format: "qed", Offset: -1, Err: err}
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
	if o.Size <= maxSize {
		o.Size = (o.Size + 511) &^ 511
	}
	if o.ClusterSize == 0 {
		o.ClusterSize = DefaultClusterSize
	}
	if o.TableSize == 0 {
		o.TableSize = DefaultTableSize
	}
}

func (o *CreateOptions) create(f block.File) error {
	if err := o.validate(); err != nil {
		return err
	}
	switch size, err := f.Size(); {
	case err != nil:
		return err
	case size != 0:
		return block.Invalidf("a QED image needs an empty file that can grow, not one that has %d bytes", size)
	}
	h := o.header()
	if _, err := f.WriteAt(append(h.encode(), h.backingName...), 0); err != nil {
		return err
	}
	if err := block.WriteZeroes(f, int64(h.l1Offset), h.geometry().tableBytes); err != nil {
		return err
	}
	if o.NoSync {
		return nil
	}
	return f.Sync()
}

// validate words what is wrong as qemu-img does.
func (o *CreateOptions) validate() error {
	switch most := maxImageSize(o.ClusterSize, o.TableSize); {
	case !validClusterSize(o.ClusterSize):
		return block.Invalidf("QED cluster size must be within range [%d, %d] and power of 2", 1<<minClusterBits, 1<<maxClusterBits)
	case !validTableSize(o.TableSize):
		return block.Invalidf("QED table size must be within range [1, %d] and power of 2", maxTableSize)
	case o.Size < 0 || uint64(o.Size) > most:
		return block.Invalidf("QED image size must be a non-zero multiple of cluster size and less than %d bytes", most)
	case int64(len(o.BackingFile)) > min(maxBackingName, o.ClusterSize-headerSize):
		return block.Invalidf("Backing file name of %d bytes does not fit into the header", len(o.BackingFile))
	}
	return o.header().validate()
}

func (o *CreateOptions) header() *header {
	h := &header{
		clusterSize: uint32(o.ClusterSize), tableSize: uint32(o.TableSize), headerSize: 1,
		l1Offset: uint64(o.ClusterSize), imageSize: uint64(o.Size),
	}
	if o.BackingFile != "" {
		h.setBacking(headerSize, o.BackingFile, o.BackingFormat)
	}
	return h
}

// setBacking names the backing file, at an offset of the file.
func (h *header) setBacking(off int64, name, format string) {
	h.features &^= featureBacking | featureNoProbe
	h.backingName, h.backingLength = name, uint32(len(name))
	if name == "" {
		return
	}
	h.features |= featureBacking
	h.backingOffset = uint32(off)
	if format == "raw" {
		h.features |= featureNoProbe
	}
}
