package blocktest

import (
	"fmt"
	"math/rand/v2"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
)

// verifyExtents compares what the image says of where its content lives with
// the content.
func (d *disk) verifyExtents() {
	d.Helper()
	if err := CheckExtents(d.img, d.want); err != nil {
		d.Fatal(err)
	}
}

// CheckExtents demands that the extents of an image, the content of which is
// want, cover it once and in order, that no range in Zero holds anything else,
// and that Data is found in the file and at the offset that the extent names.
// Nobody may write to the image meanwhile.
func CheckExtents(img *block.Image, want []byte) error {
	at := int64(0)
	for e, err := range img.Extents(0, img.Size()) {
		if err != nil {
			return fmt.Errorf("extents: %w", err)
		}
		if e.Start != at || e.Length <= 0 || e.End() > int64(len(want)) {
			return fmt.Errorf("extent [%#x, %#x) after one that ended at %#x, on a disk of %#x", e.Start, e.End(), at, len(want))
		}
		if err := checkExtent(e, want[e.Start:e.End()]); err != nil {
			return fmt.Errorf("extent %s [%#x, %#x) at depth %d: %w", e.Kind, e.Start, e.End(), e.Depth, err)
		}
		at = e.End()
	}
	if at != img.Size() || at != int64(len(want)) {
		return fmt.Errorf("extents end at %#x, the disk at %#x, want %#x", at, img.Size(), len(want))
	}
	return nil
}

func checkExtent(e block.Extent, want []byte) error {
	got := make([]byte, len(want))
	switch e.Kind {
	case block.Data:
		if e.File == nil || e.Offset < 0 || !e.HasOffset {
			return fmt.Errorf("data without a place: file %v, offset %d, has offset %t", e.File, e.Offset, e.HasOffset)
		}
		if err := block.ReadFull(e.File, got, e.Offset); err != nil {
			return err
		}
	case block.Special:
		return nil // only its layer can tell; reading compares it
	case block.Below:
		return fmt.Errorf("an image never answers that it is below")
	}
	if e.Kind == block.Data && !e.Allocated {
		return fmt.Errorf("data that no image has allocated")
	}
	if diff := stamp.Diff(got, want, e.Start); diff != "" {
		return fmt.Errorf("%s", diff)
	}
	return nil
}

func testExtents(s *suite) {
	c := s.cluster
	d := s.disk(12*c + 512)
	d.verifyExtents()
	d.write(c, 3*c)
	d.write(6*c+100, 100)
	d.zero(2*c, c, block.MayUnmap)
	d.zero(8*c, 2*c, 0)
	d.tryCompress(10*c, 2*c)
	d.write(12*c+100, 1)
	d.verifyExtents()
	d.discard(3*c, c)
	d.verifyExtents()
	d.partialExtents()
	d.reopen()
	d.partialExtents()
	d.close()
}

// partialExtents asks for parts of the disk: the same answers, clipped.
func (d *disk) partialExtents() {
	d.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		off := random.Int64N(d.size())
		n := 1 + random.Int64N(d.size()) // may go past the end
		at := off
		for e, err := range d.img.Extents(off, n) {
			if err != nil {
				d.Fatalf("extents of %d bytes at %#x: %v", n, off, err)
			}
			if e.Start != at || e.Length <= 0 {
				d.Fatalf("extents of %d bytes at %#x: [%#x, %#x) after one that ended at %#x", n, off, e.Start, e.End(), at)
			}
			if err := checkExtent(e, d.want[e.Start:e.End()]); err != nil {
				d.Fatalf("extents of %d bytes at %#x: %s [%#x, %#x): %v", n, off, e.Kind, e.Start, e.End(), err)
			}
			at = e.End()
		}
		if want := min(off+n, d.size()); at != want {
			d.Fatalf("extents of %d bytes at %#x end at %#x, want %#x", n, off, at, want)
		}
	}
}
