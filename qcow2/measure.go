package qcow2

import "github.com/diskimg/diskimg/block"

// Measure returns how large the file of an image will be that is made with
// these options and then given data bytes of guest data, in whole clusters, and
// those bitmaps. It refuses what Create refuses. Internal snapshots and VM state
// come on top, and of clusters that are so small that the refcount table has to
// grow a few; guest data in an external file is counted as if it were in this one.
func Measure(o *CreateOptions, data int64, bitmaps []block.Bitmap) (block.Measurement, error) {
	c := *o
	c.setDefaults()
	switch err := c.validate(); {
	case err == errTooLarge:
		return block.Measurement{}, block.Invalidf("The image size is too large (try using a larger cluster size)")
	case err != nil:
		return block.Measurement{}, err
	}
	g := c.header().geometry()
	disk := g.alignUp(c.Size)
	tables := g.tableClusters(c.Size)<<g.clusterBits + g.alignUp(c.luksSize())
	m := block.Measurement{Required: tables + data, FullyAllocated: tables + disk, Bitmaps: g.bitmapBytes(c.Size, bitmaps)}
	if c.Preallocation >= block.PreallocFalloc {
		m.Required = m.FullyAllocated
	}
	return m, nil
}

// luksSize returns how many bytes the LUKS header takes up, 0 if there is none.
func (o *CreateOptions) luksSize() int64 {
	if o.Encryption != LUKS {
		return 0
	}
	h, err := o.LUKS.create().Layout()
	if err != nil {
		return 0 // validate says why
	}
	return h.Payload
}

// tableClusters returns how many clusters the header takes up, and the tables
// for a disk of that size of which all has been written.
func (g *geometry) tableClusters(size int64) int64 {
	l1 := int64(g.l1Entries(size))
	n := 1 + g.clusters(8*l1) + l1
	return n + g.refcountClusters(n+g.clusters(size))
}

// refcountClusters returns how many clusters of refcount table and blocks it
// takes to count n clusters and themselves.
func (g *geometry) refcountClusters(n int64) int64 {
	perBlock := g.clusterSize * 8 >> g.refOrder
	own := int64(0)
	for {
		blocks := (n + own + perBlock - 1) / perBlock
		now := blocks + g.clusters(8*blocks)
		if now == own {
			return own
		}
		own = now
	}
}

// bitmapBytes returns what bitmaps of a disk take up when nothing in them is
// left out: each its table and its clusters, and all of them the directory.
func (g *geometry) bitmapBytes(size int64, list []block.Bitmap) int64 {
	if !g.v3 {
		return -1
	}
	clusters, directory := int64(0), int64(0)
	for _, b := range list {
		bits := (size + b.Granularity - 1) / b.Granularity
		data := g.clusters((bits + 7) / 8)
		clusters += data + g.clusters(8*data)
		directory += (bitmapFixed + int64(len(b.Name)) + 7) &^ 7
	}
	return (clusters + g.clusters(directory)) << g.clusterBits
}
