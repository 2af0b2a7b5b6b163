package block

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// Image is an open disk image: a layer with all that lies below it. It is an
// io.ReaderAt and io.WriterAt over the guest disk and may be used by many
// goroutines at once, as os.File may be. Overlapping writes that run at the
// same time take effect in some order for each sector.
type Image struct {
	layer    Layer
	pinner   Pinner    // nil if the layer has none
	backed   Backed    // nil if the layer has none
	events   EventSink // nil if nobody wants to know
	path     string
	format   string
	writable bool

	// keep is held by what writes and by reads that keep what they read, nil
	// where none does: a read must not put old bytes over new ones.
	keep *sync.RWMutex
	unit int64 // what is kept at once, in bytes

	noDiscard bool

	closed atomic.Bool
	broken atomic.Pointer[error] // set once, by a failure that ErrBroken wraps
}

// ImageOptions go with NewImage.
type ImageOptions struct {
	Path     string // for messages
	Format   string // for messages and for Format
	Writable bool
}

// NewImage makes an Image of a layer. The image owns the layer.
func NewImage(l Layer, o ImageOptions) *Image {
	i := &Image{layer: l, path: o.Path, format: o.Format, writable: o.Writable}
	i.pinner, _ = l.(Pinner)
	i.backed, _ = l.(Backed)
	if e, ok := l.(Evented); ok {
		i.events = e.Events()
	}
	return i
}

// As finds an ability of an image: an interface that its layer has. Ask once
// after opening, not for each request.
func As[T any](i *Image) (T, bool) {
	t, ok := i.layer.(T)
	return t, ok
}

// Format returns the name of the image's format.
func (i *Image) Format() string { return i.format }

// Path returns the name that the image was opened by.
func (i *Image) Path() string { return i.path }

// CopyOnRead has the image keep what is read from the images below it, by whole
// clusters, so that it need not be read from there again. Call it before the
// image is used.
func (i *Image) CopyOnRead() {
	if !i.writable {
		return
	}
	i.keep, i.unit = new(sync.RWMutex), 1
	if d, ok := i.layer.(Describer); ok {
		if about, err := d.Describe(); err == nil {
			i.unit = max(1, about.ClusterSize)
		}
	}
}

// IgnoreDiscards has Discard do nothing. Call it before the image is used.
func (i *Image) IgnoreDiscards() { i.noDiscard = true }

// Size returns the size of the guest disk in bytes.
func (i *Image) Size() int64 { return i.layer.Size() }

// Writable reports whether the image was opened for writing.
func (i *Image) Writable() bool { return i.writable }

// Backing returns the image below, nil if there is none.
func (i *Image) Backing() *Image {
	if i.backed == nil {
		return nil
	}
	return i.backed.Backing()
}

