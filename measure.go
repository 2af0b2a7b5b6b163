package diskimg

// This file tells how large images will be.

import (
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
)

// Content is what an image is to be given after it has been made.
type Content struct {
	// Data returns how many bytes of clusters of a size the guest data takes
	// up, as job.Measure counts them; nil: there is none.
	Data func(clusterSize int64) (int64, error)
	// Bitmaps are to come along, if HasBitmaps.
	Bitmaps    []block.Bitmap
	HasBitmaps bool
}

// Measure returns how large the file of an image with these settings will be,
// once it has been given its content; nil is none.
func (s *Settings) Measure(c *Content) (block.Measurement, error) {
	if s.format.Measure == nil {
		return block.Measurement{}, block.Unsupportedf("Block driver '%s' does not support size measurement", s.format.Name)
	}
	if c == nil {
		c = &Content{}
	}
	m, err := s.format.Measure(s, c)
	if !c.HasBitmaps {
		m.Bitmaps = -1
	}
	return m, err
}

func measureRaw(s *Settings, _ *Content) (block.Measurement, error) {
	n := (s.Number("size") + 511) &^ 511
	return block.Measurement{Required: n, FullyAllocated: n, Bitmaps: -1}, nil
}

func measureQcow2(s *Settings, c *Content) (block.Measurement, error) {
	o, err := qcow2Options(s, FormatOptions{})
	if err != nil {
		return block.Measurement{}, err
	}
	m, err := qcow2.Measure(o, 0, c.Bitmaps)
	switch {
	case err != nil || c.Data == nil:
		return m, err
	case s.Has("backing_file"):
		m.Required = m.FullyAllocated // what the image below will save can't be told
		return m, nil
	}
	n, err := c.Data(o.ClusterSize)
	if err != nil {
		return block.Measurement{}, err
	}
	return qcow2.Measure(o, n, c.Bitmaps)
}
