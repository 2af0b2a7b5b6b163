package qcow2

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Amending: what was chosen when the image was made is chosen anew. All that can
// be known to be refused is refused before anything changes. Each step leaves a
// sound image, and a power cut the image before or after a step.

// AmendOptions say what is to be different. The zero value changes nothing.
type AmendOptions struct {
	// Version is 2 (compat 0.10) or 3 (compat 1.1).
	Version int
	// RefcountBits is the width of a refcount: 1, 2, 4 … 64.
	RefcountBits int
	// LazyRefcounts says whether updates of refcounts may be postponed.
	LazyRefcounts *bool
	// Size of the guest disk in bytes; a smaller one needs Shrink.
	Size   int64
	Shrink bool
	// DataFile is another name for the external data file. The open image goes
	// on with the file that it has, and can't be written any more.
	DataFile *string
	// DataFileRaw set to false no longer keeps the data file readable as a raw
	// image. It can't be set to true.
	DataFileRaw *bool
	// Keys is a change of key slots; nil for none.
	Keys *block.KeyChange
	// Progress, if not nil, is told from time to time how much is done.
	Progress func(done, total int64)
}

// Amend changes the image, which must be of this package and open for writing. If
// it is cancelled, some of the changes have been made.
func Amend(ctx context.Context, img *block.Image, o *AmendOptions) error {
	d, ok := block.As[*disk](img)
	if !ok {
		return &block.Error{Op: "amend", Path: img.Path(), Format: img.Format(), Offset: -1, Err: block.ErrUnsupported}
	}
	if err := d.amend(task.New(ctx, o.Progress), o); err != nil {
		return &block.Error{Op: "amend", Path: d.path, Format: "qcow2", Offset: -1, Err: err}
	}
	return nil
}

func (d *disk) amend(t *task.Task, o *AmendOptions) error {
	if err := d.mayAmend(o); err != nil {
		return err
	}
	var steps []func() error
	add := func(wanted bool, step func() error) {
		if wanted {
			steps = append(steps, step)
		}
	}
	version := int(d.hdr.version)
	// First, as it may be refused when something has been read.
	add(o.Keys != nil, func() error { return d.ChangeKeys(*o.Keys) })
	add(o.Version > version, d.upgrade)
	add(o.RefcountBits != 0 && o.RefcountBits != 1<<d.geo.refOrder, func() error { return d.setRefcountBits(t, o.RefcountBits) })
	add(o.LazyRefcounts != nil, func() error { return d.setLazy(*o.LazyRefcounts) })
	add(o.DataFile != nil || o.DataFileRaw != nil, func() error { return d.renameData(o) })
	add(o.Size != 0, func() error { return d.resize(t, o.Size, block.ResizeOptions{Shrink: o.Shrink}) })
	add(o.Version != 0 && o.Version < version, func() error { return d.downgrade(t) })
	t.Expect(int64(len(steps)))
	for _, step := range steps {
		err := t.Step(0)
		if err == nil {
			err = step()
		}
		if err != nil {
			return err
		}
		_ = t.Step(1) // the last one has been made, whatever this says
	}
	t.Finish()
	return nil
}