// ReadAt reads len(p) bytes of the guest disk at off. At the end of the disk it
// returns io.EOF with what there was.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if i.closed.Load() {
		return 0, i.fail("read", off, ErrClosed)
	}
	if off < 0 {
		return 0, i.fail("read", off, ErrBounds)
	}
	n := max(0, min(int64(len(p)), i.Size()-off))
	read := i.read
	if i.keep != nil {
		read = i.readAndKeep
	}
	if err := read(p[:n], off); err != nil {
		return 0, i.fail("read", off, err)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// read fills p from a range within the disk.
func (i *Image) read(p []byte, off int64) error {
	if i.pinner != nil {
		token := i.pinner.Pin()
		defer i.pinner.Unpin(token)
	}
	for len(p) > 0 {
		e, err := i.layer.Resolve(off, int64(len(p)))
		if err != nil {
			return err
		}
		if err := i.fill(e, p[:e.Length], off); err != nil {
			return err
		}
		p, off = p[e.Length:], off+e.Length
	}
	return nil
}

// readAndKeep is read, and writes to the image what comes from below it. Needs
// an image that is writable.
func (i *Image) readAndKeep(p []byte, off int64) error {
	i.keep.Lock()
	defer i.keep.Unlock()
	for at, end := off, off+int64(len(p)); at < end; {
		e, err := i.layer.Resolve(at, end-at)
		if err != nil {
			return err
		}
		if e.Kind == Below || e.Kind == Zero && !e.Allocated {
			if err := i.note("keep what was read", at, i.keepRange(at, e.End())); err != nil {
				return err
			}
		}
		at = e.End()
	}
	return i.read(p, off)
}

// keepSize is how much is read at once to be kept, in bytes.
const keepSize = 1 << 20

// keepRange writes what [start, end) reads as now, by whole clusters.
func (i *Image) keepRange(start, end int64) error {
	if broken := i.broken.Load(); broken != nil {
		return *broken
	}
	start, end = start/i.unit*i.unit, min((end+i.unit-1)/i.unit*i.unit, i.Size())
	var buf []byte
	for start < end {
		e, err := i.locate(start, end-start)
		if err != nil {
			return err
		}
		i.event(EventCORWrite)
		n := e.Length
		if e.Kind == Zero {
			err = i.layer.WriteZeroes(start, n, 0)
		} else {
			n = min(n, max(keepSize, i.unit))
			if buf == nil {
				buf = make([]byte, min(end-start, max(keepSize, i.unit)))
			}
			err = i.keepData(buf[:n], start)
		}
		if err != nil {
			return err
		}
		start += n
	}
	return nil
}

func (i *Image) keepData(p []byte, off int64) error {
	if err := i.read(p, off); err != nil {
		return err
	}
	if allZero(p) {
		return i.layer.WriteZeroes(off, int64(len(p)), 0)
	}
	return i.layer.WriteAt(p, off)
}

func allZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// startWrite and endWrite stand around what writes, see keep.
func (i *Image) startWrite() {
	if i.keep != nil {
		i.keep.RLock()
	}
}

func (i *Image) endWrite() {
	if i.keep != nil {
		i.keep.RUnlock()
	}
}

func (i *Image) fill(e Extent, p []byte, off int64) error {
	switch e.Kind {
	case Data:
		i.event(EventReadAIO)
		return ReadFull(e.File, p, e.Offset)
	case Special:
		i.event(EventReadCompressed)
		return i.layer.ReadSpecial(e, p, off)
	case Below:
		if b := i.Backing(); b != nil {
			i.event(EventReadBackingAIO)
			return b.ReadZeroFilled(p, off)
		}
	}
	clear(p)
	return nil
}

func (i *Image) event(e Event) {
	if i.events != nil {
		i.events.Event(e)
	}
}

// ReadZeroFilled reads len(p) bytes at off; what lies past the end of the disk
// is zero. It is how an overlay sees its backing image.
func (i *Image) ReadZeroFilled(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), i.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	if err := i.read(p[:n], off); err != nil {
		return i.fail("read", off, err)
	}
	return nil
}

