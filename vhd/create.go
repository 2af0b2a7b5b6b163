package vhd

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"path"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/prealloc"
)

// Creating an image.

// CreateOptions say what image to make. The zero value, with a Size, is a
// dynamic disk of just that size in blocks of 2 MiB.
type CreateOptions struct {
	// Type of the disk; 0 is Dynamic, or Differencing if there is a Parent.
	Type Type
	// Size of the disk in bytes, at most 2040 GiB; rounded up to a multiple
	// of 512.
	Size int64
	// RoundToGeometry makes the disk so much larger that it ends with a
	// cylinder, as QEMU and Virtual PC have it, up to 127 GiB. Azure takes no
	// such disks.
	RoundToGeometry bool
	// WholeMiB rounds Size up to a multiple of 1 MiB, as Azure wants it.
	WholeMiB bool
	// BlockSize in bytes: a power of two from 4 KiB to 256 MiB; 0 is 2 MiB,
	// the only one that Azure and Virtual PC know. Not for fixed disks.
	BlockSize int64
	// Parent is what a differencing disk is to lie above.
	Parent *Parent
	// UUID of the disk; nil makes a random one.
	UUID *UUID
	// Creator is the four letters of the program that the disk is said to be
	// made by. Other programs take the size from the geometry for creators
	// that they don't know. Empty is what QEMU writes: "qem2", and "qemu" with
	// RoundToGeometry.
	Creator string
	// Time that the disk was made at; nil is now.
	Time *time.Time
	// Preallocation of a fixed disk: off, falloc or full. Others have none.
	Preallocation block.Preallocation
	// NoSync skips the syncs, see OpenOptions.
	NoSync bool
}

// Parent names the disk that a differencing disk lies above.
type Parent struct {
	Identity
	// Name is the path of the parent: relative to the child, or absolute.
	Name string
}

// Create writes a new image into f, which must be empty, and does not close it.
// When it fails, f holds nothing of use.
func Create(f block.File, o *CreateOptions) error {
	err := o.create(f)
	if err != nil {
		return &block.Error{Op: "create", Format: formatName, Offset: -1, Err: err}
	}
	return nil
}

// Validate reports whether Create would take these options, without a file.
func (o *CreateOptions) Validate() error {
	_, _, err := o.plan()
	return err
}

// plan checks the options and returns footer and header, which is nil for a
// fixed disk.
func (o *CreateOptions) plan() (*footer, *header, error) {
	c := *o
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, nil, err
	}
	foot, err := c.footer()
	if err != nil || c.Type == Fixed {
		return foot, nil, err
	}
	h := c.header(int64(foot.current))
	return foot, h, h.validate(int64(foot.current))
}

func (o *CreateOptions) setDefaults() {
	switch {
	case o.Type == 0 && o.Parent != nil:
		o.Type = Differencing
	case o.Type == 0:
		o.Type = Dynamic
	}
	if o.BlockSize == 0 {
		o.BlockSize = defaultBlockSize
	}
	if o.Creator == "" {
		o.Creator = map[bool]string{false: "qem2", true: "qemu"}[o.RoundToGeometry]
	}
}

func (o *CreateOptions) validate() error {
	switch {
	case o.Type != Fixed && o.Type != Dynamic && o.Type != Differencing:
		return block.Invalidf("there are no disks of type %d", o.Type)
	case o.Size < 0:
		return block.Invalidf("Image size must not be negative")
	case o.Size > maxSize:
		return block.Invalidf("The image size is too large for file format 'vpc'")
	case o.WholeMiB && o.RoundToGeometry:
		return block.Invalidf("a size can't be rounded both to a geometry and to whole MiB")
	case len(o.Creator) > 4:
		return block.Invalidf("the creator %q has more than 4 letters", o.Creator)
	case o.Type == Differencing && o.Parent == nil:
		return block.Invalidf("a differencing disk needs a parent")
	case o.Type != Differencing && o.Parent != nil:
		return block.Invalidf("a %s disk has no parent", o.Type)
	case o.Preallocation == block.PreallocMetadata:
		return block.Unsupportedf("Unsupported preallocation mode: %s", o.Preallocation)
	case o.BlockSize < minBlockSize || o.BlockSize > maxBlockSize || o.BlockSize&(o.BlockSize-1) != 0:
		return block.Invalidf("Block size must be a power of two between %dk and %dM", minBlockSize>>10, maxBlockSize>>20)
	}
	if o.Parent != nil {
		return o.Parent.validate()
	}
	return nil
}

