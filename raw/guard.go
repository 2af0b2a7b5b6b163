package raw

import "github.com/diskimg/diskimg/block"

// The guard of a disk whose format was probed: what is written to its beginning
// or its end passes only if it would still be taken for raw. All that changes
// those goes through guarded, one at a time, so that no two writes can make
// together what neither makes alone.

// headSize is at least what a probe of formats looks at.
const headSize = 4 << 10

// change is what a write does: p comes to [off, off+n), or zeros if it is nil.
type change struct {
	off, n int64
	p      []byte
}

// apply does to b, a copy of what is at an offset of the disk, what the write
// does to that.
func (c change) apply(b []byte, at int64) {
	from, to := max(c.off, at), min(c.off+c.n, at+int64(len(b)))
	switch {
	case from >= to:
	case c.p == nil:
		clear(b[from-at : to-at])
	default:
		copy(b[from-at:to-at], c.p[from-c.off:])
	}
}

// touchesEdge reports whether c may make something else of a disk that is to
// stay raw.
func (d *disk) touchesEdge(c change) bool {
	return d.looksLike != nil && (c.off < headSize || c.off+c.n > d.Size()-sectorSize)
}

func (d *disk) guarded(c change, write func() error) error {
	d.unsynced.Store(true)
	if !d.touchesEdge(c) {
		return write()
	}
	d.edges.Lock()
	defer d.edges.Unlock()
	if err := d.staysRaw(c, d.Size()); err != nil {
		return err
	}
	return write()
}

// staysRaw makes sure that the disk would be taken for raw after a change, if it
// had a size. Needs edges.
func (d *disk) staysRaw(c change, size int64) error {
	head, err := d.after(c, 0, min(headSize, size))
	if err != nil {
		return err
	}
	at := max(0, size-sectorSize)
	end, err := d.after(c, at, size-at)
	if err != nil {
		return err
	}
	if format := d.looksLike(head, end, size); format != "" {
		return block.Errorf(block.ErrRefused,
			"the format of the image was guessed to be raw, and with this change it would be taken for %s; name the format to allow it", format)
	}
	return nil
}

// after returns n bytes of the disk as they will be after a change.
func (d *disk) after(c change, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	if err := block.ReadFull(d.f, b, d.offset+at); err != nil {
		return nil, err
	}
	c.apply(b, at)
	return b, nil
}
