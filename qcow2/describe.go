package qcow2

import "github.com/diskimg/diskimg/block"

// What an image says of itself.

// maxInspect bounds the part of a snapshot table that is read to describe an
// image, in bytes: enough for thousands.
const maxInspect = 512 << 10

// maxInspectBitmaps is the same for the bitmap directory.
const maxInspectBitmaps = 128 << 10

// Inspect describes the image in f. It reads its header and snapshot table, at
// most 1 MiB, and nothing else, and opens no other file. The image may be one
// that Open refuses: encrypted, marked corrupt, or with tables that are broken.
func Inspect(f block.File) (block.Description, error) {
	h, err := readHeader(f)
	if err != nil {
		return block.Description{}, block.OpenError("", "qcow2", err)
	}
	if err := h.validate(); err != nil {
		return block.Description{}, block.OpenError("", "qcow2", err)
	}
	d := newDisk(f, h, &OpenOptions{})
	snapshots, err := d.listSnapshots(maxInspect)
	if err != nil {
		return block.Description{}, block.OpenError("", "qcow2", err)
	}
	return d.describe(snapshots, d.inspectBitmaps(maxInspectBitmaps))
}

// Describe implements block.Describer.
func (d *disk) Describe() (block.Description, error) {
	snapshots, err := d.Snapshots()
	if err != nil {
		return block.Description{}, err
	}
	bitmaps, err := d.Bitmaps()
	if err != nil {
		bitmaps = nil // a check says what is wrong with them
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.describe(snapshots, bitmaps)
}

// inspectBitmaps describes bitmaps, none if they can't be understood: a check
// says why.
func (d *disk) inspectBitmaps(limit int64) []block.Bitmap {
	list, err := d.readBitmaps(limit)
	if err != nil {
		return nil
	}
	return describeBitmaps(list)
}

func (d *disk) describe(snapshots []block.Snapshot, bitmaps []block.Bitmap) (block.Description, error) {
	h := d.hdr
	encrypt, err := d.describeEncryption()
	if err != nil {
		return block.Description{}, block.OpenError(d.path, "qcow2", err)
	}
	return block.Description{
		Format:        "qcow2",
		VirtualSize:   d.Size(),
		ClusterSize:   d.geo.clusterSize,
		Encrypted:     h.cryptMethod != cryptNone,
		Dirty:         h.incompat&incompatDirty != 0,
		BackingName:   h.backingName,
		BackingFormat: string(h.find(extBackingFormat)),
		DataFile:      string(h.find(extDataFile)),
		Snapshots:     snapshots,
		Specific:      h.specific(bitmaps, encrypt),
	}, nil
}

// describeEncryption lists what is known without a passphrase; nil if the image
// is not encrypted.
func (d *disk) describeEncryption() ([]block.Field, error) {
	switch d.hdr.cryptMethod {
	case cryptNone:
		return nil, nil
	case cryptAES:
		return []block.Field{{Name: "format", Value: "aes"}}, nil
	}
	h, _, err := d.luksHeader()
	if err != nil {
		return nil, err
	}
	return h.Describe(block.Field{Name: "format", Value: "luks"}), nil
}

// specific lists the fields that only qcow2 has, in the order of qemu-img info.
func (h *header) specific(bitmaps []block.Bitmap, encrypt []block.Field) []block.Field {
	compression := block.Field{Name: "compression-type", Value: [...]string{"zlib", "zstd"}[h.compression&1]}
	bits := block.Field{Name: "refcount-bits", Value: int64(1) << h.refcountOrder}
	if h.version == 2 {
		return withEncryption([]block.Field{{Name: "compat", Value: "0.10"}, compression, bits}, encrypt)
	}
	list := []block.Field{
		{Name: "compat", Value: "1.1"},
		compression,
		{Name: "lazy-refcounts", Value: h.compat&compatLazyRefcounts != 0},
	}
	if len(bitmaps) > 0 {
		list = append(list, block.Field{Name: "bitmaps", Value: bitmapFields(bitmaps)})
	}
	list = withEncryption(append(list, bits), encrypt)
	if h.incompat&incompatDataFile != 0 {
		if name := h.find(extDataFile); name != nil {
			list = append(list, block.Field{Name: "data-file", Value: string(name)})
		}
		list = append(list, block.Field{Name: "data-file-raw", Value: h.autoclear&autoclearRawData != 0})
	}
	return append(list,
		block.Field{Name: "corrupt", Value: h.incompat&incompatCorrupt != 0},
		block.Field{Name: "extended-l2", Value: h.incompat&incompatExtendedL2 != 0})
}

func bitmapFields(bitmaps []block.Bitmap) []any {
	list := make([]any, len(bitmaps))
	for i, b := range bitmaps {
		flags := []any{}
		if b.InUse {
			flags = append(flags, "in-use")
		}
		if b.Enabled {
			flags = append(flags, "auto")
		}
		list[i] = []block.Field{{Name: "flags", Value: flags}, {Name: "name", Value: b.Name}, {Name: "granularity", Value: b.Granularity}}
	}
	return list
}

func withEncryption(list, encrypt []block.Field) []block.Field {
	if encrypt == nil {
		return list
	}
	return append(list, block.Field{Name: "encrypt", Value: encrypt})
}
