// Package raw is the format that has none: the file is the disk, or a window
// of it is. What is past the end of the file reads as zero, holes stay holes,
// and a disk whose format was only guessed can be kept from turning into an
// image of another format.
package raw

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// sectorSize is what the size of every disk is a multiple of.
const sectorSize = 512

// OpenOptions say how a file is to be used as a disk. The zero value is the
// whole file, for reading.
type OpenOptions struct {
	Path     string // for messages
	Writable bool
	// Offset is where the disk begins in the file, in bytes.
	Offset int64
	// Size is that of the disk, in bytes, a multiple of 512; 0: to the end of
	// the file, rounded up to a sector.
	Size int64
	// LooksLike, if not nil, names the format that a disk of size bytes with
	// this beginning (4 KiB, or all of a smaller one) and this last sector would
	// be taken for, "" for none. What would make it a name is refused with
	// block.ErrRefused. It belongs to an image whose format was probed: else a
	// guest could write itself the header of an image that names any file of
	// the host, and have that opened the next time. Called by one goroutine at
	// a time.
	LooksLike func(head, end []byte, size int64) string
	// NoSync makes Flush and Close sync nothing: fast, and after a power cut
	// the image is lost. For images that are made in one go and can be made
	// again.
	NoSync bool
}

// Open makes an image of a file. The image owns f from then on; after an error
// the caller still does. A nil o is the zero value.
func Open(f block.File, o *OpenOptions) (*block.Image, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	size, err := window(f, o.Offset, o.Size)
	if err != nil {
		return nil, &block.Error{Op: "open", Path: o.Path, Format: "raw", Offset: -1, Err: err}
	}
	d := &disk{f: f, offset: o.Offset, window: o.Size, looksLike: o.LooksLike, noSync: o.NoSync}
	d.events, _ = f.(block.EventSink)
	d.size.Store(size)
	return d.image(o.Path, o.Writable), nil
}

// window returns the size of the disk that begins at offset of f.
func window(f block.File, offset, size int64) (int64, error) {
	actual, err := f.Size()
	if err != nil {
		return 0, err
	}
	whole := roundUp(actual)
	switch {
	case offset < 0 || size < 0:
		return 0, block.Invalidf("offset %d and size %d must not be negative", offset, size)
	case size%sectorSize != 0:
		return 0, block.Invalidf("Specified size is not multiple of %d", sectorSize)
	case offset > whole:
		return 0, block.Invalidf("Offset (%d) cannot be greater than size of the containing file (%d)", offset, whole)
	case size > whole-offset:
		return 0, block.Invalidf("The sum of offset (%d) and size (%d) has to be smaller or equal to the  actual size of the containing file (%d)",
			offset, size, whole)
	case size == 0:
		return roundUp(whole - offset), nil
	}
	return size, nil
}

func roundUp(n int64) int64 { return (n + sectorSize - 1) &^ (sectorSize - 1) }

// disk is the layer of a raw image.
type disk struct {
	f      block.File
	offset int64
	size   atomic.Int64
	window int64 // the size that was asked for, 0: to the end of the file
	noSync bool
	events block.EventSink // nil if nobody wants to know

	looksLike func(head, end []byte, size int64) string // nil: the format is known to be raw
	edges     sync.Mutex                                // held over writes to head and end, if looksLike is set
	unsynced  atomic.Bool                               // something was written after the last flush began
	lost      atomic.Pointer[error]                     // set once, by a sync that failed
}

var (
	_ block.Layer       = (*disk)(nil)
	_ block.Describer   = (*disk)(nil)
	_ block.RangeCopier = (*disk)(nil)
	_ block.Resizer     = (*disk)(nil)
	_ block.Invalidator = (*disk)(nil)
)

func (d *disk) image(path string, writable bool) *block.Image {
	return block.NewImage(d, block.ImageOptions{Path: path, Format: "raw", Writable: writable})
}

func (d *disk) Size() int64 { return d.size.Load() }

// Resolve answers without asking the file: for a read, holes are zeros that the
// file gives by itself. Who wants to skip them asks the extent's File.
func (d *disk) Resolve(off, n int64) (block.Extent, error) {
	return block.Extent{
		Start: off, Length: n, Kind: block.Data, Allocated: true,
		File: d.f, Offset: d.offset + off, HasOffset: true, MayBeZero: true, Plain: true,
	}, nil
}

// Invalidate implements block.Invalidator. Nothing is kept in memory but the size.
func (d *disk) Invalidate() error {
	if err := block.Invalidate(d.f); err != nil {
		return err
	}
	size, err := window(d.f, d.offset, d.window)
	if err == nil {
		d.size.Store(size)
	}
	return err
}

// Events implements block.Evented.
func (d *disk) Events() block.EventSink { return d.events }

// ReadSpecial is never called: no extent of a raw image is special.
func (d *disk) ReadSpecial(block.Extent, []byte, int64) error { return block.ErrUnsupported }

func (d *disk) WriteAt(p []byte, off int64) error {
	return d.guarded(change{off, int64(len(p)), p}, func() error {
		if d.events != nil {
			d.events.Event(block.EventWriteAIO)
		}
		_, err := d.f.WriteAt(p, d.offset+off)
		return err
	})
}

func (d *disk) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	return d.guarded(change{off, n, nil}, func() error {
		if flags&block.MayUnmap != 0 {
			if err := block.PunchHole(d.f, d.offset+off, n); !errors.Is(err, block.ErrUnsupported) {
				return err
			}
		}
		return block.WriteZeroes(d.f, d.offset+off, n)
	})
}

// ZeroesQuickly implements block.QuickZeroer.
func (d *disk) ZeroesQuickly() bool {
	_, ok := d.f.(block.ZeroWriter)
	return ok
}

func (d *disk) Discard(off, n int64) error {
	return d.guarded(change{off, n, nil}, func() error {
		if err := block.PunchHole(d.f, d.offset+off, n); !errors.Is(err, block.ErrUnsupported) {
			return err
		}
		return nil
	})
}

// CopyFrom implements block.RangeCopier. It leaves alone what it would have to
// look at.
func (d *disk) CopyFrom(src block.File, srcOff, off, n int64) (int64, error) {
	c, ok := d.f.(block.RangeCopier)
	if !ok || d.touchesEdge(change{off: off, n: n}) {
		return 0, block.ErrUnsupported
	}
	d.unsynced.Store(true)
	return c.CopyFrom(src, srcOff, d.offset+off, n)
}

func (d *disk) Flush() error {
	if d.noSync {
		return nil
	}
	d.unsynced.Store(false)
	if err := d.f.Sync(); err != nil {
		err = block.Errorf(block.ErrBroken, "what was written may be lost: %w", err)
		d.lost.CompareAndSwap(nil, &err)
	}
	return d.lostError()
}

// lostError is the failure of the first sync that failed. No later one can
// tell that what was written before it is safe.
func (d *disk) lostError() error {
	if err := d.lost.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *disk) Close() error {
	err := d.lostError()
	if err == nil && d.unsynced.Load() {
		err = d.Flush()
	}
	if cerr := d.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Describe implements block.Describer.
func (d *disk) Describe() (block.Description, error) {
	return block.Description{Format: "raw", VirtualSize: d.Size()}, nil
}