// mayAmend refuses what can't be.
func (d *disk) mayAmend(o *AmendOptions) error {
	if !d.writable {
		return block.ErrReadOnly
	}
	if o.Keys != nil {
		if err := d.mayChangeKeys(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	version := cmp.Or(o.Version, int(d.hdr.version))
	for _, check := range []func(o *AmendOptions, version int) error{d.mayAmendFiles, d.mayAmendFeatures} {
		if err := check(o, version); err != nil {
			return err
		}
	}
	if o.Size != 0 {
		if err := d.mayResize(o.Size, block.ResizeOptions{Shrink: o.Shrink}); err != nil {
			return err
		}
	}
	if version < int(d.hdr.version) {
		return d.mayDowngrade(cmp.Or(o.Size, d.Size()))
	}
	return d.refusal()
}

func (d *disk) mayAmendFiles(o *AmendOptions, _ int) error {
	external := d.hdr.incompat&incompatDataFile != 0
	switch {
	case o.DataFile != nil && !external:
		return block.Invalidf("data-file can only be set for images that use an external data file")
	case o.DataFileRaw != nil && *o.DataFileRaw && d.hdr.autoclear&autoclearRawData == 0:
		return block.Invalidf("data-file-raw cannot be set on existing images")
	}
	return nil
}

func (d *disk) mayAmendFeatures(o *AmendOptions, version int) error {
	const needsV3 = " compatibility level 1.1 and above (use compat=1.1 or greater)"
	width := cmp.Or(o.RefcountBits, 1<<d.geo.refOrder)
	switch {
	case version != 2 && version != 3:
		return block.Invalidf("Version %d of qcow2 does not exist; it is 2 or 3", version)
	case o.RefcountBits < 0 || o.RefcountBits > 64 || o.RefcountBits&(o.RefcountBits-1) != 0:
		return block.Invalidf("Refcount width must be a power of two and may not exceed 64 bits")
	case version == 2 && o.LazyRefcounts != nil && *o.LazyRefcounts:
		return block.Invalidf("Lazy refcounts only supported with" + needsV3)
	case version == 2 && width != 16 && width != 1<<d.geo.refOrder:
		return block.Invalidf("Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)")
	case version == 2 && width != 16:
		return block.Invalidf("compat=0.10 requires refcount_bits=16")
	}
	return nil
}

// setLazy sets or clears the bit that allows refcounts to be postponed.
func (d *disk) setLazy(on bool) error {
	return d.alone(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		compat := d.hdr.compat &^ compatLazyRefcounts
		if on {
			compat |= compatLazyRefcounts
		}
		if compat == d.hdr.compat {
			return nil
		}
		d.hdr.compat = compat
		if err := d.patchHeader(atCompat, be64(compat)); err != nil {
			return err
		}
		d.lazy = on && !d.noSync
		if on {
			return nil
		}
		// All refcounts are on disk: the image is alone.
		return d.markSound()
	})
}

// renameData changes what the header says of the data file.
func (d *disk) renameData(o *AmendOptions) error {
	return d.alone(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if o.DataFileRaw != nil && !*o.DataFileRaw {
			d.hdr.autoclear &^= autoclearRawData
			if err := d.patchHeader(atAutoclear, be64(d.hdr.autoclear)); err != nil {
				return err
			}
		}
		if o.DataFile == nil {
			return nil
		}
		h := *d.hdr
		h.extensions = h.without(extDataFile)
		if *o.DataFile != "" {
			h.extensions = append(h.extensions, extension{extDataFile, []byte(*o.DataFile)})
		}
		d.sealed = block.Errorf(block.ErrInvalid, "the image names another data file and has to be opened again to be written")
		return d.changeHeader(&h)
	})
}

// without returns the extensions but for those of a kind, and padding.
func (h *header) without(kind uint32) []extension {
	return slices.DeleteFunc(slices.Clone(h.extensions), func(e extension) bool { return e.kind == kind || e.kind == extPadding })
}

// changeHeader puts another header in force. Needs mu exclusively.
func (d *disk) changeHeader(h *header) error {
	if err := d.replaceHeader(h); err != nil {
		return err
	}
	d.setHeader(h)
	return nil
}

// upgrade makes a version 2 image one of version 3.
func (d *disk) upgrade() error {
	return d.alone(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.completeSnapshots(); err != nil {
			return err
		}
		h := *d.hdr
		h.version, h.length, h.refcountOrder = 3, newHeaderLength, 4
		h.unknown = make([]byte, newHeaderLength-minV3HeaderLength-1)
		h.extensions = h.without(extPadding)
		plain := h
		if h.find(extFeatureNames) == nil && roomForNames(d.geo.clusterSize) {
			h.extensions = append(h.extensions, extension{extFeatureNames, featureNameTable()})
		}
		err := d.changeHeader(&h)
		if err != nil && d.broken == nil {
			// Names of features are for people: without them there may be room.
			err = d.changeHeader(&plain)
		}
		if err == nil {
			d.geo.v3 = true
		}
		return err
	})
}

// minSnapshotExtra is what a snapshot of a version 3 image must have of extra
// data: the sizes of VM state and disk.
const minSnapshotExtra = extraDiskSize + 8

// completeSnapshots gives snapshots the extra data that version 3 demands. Needs
// mu exclusively.
func (d *disk) completeSnapshots() error {
	records, size, err := d.readSnapshots(maxSnapshotTable)
	if err != nil || !slices.ContainsFunc(records, func(s snapshotRecord) bool { return len(s.extra) < minSnapshotExtra }) {
		return err
	}
	complete(records)
	return d.writeSnapshots(records, size)
}