// WriteAt writes p to the guest disk at off. A range that does not lie within
// the disk is refused whole. It is on stable storage after the next Flush.
func (i *Image) WriteAt(p []byte, off int64) (int, error) {
	if err := i.mayWrite("write", off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	i.startWrite()
	defer i.endWrite()
	if err := i.note("write", off, i.layer.WriteAt(p, off)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteZeroes makes [off, off+n) read as zero. With NoFallback it returns
// ErrUnsupported if the format would have to write zeros as data; a part of the
// range may be zero by then.
func (i *Image) WriteZeroes(off, n int64, flags ZeroFlags) error {
	if err := i.mayWrite("write zeroes", off, n); err != nil || n == 0 {
		return err
	}
	if flags&NoFallback != 0 {
		if q, ok := i.layer.(QuickZeroer); !ok || !q.ZeroesQuickly() {
			return i.fail("write zeroes", off, ErrUnsupported)
		}
	}
	i.startWrite()
	defer i.endWrite()
	return i.note("write zeroes", off, i.layer.WriteZeroes(off, n, flags))
}

// Discard tells that the content of [off, off+n) is no longer needed. What the
// format frees reads as zero afterwards.
func (i *Image) Discard(off, n int64) error {
	if err := i.mayWrite("discard", off, n); err != nil || n == 0 || i.noDiscard {
		return err
	}
	i.startWrite()
	defer i.endWrite()
	return i.note("discard", off, i.layer.Discard(off, n))
}

// WriteCompressed is CompressedWriter.WriteCompressed, with the checks that
// all writes pass. ErrUnsupported if the format can't.
func (i *Image) WriteCompressed(p []byte, off int64) error {
	c, ok := i.layer.(CompressedWriter)
	if !ok {
		return i.fail("write compressed", off, ErrUnsupported)
	}
	if err := i.mayWrite("write compressed", off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	i.startWrite()
	defer i.endWrite()
	return i.note("write compressed", off, c.WriteCompressed(p, off))
}

// CopyFrom copies n bytes of src at srcOff to off of the guest disk without
// moving them through this program. It returns how many were copied, which may
// be fewer, and ErrUnsupported if none could be this way.
func (i *Image) CopyFrom(src File, srcOff, off, n int64) (int64, error) {
	c, ok := i.layer.(RangeCopier)
	if !ok {
		return 0, i.fail("copy", off, ErrUnsupported)
	}
	if err := i.mayWrite("copy", off, n); err != nil || n == 0 {
		return 0, err
	}
	i.startWrite()
	defer i.endWrite()
	copied, err := c.CopyFrom(src, srcOff, off, n)
	return copied, i.note("copy", off, err)
}

// Flush returns when all writes that returned before it was called would
// survive a power cut. Flushes that run at the same time share the work.
func (i *Image) Flush() error {
	if !i.writable {
		return nil
	}
	if err := i.mayWrite("flush", 0, 0); err != nil {
		return err
	}
	i.event(EventFlushToOS)
	return i.note("flush", -1, i.layer.Flush())
}

// Invalidate is Invalidator.Invalidate. ErrUnsupported if the format can't.
func (i *Image) Invalidate() error {
	v, ok := i.layer.(Invalidator)
	switch {
	case i.closed.Load():
		return i.fail("invalidate", -1, ErrClosed)
	case !ok:
		return i.fail("invalidate", -1, Unsupportedf("an image of the format %s can't be invalidated", i.format))
	}
	return i.note("invalidate", -1, v.Invalidate())
}

// Close flushes and closes the image and everything it opened. The first call
// closes; later ones return ErrClosed.
func (i *Image) Close() error {
	if i.closed.Swap(true) {
		return i.fail("close", -1, ErrClosed)
	}
	return i.fail("close", -1, i.layer.Close())
}

func (i *Image) mayWrite(op string, off, n int64) error {
	switch broken := i.broken.Load(); {
	case i.closed.Load():
		return i.fail(op, off, ErrClosed)
	case !i.writable:
		return i.fail(op, off, ErrReadOnly)
	case broken != nil:
		return *broken
	case off < 0 || n < 0 || off > i.Size()-n:
		return i.fail(op, off, Errorf(ErrBounds, "%d bytes lie beyond the end of a disk of %d bytes", n, i.Size()))
	}
	return nil
}

// note remembers a failure after which nothing may be written.
func (i *Image) note(op string, off int64, err error) error {
	err = i.fail(op, off, err)
	if errors.Is(err, ErrBroken) {
		i.broken.CompareAndSwap(nil, &err)
	}
	return err
}

// fail wraps err, unless it is nil or already tells where it comes from.
func (i *Image) fail(op string, off int64, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Path: i.path, Format: i.format, Offset: off, Err: err}
}

// Extents yields the extents of [off, off+n), clipped to the disk, through the
// whole backing chain: Kind is never Below, Depth says which image decides. An
// extent that no image decides is Zero and not Allocated; its Depth is that of
// the last image that was long enough to be asked. What is yielded can be out
// of date as soon as somebody writes.
func (i *Image) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var held Extent
		for e, err := range i.pieces(off, n) {
			if err != nil {
				yield(Extent{}, i.fail("map", off, err))
				return
			}
			if held.Length > 0 && held.follows(e) {
				held.Length += e.Length
				held.Stored += e.Stored
				continue
			}
			if held.Length > 0 && !yield(held, nil) {
				return
			}
			held = e
		}
		if held.Length > 0 {
			yield(held, nil)
		}
	}
}

// pieces yields what Extents does, not yet merged.
func (i *Image) pieces(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if off < 0 || n < 0 {
			yield(Extent{}, ErrBounds)
			return
		}
		end := off + min(n, max(0, i.Size()-off))
		for off < end {
			e, err := i.pinned(off, end-off)
			if !yield(e, err) || err != nil {
				return
			}
			off = e.End()
		}
	}
}

// Locate returns the first extent of a range within the disk, through the
// whole backing chain: what Extents yields first, not merged.
func (i *Image) Locate(off, n int64) (Extent, error) {
	if off < 0 || n <= 0 || off > i.Size()-n {
		return Extent{}, i.fail("map", off, ErrBounds)
	}
	e, err := i.pinned(off, n)
	return e, i.fail("map", off, err)
}

// pinned is locate with the tables that it walks held where they are.
func (i *Image) pinned(off, n int64) (Extent, error) {
	if i.pinner != nil {
		token := i.pinner.Pin()
		defer i.pinner.Unpin(token)
	}
	return i.locate(off, n)
}

// locate resolves the start of a range within the disk through the chain.
func (i *Image) locate(off, n int64) (Extent, error) {
	e, err := i.layer.Resolve(off, n)
	if err != nil || e.Kind != Below {
		return e, err
	}
	b := i.Backing()
	if b == nil || off >= b.Size() {
		return Extent{Start: off, Length: e.Length, Kind: Zero, Offset: e.Offset, HasOffset: e.HasOffset}, nil
	}
	e, err = b.locate(off, min(e.Length, b.Size()-off))
	e.Depth++
	return e, err
}
