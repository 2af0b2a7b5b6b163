package vhd

import (
	"context"
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/prealloc"
	"github.com/diskimg/diskimg/internal/task"
	"github.com/diskimg/diskimg/internal/zero"
)

// Changing the size of a fixed disk: its footer moves. There is only one, so the
// new one is written before the old one goes.

var _ block.Resizer = (*fixed)(nil)

// Resize implements block.Resizer. What is new reads as zero. A power cut leaves
// the old size or the new one; while the disk shrinks, the first sector that is
// to go may be lost before the others.
func (d *fixed) Resize(ctx context.Context, size int64, o block.ResizeOptions) error {
	d.writers.Lock()
	defer d.writers.Unlock()
	old := d.Size()
	err := mayResize(old, size, o)
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case err != nil:
		return err
	case o.Preallocation == block.PreallocMetadata:
		return block.Unsupportedf("Unsupported preallocation mode: %s", o.Preallocation)
	case size == old:
		return nil
	}
	t := task.New(ctx, o.Progress)
	t.Expect(max(0, size-old))
	if err := t.Step(0); err != nil {
		return err
	}
	return d.flushes.Exclude(func() error {
		foot := d.foot.resized(size)
		if err := d.moveFooter(t, foot, size, o.Preallocation); err != nil {
			return errors.Join(err, d.undoMove(size))
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.foot, d.at = foot, size
		d.size.Store(size)
		return nil
	})
}

// moveFooter writes the new footer at a place and makes the old one go.
func (d *fixed) moveFooter(t *task.Task, foot *footer, at int64, mode block.Preallocation) error {
	if err := d.broke(nil); err != nil {
		return err
	}
	// What may lie between the disk and its footer is of no disk so far.
	if n := min(at, d.at) - d.Size(); n > 0 {
		if err := zeroFile(d.file, d.Size(), n, block.MayUnmap); err != nil {
			return err
		}
	}
	if _, err := d.file.WriteAt(foot.encode(), at); err != nil {
		return err
	}
	// Before the old footer goes the new one must be on disk.
	if err := d.sync(); err != nil {
		return err
	}
	if at <= d.at {
		if err := d.file.Truncate(at + footerSize); err != nil {
			return err
		}
		return d.sync()
	}
	if err := zeroFile(d.file, d.at, footerSize, 0); err != nil {
		return err
	}
	if err := prealloc.Take(t, d.file, d.at, at-d.at, mode); err != nil {
		return err
	}
	return d.sync()
}

// undoMove has the old footer count again after a move that failed.
func (d *fixed) undoMove(at int64) error {
	if d.broke(nil) != nil {
		return nil
	}
	_, err := d.file.WriteAt(d.foot.encode(), d.at)
	if err == nil && at > d.at {
		// Before the new footer goes the old one must be on disk.
		if err = d.sync(); err == nil {
			err = d.file.Truncate(d.at + footerSize)
		}
	}
	if err == nil {
		return nil
	}
	return d.broke(block.Errorf(block.ErrBroken, "the footer could not be put back: %w", err))
}

// Bounds for the search of a footer: runs of data in the file, and bytes of the
// last one.
const (
	maxRuns       = 1 << 20
	maxBehind     = 64 << 20
	inspectBehind = 512 << 10 // for who only wants to know what a file is
)

// findLast looks for the footer of a fixed disk in front of zeros: a power cut
// while the disk grows can leave the file longer, without the new footer. Of the
// last run of data it reads at most so many bytes.
func (s *footers) findLast(f block.File, most int64) error {
	from, to, err := lastRun(f, s.lastAt)
	if err != nil {
		return err
	}
	const step = 64 << 10
	b := make([]byte, step)
	for from = max(from, to-most); to > from; to -= int64(len(b)) {
		b = b[:min(step, to-from)]
		if err := block.ReadFull(f, b, to-int64(len(b))); err != nil {
			return err
		}
		if zero.Is(b) {
			continue
		}
		end := to - int64(len(b)) + lastByte(b) + 1
		return s.take(f, roundUp(end, sectorSize)-footerSize)
	}
	return nil
}

// lastRun returns the last run of data in f before end.
func lastRun(f block.File, end int64) (from, to int64, err error) {
	at := int64(0)
	for range maxRuns {
		start, stop, err := block.NextData(f, at)
		if err != nil {
			return 0, 0, err
		}
		if start >= end || start >= stop {
			return from, to, nil
		}
		from, to, at = start, min(stop, end), stop
	}
	return 0, 0, nil
}

// lastByte returns the place of the last byte of b that is not zero.
func lastByte(b []byte) int64 {
	i := len(b) - 1
	for b[i] == 0 {
		i--
	}
	return int64(i)
}

// take has the sector at a place be the footer at the end if it is one of a
// fixed disk that ends there.
func (s *footers) take(f block.File, at int64) error {
	b := make([]byte, footerSize)
	if at < 0 {
		return nil
	}
	if err := block.ReadFull(f, b, at); err != nil {
		return err
	}
	foot, err := parseFooter(b)
	if err != nil || foot.kind != Fixed {
		return nil // nothing of the kind
	}
	if size, err := foot.size(); err == nil && size == at {
		s.last, s.lastErr, s.lastAt, s.hasTail = foot, nil, at, true
	}
	return nil
}
