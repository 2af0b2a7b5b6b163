package luks

import (
	"context"
	"errors"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/luks"
	"github.com/diskimg/diskimg/internal/prealloc"
	"github.com/diskimg/diskimg/internal/task"
)

// CreateOptions say what disk to make. Empty is what QEMU does.
type CreateOptions struct {
	Size     int64         // of the disk in bytes; rounded up to a multiple of 512
	Cipher   string        // aes-128, aes-256 (default), twofish-256, cast5-128 …
	Mode     string        // xts (default), cbc, ctr or ecb
	IVGen    string        // plain, plain64 (default) or essiv
	IVHash   string        // for essiv; sha256
	Hash     string        // sha256
	IterTime time.Duration // spent on a passphrase each time the disk is opened; 2 s
	// Preallocation off and metadata leave the disk a hole in the file.
	Preallocation block.Preallocation
	// Passphrase is asked for once. What it returns is cleared after use.
	Passphrase func() ([]byte, error)
	// NoSync skips the sync, see OpenOptions.
	NoSync bool
}

func (o *CreateOptions) header() *luks.CreateOptions {
	return &luks.CreateOptions{Cipher: o.Cipher, Mode: o.Mode, IVGen: o.IVGen, IVHash: o.IVHash, Hash: o.Hash, IterTime: o.IterTime}
}

// Create makes a disk of f, which must be empty. It does not close it.
func Create(f block.File, o *CreateOptions) error {
	if err := o.create(f); err != nil {
		return &block.Error{Op: "create", Format: "luks", Offset: -1, Err: err}
	}
	return nil
}

func (o *CreateOptions) create(f block.File) error {
	h, err := o.header().Layout()
	if err != nil {
		return err
	}
	size, err := o.size(h.Payload)
	if err != nil {
		return err
	}
	d := &disk{f: f, ask: o.Passphrase}
	p, err := d.passphrase()
	if err != nil {
		return err
	}
	defer clear(p)
	if _, _, err := o.header().Create(f, p); err != nil {
		return err
	}
	if err := allocate(nil, f, h.Payload, size, o.Preallocation); err != nil || o.NoSync {
		return err
	}
	return f.Sync()
}

// maxSize is that of a file.
const maxSize = 1<<63 - 1<<30

// size returns that of the disk, if a file can hold it behind a header.
func (o *CreateOptions) size(header int64) (int64, error) {
	size := (o.Size + 511) &^ 511
	if o.Size < 0 || size < o.Size || size > maxSize-header {
		return 0, block.Invalidf("The requested file size is too large")
	}
	return size, nil
}

// Measure returns how large the file of a disk will be.
func Measure(o *CreateOptions) (block.Measurement, error) {
	h, err := o.header().Layout()
	if err != nil {
		return block.Measurement{}, err
	}
	size, err := o.size(h.Payload)
	return block.Measurement{Required: h.Payload + size, FullyAllocated: h.Payload + size, Bitmaps: -1}, err
}

// allocate makes f end n bytes after off. What is new may be holes, or takes up
// space; it holds nothing that was encrypted.
func allocate(t *task.Task, f block.File, off, n int64, mode block.Preallocation) error {
	if err := prealloc.Take(t, f, off, n, mode); err != nil {
		return err
	}
	return f.Truncate(off + n)
}

// Resize implements block.Resizer. What is new reads as noise.
func (d *disk) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	now := d.Size()
	size, err := (&CreateOptions{Size: size}).size(d.start)
	switch {
	case err != nil:
		return err
	case size < now && !o.Shrink:
		return block.Invalidf("shrinking from %d to %d bytes would lose what lies beyond, and was not allowed", now, size)
	case o.Preallocation == block.PreallocMetadata:
		return block.Unsupportedf("Unsupported preallocation mode: %s", o.Preallocation)
	case size < now && o.Preallocation != block.PreallocOff:
		return block.Invalidf("Preallocation can't be used for shrinking files")
	case size <= now:
		err = d.f.Truncate(d.start + size)
	default:
		t := task.New(ctx, o.Progress)
		t.Expect(size - now)
		err = allocate(t, d.f, d.start+now, size-now, o.Preallocation)
	}
	if err != nil {
		return errors.Join(err, d.f.Truncate(d.start+now))
	}
	d.written.Store(true)
	d.size.Store(size)
	return nil
}
