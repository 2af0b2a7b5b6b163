package vhd

import (
	"context"
	"fmt"
	"math"

	"github.com/diskimg/diskimg/block"
)

// Check: both footers, and where the blocks are.

// checker is one run of a check. The image does not change meanwhile.
type checker struct {
	d       *disk
	o       *block.CheckOptions
	res     block.CheckResult
	footers *footers
	blocks  int64 // findings about blocks, which nothing can mend
	unnamed int64 // bytes at the end that nothing names
}

var (
	_ block.Checker = (*disk)(nil)
	_ block.Checker = (*fixed)(nil)
)

// Check implements block.Checker. A footer that is missing at the end counts as
// a leak, since its copy stands for it: a power cut leaves that.
func (d *disk) Check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
	if (o.FixLeaks || o.FixCorruptions) && !d.writable {
		return block.CheckResult{}, block.ErrReadOnly
	}
	r := d.ranges.Acquire(0, math.MaxInt64)
	defer d.ranges.Release(r)
	if err := d.Flush(); err != nil {
		return block.CheckResult{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return block.CheckResult{}, err
	}
	k := &checker{d: d, o: &o}
	if err := k.look(); err != nil {
		return k.res, err
	}
	return k.res, k.repair()
}

// look finds what is wrong.
func (k *checker) look() (err error) {
	if k.footers, err = readFooters(k.d.file, maxBehind); err != nil {
		return err
	}
	k.checkFooters()
	k.checkBlocks()
	return nil
}

func (k *checker) find(s block.Severity, format string, args ...any) {
	switch s {
	case block.Leak:
		k.res.Leaks++
	case block.Corruption:
		k.res.Corruptions++
	}
	if k.o.Report != nil {
		k.o.Report(block.Finding{Severity: s, Text: map[block.Severity]string{block.Leak: "Leaked: ", block.Corruption: "ERROR "}[s] +
			block.Corruptf(format, args...).Error(), Offset: -1})
	}
}

func (k *checker) checkFooters() {
	s := k.footers
	switch {
	case s.first == nil:
		k.find(block.Corruption, "the footer's copy at the beginning is broken: %v", s.firstErr)
	case s.last == nil && s.hasTail:
		k.find(block.Corruption, "the footer at the end is broken: %v", s.lastErr)
	case s.last == nil:
		k.find(block.Leak, "there is no footer at the end, only its copy at the beginning")
	case s.first.raw != s.last.raw:
		k.find(block.Corruption, "the footer at the end and its copy at the beginning differ")
	}
}

func (k *checker) checkBlocks() {
	d, before := k.d, k.res.Corruptions
	next := int64(-1)
	for i, e := range d.bat {
		if e == unused {
			continue
		}
		k.res.Allocated++
		if next >= 0 && int64(e)*sectorSize != next {
			k.res.Fragmented++
		}
		if next = d.blockEnd(e); next > d.end {
			k.find(block.Corruption, "BAT entry %d: the block at %#x ends behind the end of the file (%d bytes)", i, int64(e)*sectorSize, d.end)
		}
	}
	d.eachOverlap(func(err error) bool { k.find(block.Corruption, "%v", err); return true })
	k.blocks = k.res.Corruptions - before
	k.res.Clusters = blocks(d.Size(), d.blockSize)
	k.res.ImageEnd = d.end + footerSize
	// Less than a block is what others leave to align their blocks.
	if k.unnamed = d.end - d.contentEnd(); k.unnamed >= d.span() {
		k.find(block.Leak, "%d bytes at the end of the file belong to no block", k.unnamed)
	}
}

// Check implements block.Checker. All there is to a fixed disk is its footer,
// and without that it can't be opened. What is behind it counts as a leak.
func (d *fixed) Check(ctx context.Context, o block.CheckOptions) (block.CheckResult, error) {
	if (o.FixLeaks || o.FixCorruptions) && !d.writable {
		return block.CheckResult{}, block.ErrReadOnly
	}
	d.writers.Lock()
	defer d.writers.Unlock()
	r := block.CheckResult{ImageEnd: d.at + footerSize}
	size, err := d.file.Size()
	if err != nil || size <= r.ImageEnd {
		return r, err
	}
	r.Leaks++
	if o.Report != nil {
		o.Report(block.Finding{Severity: block.Leak, Offset: r.ImageEnd, Text: fmt.Sprintf("Leaked: %d bytes behind the footer", size-r.ImageEnd)})
	}
	if !o.FixLeaks {
		return r, nil
	}
	if err := d.file.Truncate(r.ImageEnd); err != nil {
		return r, err
	}
	r.LeaksFixed++
	return r, d.sync()
}
