package vhd

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// Fixed disks: the guest's bytes from the beginning of the file, and the footer
// behind them.

// fixed is the layer of a fixed disk.
type fixed struct {
	file     block.File
	writable bool
	noSync   bool
	size     atomic.Int64
	unsynced atomic.Bool

	mu     sync.Mutex // guards what follows
	foot   *footer
	broken error
}

var (
	_ block.Layer       = (*fixed)(nil)
	_ block.Describer   = (*fixed)(nil)
	_ block.RangeCopier = (*fixed)(nil)
)

func openFixed(f block.File, foot *footer, o *OpenOptions) (block.Layer, error) {
	size, err := foot.size()
	if err != nil {
		return nil, err
	}
	length, err := f.Size()
	if err != nil {
		return nil, err
	}
	if room := roundUp(length, sectorSize) - footerSize; size > room {
		return nil, block.Corruptf("the footer speaks of a disk of %d bytes, and the file has only %d before it", size, room)
	}
	d := &fixed{file: f, writable: o.Writable, noSync: o.NoSync, foot: foot}
	d.size.Store(size)
	return d, nil
}

// Size implements block.Layer.
func (d *fixed) Size() int64 { return d.size.Load() }

// Resolve implements block.Layer.
func (d *fixed) Resolve(off, n int64) (block.Extent, error) {
	return block.Extent{
		Start: off, Length: n, Kind: block.Data, Allocated: true, File: d.file, Offset: off, HasOffset: true, MayBeZero: true,
	}, nil
}

// ReadSpecial is never called: no extent of a VHD is special.
func (d *fixed) ReadSpecial(block.Extent, []byte, int64) error { return block.ErrUnsupported }

// WriteAt implements block.Layer.
func (d *fixed) WriteAt(p []byte, off int64) error {
	d.unsynced.Store(true)
	_, err := d.file.WriteAt(p, off)
	return err
}

// WriteZeroes implements block.Layer.
func (d *fixed) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	d.unsynced.Store(true)
	return zeroFile(d.file, off, n, flags)
}

// Discard implements block.Layer.
func (d *fixed) Discard(off, n int64) error {
	d.unsynced.Store(true)
	return punch(d.file, off, n)
}

// CopyFrom implements block.RangeCopier.
func (d *fixed) CopyFrom(src block.File, srcOff, off, n int64) (int64, error) {
	c, ok := d.file.(block.RangeCopier)
	if !ok {
		return 0, block.ErrUnsupported
	}
	d.unsynced.Store(true)
	return c.CopyFrom(src, srcOff, off, n)
}

// Flush implements block.Layer.
func (d *fixed) Flush() error {
	if d.noSync || !d.writable {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	d.unsynced.Store(false)
	return d.sync()
}

// sync syncs the file. After a failure it is not known what was written. Needs
// mu.
func (d *fixed) sync() error {
	if d.noSync {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		d.broken = block.Errorf(block.ErrBroken, "what was written may be lost: %w", err)
	}
	return d.broken
}

// Close implements block.Layer.
func (d *fixed) Close() error {
	d.mu.Lock()
	err := d.broken
	d.mu.Unlock()
	if err == nil && d.unsynced.Load() {
		err = d.Flush()
	}
	return errors.Join(err, d.file.Close())
}
