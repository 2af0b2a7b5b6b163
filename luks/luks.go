// Package luks is the format of encrypted raw disks: a LUKS1 header, its key
// material, and behind it the disk, sector by sector. What a new disk holds is
// not defined, as with other programs: its sectors were never encrypted, and
// read as noise.
//
// Facts: LUKS1 on-disk format specification 1.2.2, section "PHDR"; the header
// itself is read and written by internal/luks.
package luks

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/luks"
	"github.com/diskimg/diskimg/internal/rangelock"
	"github.com/diskimg/diskimg/internal/sectors"
)

// OpenOptions say how to open a disk.
type OpenOptions struct {
	Path     string // for messages
	Writable bool
	// Passphrase is asked for once, and once more for each key slot that is
	// added. What it returns is cleared after use.
	Passphrase func() ([]byte, error)
	// NoIO opens the disk without a passphrase; its data can't be read. Not
	// with Writable.
	NoIO bool
	// NoSync makes Flush and Close sync nothing: fast, and after a power cut
	// the disk is lost. For disks that are made in one go and can be made again.
	NoSync bool
}

// Probe reports whether head, the first bytes of a file, are those of a LUKS1
// header.
func Probe(head []byte) bool { return luks.Probe(head) }

// Open opens the disk in f. The image owns f once Open has succeeded.
func Open(f block.File, o *OpenOptions) (*block.Image, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	d, err := open(f, o)
	if err != nil {
		return nil, &block.Error{Op: "open", Path: o.Path, Format: "luks", Offset: -1, Err: err}
	}
	return block.NewImage(d, block.ImageOptions{Path: o.Path, Format: "luks", Writable: o.Writable}), nil
}

// Inspect describes the disk in f. It reads the header and nothing else.
func Inspect(f block.File) (block.Description, error) {
	d, err := open(f, &OpenOptions{NoIO: true})
	if err != nil {
		return block.Description{}, &block.Error{Op: "open", Format: "luks", Offset: -1, Err: err}
	}
	return d.Describe()
}

func open(f block.File, o *OpenOptions) (*disk, error) {
	length, err := f.Size()
	if err != nil {
		return nil, err
	}
	h, err := luks.Read(f, length)
	if err != nil {
		return nil, err
	}
	if h.Payload > length {
		return nil, block.Corruptf("LUKS payload begins at %d, the file ends at %d", h.Payload, length)
	}
	d := &disk{f: f, start: h.Payload, ask: o.Passphrase, noSync: o.NoSync}
	d.size.Store((length - h.Payload) &^ (sectors.Size - 1))
	switch {
	case !o.NoIO:
		return d, d.unlock(h)
	case o.Writable:
		return nil, block.Invalidf("a disk can't be written that is opened not to be read")
	}
	return d, nil
}

// disk is the layer of an encrypted disk.
type disk struct {
	f      block.File
	start  int64        // of the disk in the file
	size   atomic.Int64 // of the disk
	cipher *sectors.Cipher
	ask    func() ([]byte, error) // for the passphrase; nil if nobody knows
	noSync bool

	// writes keep out of each other's sectors: what is written in part is read
	// first.
	writes  rangelock.Lock
	keys    sync.Mutex            // held while key slots are changed
	written atomic.Bool           // something was written since the last flush began
	lost    atomic.Pointer[error] // set once, by a sync that failed
}

var (
	_ block.Layer      = (*disk)(nil)
	_ block.Describer  = (*disk)(nil)
	_ block.Resizer    = (*disk)(nil)
	_ block.KeyChanger = (*disk)(nil)

	_ block.Invalidator = (*disk)(nil)
)

func (d *disk) passphrase() ([]byte, error) {
	if d.ask == nil {
		return nil, block.Errorf(block.ErrPassphrase, "the disk is encrypted and no passphrase is given")
	}
	return d.ask()
}

func (d *disk) unlock(h *luks.Header) error {
	p, err := d.passphrase()
	if err != nil {
		return err
	}
	defer clear(p)
	d.cipher, err = h.Open(d.f, p)
	return err
}

// Size implements block.Layer.
func (d *disk) Size() int64 { return d.size.Load() }

// Resolve implements block.Layer.
func (d *disk) Resolve(off, n int64) (block.Extent, error) {
	return block.Extent{Start: off, Length: n, Kind: block.Special, Allocated: true, File: d.f, Offset: d.start + off}, nil
}

// ReadSpecial implements block.Layer.
func (d *disk) ReadSpecial(_ block.Extent, p []byte, off int64) error {
	if d.cipher == nil {
		return block.Errorf(block.ErrPassphrase, "the disk was opened without its passphrase")
	}
	return d.cipher.ReadAt(d.f, p, d.start+off, off)
}

// WriteAt implements block.Layer.
func (d *disk) WriteAt(p []byte, off int64) error {
	first := off &^ (sectors.Size - 1)
	r := d.writes.Acquire(first, off-first+int64(len(p))+sectors.Size)
	defer d.writes.Release(r)
	d.written.Store(true)
	return d.cipher.WriteAt(d.f, p, d.start+off, off)
}

var zeros [256 << 10]byte

// WriteZeroes implements block.Layer. Zeros are encrypted like anything else.
func (d *disk) WriteZeroes(off, n int64, _ block.ZeroFlags) error {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := d.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Discard implements block.Layer. Nothing can be given up: a hole would read as
// noise.
func (d *disk) Discard(off, n int64) error { return nil }

// Flush implements block.Layer. After a sync that failed no later one can tell
// that what was written before is safe.
func (d *disk) Flush() error {
	if d.noSync {
		return nil
	}
	d.written.Store(false)
	if err := d.f.Sync(); err != nil {
		err = block.Errorf(block.ErrBroken, "what was written may be lost: %w", err)
		d.lost.CompareAndSwap(nil, &err)
	}
	if err := d.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Close implements block.Layer.
func (d *disk) Close() error {
	var err error
	if d.written.Load() || d.lost.Load() != nil {
		err = d.Flush()
	}
	if cerr := d.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Invalidate implements block.Invalidator. The key is kept: no change of key slots
// makes it another one.
func (d *disk) Invalidate() error {
	if err := block.Invalidate(d.f); err != nil {
		return err
	}
	length, err := d.f.Size()
	if err != nil {
		return err
	}
	h, err := luks.Read(d.f, length)
	switch {
	case err != nil:
		return err
	case h.Payload != d.start || d.start > length:
		return block.Unsupportedf("the disk has become another one and has to be opened again")
	}
	d.size.Store((length - d.start) &^ (sectors.Size - 1))
	return nil
}

// Describe implements block.Describer.
func (d *disk) Describe() (block.Description, error) {
	h, err := luks.Read(d.f, math.MaxInt64)
	if err != nil {
		return block.Description{}, err
	}
	return block.Description{Format: "luks", VirtualSize: d.Size(), Encrypted: true, Specific: h.Describe()}, nil
}

// ChangeKeys implements block.KeyChanger.
func (d *disk) ChangeKeys(c block.KeyChange) error {
	d.keys.Lock()
	defer d.keys.Unlock()
	h, err := luks.Read(d.f, d.start)
	if err != nil {
		return err
	}
	return h.Change(d.f, c, d.passphrase)
}
