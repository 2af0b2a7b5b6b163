package sectors

import (
	"io"
	"sync"

	"github.com/diskimg/diskimg/block"
)

// Reading and writing encrypted files. A position is the place that gives a
// sector its number: position/512. It lies as far into its sector as the offset
// in the file does.

// chunk is how much is encrypted at once before it is written.
const chunk = 256 << 10

var (
	chunks = sync.Pool{New: func() any { return new([chunk]byte) }}
	edges  = sync.Pool{New: func() any { return new([Size]byte) }}
)

// ReadAt fills p with what is at off of f, encrypted as at position pos. What
// lies past the end of the file counts as zeros that were decrypted, which
// nothing sensible comes of. Beside WriteAt, each sector is as before or after it.
func (c *Cipher) ReadAt(f io.ReaderAt, p []byte, off, pos int64) error {
	for len(p) > 0 {
		n := sectorsIn(p, pos)
		if n > 0 {
			if err := c.readFull(f, p[:n], off); err != nil {
				return err
			}
			c.Decrypt(p[:n], p[:n], uint64(pos/Size))
		} else {
			b := edges.Get().(*[Size]byte)
			err := c.readSector(f, b, off, pos)
			n = copy(p, b[pos%Size:])
			edges.Put(b)
			if err != nil {
				return err
			}
		}
		p, off, pos = p[n:], off+int64(n), pos+int64(n)
	}
	return nil
}

// sectorsIn returns how many bytes of p are whole sectors if it begins with one.
func sectorsIn(p []byte, pos int64) int {
	if pos%Size != 0 {
		return 0
	}
	return len(p) &^ (Size - 1)
}

// readSector reads the sector that pos lies in.
func (c *Cipher) readSector(f io.ReaderAt, b *[Size]byte, off, pos int64) error {
	if err := c.readFull(f, b[:], off-pos%Size); err != nil {
		return err
	}
	c.Decrypt(b[:], b[:], uint64(pos/Size))
	return nil
}

// readFull reads whole sectors, none of them in the middle of being written: of
// half a sector come bytes that nobody wrote.
func (c *Cipher) readFull(f io.ReaderAt, p []byte, off int64) error {
	r := c.busy.Acquire(off, int64(len(p)))
	defer c.busy.Release(r)
	return block.ReadFull(f, p, off)
}

// writeAll writes whole sectors, see readFull.
func (c *Cipher) writeAll(f io.WriterAt, p []byte, off int64) error {
	r := c.busy.Acquire(off, int64(len(p)))
	defer c.busy.Release(r)
	_, err := f.WriteAt(p, off)
	return err
}

// WriteAt writes p to off of f, encrypted as at position pos. Where p begins or
// ends within a sector the rest of that is read first: nobody else may write to
// the same sectors meanwhile.
func (c *Cipher) WriteAt(f ReadWriterAt, p []byte, off, pos int64) error {
	b := chunks.Get().(*[chunk]byte)
	defer chunks.Put(b)
	for len(p) > 0 {
		head := int(pos % Size)
		n := copy(b[head:], p)
		end := (head + n + Size - 1) &^ (Size - 1)
		if err := c.fillEdges(f, b[:end], head, n, off, pos); err != nil {
			return err
		}
		c.Encrypt(b[:end], b[:end], uint64(pos/Size))
		if err := c.writeAll(f, b[:end], off-int64(head)); err != nil {
			return err
		}
		p, off, pos = p[n:], off+int64(n), pos+int64(n)
	}
	return nil
}

// ReadWriterAt is what WriteAt needs of a file.
type ReadWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// fillEdges reads what b, whole sectors, has around its n bytes from head on,
// which belong at off.
func (c *Cipher) fillEdges(f io.ReaderAt, b []byte, head, n int, off, pos int64) error {
	if head > 0 {
		if err := c.ReadAt(f, b[:head], off-int64(head), pos-int64(head)); err != nil {
			return err
		}
	}
	tail := b[head+n:]
	return c.ReadAt(f, tail, off+int64(n), pos+int64(n))
}
