package vhd

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/combine"
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
	writers  sync.RWMutex // shared by requests that write
	flushes  combine.Calls

	mu     sync.Mutex // guards what follows
	at     int64      // where the footer is
	foot   *footer
	broken error
}

var (
	_ block.Layer       = (*fixed)(nil)
	_ block.Describer   = (*fixed)(nil)
	_ block.RangeCopier = (*fixed)(nil)
)

// openFixed opens a fixed disk whose footer is at a place.
func openFixed(f block.File, foot *footer, at int64, o *OpenOptions) (block.Layer, error) {
	size, err := foot.size()
	if err != nil {
		return nil, err
	}
	if size > at {
		return nil, block.Corruptf("the footer speaks of a disk of %d bytes, and the file has only %d before it", size, at)
	}
	d := &fixed{file: f, writable: o.Writable, noSync: o.NoSync, foot: foot, at: at}
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

// enter begins a request that writes, in a range that was within the disk when
// the caller looked. writers.RUnlock ends it.
func (d *fixed) enter(off, n int64) error {
	d.writers.RLock()
	err := d.broke(nil)
	if err == nil && off+n > d.Size() {
		err = block.ErrBounds
	}
	if err != nil {
		d.writers.RUnlock()
		return err
	}
	d.unsynced.Store(true)
	return nil
}

// WriteAt implements block.Layer.
func (d *fixed) WriteAt(p []byte, off int64) error {
	if err := d.enter(off, int64(len(p))); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	_, err := d.file.WriteAt(p, off)
	return err
}

// WriteZeroes implements block.Layer.
func (d *fixed) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	return zeroFile(d.file, off, n, flags)
}

// Discard implements block.Layer.
func (d *fixed) Discard(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.writers.RUnlock()
	return punch(d.file, off, n)
}

// CopyFrom implements block.RangeCopier.
func (d *fixed) CopyFrom(src block.File, srcOff, off, n int64) (int64, error) {
	c, ok := d.file.(block.RangeCopier)
	if !ok {
		return 0, block.ErrUnsupported
	}
	if err := d.enter(off, n); err != nil {
		return 0, err
	}
	defer d.writers.RUnlock()
	return c.CopyFrom(src, srcOff, off, n)
}

// Flush implements block.Layer.
func (d *fixed) Flush() error {
	if d.noSync || !d.writable {
		return nil
	}
	return d.flushes.Do(func() error {
		d.unsynced.Store(false)
		return d.sync()
	})
}

// sync syncs the file. After a failure it is not known what was written. Takes
// mu.
func (d *fixed) sync() error {
	if err := d.broke(nil); err != nil || d.noSync {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return d.broke(block.Errorf(block.ErrBroken, "what was written may be lost: %w", err))
	}
	return nil
}

// broke notes that an error has broken the handle, unless it is nil, and returns
// the first of these. Takes mu.
func (d *fixed) broke(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		d.broken = err
	}
	return d.broken
}

// Close implements block.Layer.
func (d *fixed) Close() error {
	err := d.broke(nil)
	if err == nil && d.unsynced.Load() {
		err = d.Flush()
	}
	return errors.Join(err, d.file.Close())
}