// validate checks the name.
func (p *Parent) validate() error {
	name := windowsName(p.Name)
	base := encodeName(path.Base(slashes(p.Name)), binary.BigEndian)
	switch {
	case p.Name == "":
		return block.Invalidf("the parent has no name")
	case len(name) > maxNameBytes || len(base) > parentNameBytes:
		return block.Invalidf("the name of the parent is too long: %d bytes in UTF-16, the limit is %d and %d for the last part of it",
			len(name), maxNameBytes, parentNameBytes)
	}
	return nil
}

// footer returns the new footer.
func (o *CreateOptions) footer() (*footer, error) {
	f := &footer{dataOffset: footerSize, kind: o.Type, creator: (o.Creator + "    ")[:4]}
	f.setNew()
	if o.Type == Fixed {
		f.dataOffset = nowhere
	}
	size := roundUp(o.Size, sectorSize)
	if o.WholeMiB {
		size = roundUp(o.Size, 1<<20)
	}
	f.chs = GeometryFor(size / sectorSize)
	switch {
	case o.RoundToGeometry:
		f.chs, size = roundToGeometry(size)
	case o.Creator == "qem2":
		f.chs = largestGeometry // so does QEMU
	}
	f.original, f.current = uint64(size), uint64(size)
	if read, err := f.size(); err != nil {
		return nil, err
	} else if read != size {
		return nil, block.Invalidf("a disk of %d bytes by creator %q would be taken for one of %d bytes", size, o.Creator, read)
	}
	f.timestamp = stampOf(time.Now())
	if o.Time != nil {
		f.timestamp = stampOf(*o.Time)
	}
	if o.UUID != nil {
		f.uuid = *o.UUID
		return f, nil
	}
	f.uuid = newUUID()
	return f, nil
}

// newUUID returns a random UUID, version 4 of RFC 9562.
func newUUID() UUID {
	var u UUID
	rand.Read(u[:]) // never fails
	return u.version(4)
}

// UUIDFrom returns the UUID that a text always makes, version 8 of RFC 9562:
// the beginning of its SHA-256.
func UUIDFrom(text string) UUID {
	sum := sha256.Sum256([]byte(text))
	return UUID(sum[:16]).version(8)
}

// version marks a UUID as one of that version.
func (u UUID) version(n byte) UUID {
	u[6], u[8] = u[6]&0x0f|n<<4, u[8]&0x3f|0x80
	return u
}

// header returns the new dynamic header; the parent's name comes after the
// table.
func (o *CreateOptions) header(size int64) *header {
	h := &header{
		tableOffset: footerSize + headerSize, blockSize: uint32(o.BlockSize),
		entries: uint32(min(blocks(size, o.BlockSize), math.MaxUint32)),
	}
	h.setNew()
	return h
}

// tableBytes returns how much the BAT takes up in the file.
func tableBytes(h *header) int64 { return roundUp(int64(h.entries)*4, sectorSize) }

func (o *CreateOptions) create(f block.File) error {
	foot, h, err := o.plan()
	if err != nil {
		return err
	}
	if h == nil {
		err = o.writeFixed(f, foot)
	} else {
		err = o.writeDynamic(f, foot, h)
	}
	if err != nil || o.NoSync {
		return err
	}
	return f.Sync()
}

// writeFixed writes the footer of a fixed disk. What is before it is a hole,
// unless it is to be allocated, but for the first block: programs that find out
// the alignment for direct I/O by reading it need one that is there.
func (o *CreateOptions) writeFixed(f block.File, foot *footer) error {
	size := int64(foot.current)
	if err := prealloc.Take(nil, f, 0, size, o.Preallocation); err != nil {
		return err
	}
	if _, err := f.WriteAt(foot.encode(), size); err != nil || size == 0 {
		return err
	}
	_, err := f.WriteAt(make([]byte, min(size, 4096)), 0)
	return err
}

// writeDynamic writes everything in front of the first block, and the footer.
func (o *CreateOptions) writeDynamic(f block.File, foot *footer, h *header) error {
	var names []byte
	if o.Parent != nil {
		names = h.setParent(o.Parent, int64(h.tableOffset)+tableBytes(h))
	}
	table := bytes.Repeat([]byte{0xff}, int(tableBytes(h)))
	_, err := f.WriteAt(bytes.Join([][]byte{foot.encode(), h.encode(), table, names, foot.encode()}, nil), 0)
	return err
}
