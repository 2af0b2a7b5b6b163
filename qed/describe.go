package qed

import "github.com/diskimg/diskimg/block"

// What an image says of itself.

// Inspect describes the image in f. It reads the header and the name of the
// backing file, nothing else, and opens no other file. A file that ends before
// its L1 table does is refused.
func Inspect(f block.File) (block.Description, error) {
	h, err := inspect(f)
	if err != nil {
		return block.Description{}, block.OpenError("", "qed", err)
	}
	return h.describe(), nil
}

func inspect(f block.File) (*header, error) {
	h, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	g := h.geometry()
	return h, h.tableInFile(hostOff(g.alignDown(size)))
}

// Describe implements block.Describer.
func (d *disk) Describe() (block.Description, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.hdr.describe(), nil
}

func (h *header) describe() block.Description {
	return block.Description{
		Format:        "qed",
		VirtualSize:   int64(h.imageSize),
		ClusterSize:   int64(h.clusterSize),
		Dirty:         h.features&featureNeedCheck != 0,
		BackingName:   h.backingName,
		BackingFormat: h.backingFormat(),
	}
}