// complete gives records the extra data that version 3 demands.
func complete(records []snapshotRecord) {
	for i := range records {
		s := &records[i]
		if len(s.extra) < minSnapshotExtra {
			s.extra = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(s.vmState)), uint64(s.diskSize))
		}
	}
}

// mayDowngrade refuses to make a version 2 image of what that can't express.
// size is that of the disk as it will be. Needs mu exclusively.
func (d *disk) mayDowngrade(size int64) error {
	h := d.hdr
	const known = incompatDirty | incompatCorrupt | incompatCompression
	switch {
	case h.incompat&incompatDataFile != 0:
		return block.Unsupportedf("Cannot downgrade an image with a data file")
	case h.incompat&^known != 0:
		return block.Unsupportedf("Cannot downgrade an image with incompatible features %#x set", h.incompat&^known)
	case slices.ContainsFunc(h.unknown, func(b byte) bool { return b != 0 }):
		return block.Unsupportedf("Cannot downgrade an image with unknown header fields")
	case h.autoclear&autoclearBitmaps != 0:
		return block.Unsupportedf("Persistent dirty bitmaps prevent downgrade of image")
	}
	records, _, err := d.readSnapshots(maxSnapshotTable)
	if err != nil {
		return err
	}
	for i := range records {
		if records[i].vmState > 1<<32-1 || records[i].diskSize != size {
			return block.Unsupportedf("Internal snapshots prevent downgrade of image")
		}
	}
	tables, err := d.allTables(records)
	if err != nil || h.compression == compressionZlib {
		return err
	}
	return d.mayForgetCompression(tables)
}

// mayForgetCompression refuses if there are clusters that only this image's
// compression can decode. Needs mu exclusively.
func (d *disk) mayForgetCompression(tables []hostOff) error {
	data := make([]byte, d.geo.clusterSize)
	for _, table := range tables {
		if err := d.readWholeL2(data, table); err != nil {
			return err
		}
		for at := 0; at < len(data); at += 1 << d.geo.entryBits {
			if d.decodeEntry(data[at:]).compressed() {
				return block.Unsupportedf("Cannot downgrade an image with %s compression type and existing compressed clusters", Compression(d.hdr.compression))
			}
		}
	}
	return nil
}

// allTables lists the L2 tables of the image and its snapshots, each once. Needs
// mu exclusively.
func (d *disk) allTables(records []snapshotRecord) ([]hostOff, error) {
	list := slices.Clone(d.l1)
	for i := range records {
		view, err := d.viewOf(&records[i])
		if err != nil {
			return nil, err
		}
		list = append(list, view.l1...)
	}
	var tables []hostOff
	for _, e := range list {
		if e&offsetMask != 0 {
			tables = append(tables, hostOff(e&offsetMask))
		}
	}
	slices.Sort(tables)
	return slices.Compact(tables), nil
}

// downgrade makes a version 3 image one of version 2, whose entries can't say
// that a cluster is zero.
func (d *disk) downgrade(t *task.Task) error {
	if err := d.expandActive(t); err != nil {
		return err
	}
	// Before the header says version 2, what an entry of that can't say must be
	// gone from the disk: alone waits for it, and so does writeExpanded.
	return d.alone(func() error {
		d.mu.Lock()
		err := d.mayDowngrade(d.Size())
		if err == nil {
			err = d.expandSnapshots(t)
		}
		d.mu.Unlock()
		if err != nil {
			return err
		}
		// Before the header says version 2 and forgets that refcounts may be
		// behind, they must be on disk.
		if err := d.quiesce(); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		h := *d.hdr
		h.version, h.length, h.unknown = 2, v2HeaderLength, nil
		h.incompat, h.compat, h.autoclear, h.compression = 0, 0, 0, compressionZlib
		h.extensions = h.without(extFeatureNames)
		if err := d.changeHeader(&h); err != nil {
			return err
		}
		d.geo.v3, d.lazy = false, false
		return nil
	})
}

// orderOf returns log2 of a refcount's width.
func orderOf(width int) uint { return uint(bits.TrailingZeros(uint(width))) }
