package block

import (
	"context"
	"iter"
)

// Layer is what a format implements: one image file without its backing chain.
//
// All methods may be called concurrently. Ranges handed to a Layer by an Image
// are not empty and lie within Size.
type Layer interface {
	// Size returns the size of the guest disk in bytes.
	Size() int64
	// Resolve says where the range that starts at off lives: one extent, with
	// Start == off, at least one and at most n bytes long, as long as it can
	// be told cheaply. It does no data I/O and allocates no memory when the
	// tables it needs are cached.
	Resolve(off, n int64) (Extent, error)
	// ReadSpecial decodes len(p) bytes at guest offset off, which lie within
	// the extent e that Resolve returned as Special.
	ReadSpecial(e Extent, p []byte, off int64) error
	// WriteAt writes all of p at guest offset off or returns an error. After
	// an error each sector of the range holds its old or its new content.
	WriteAt(p []byte, off int64) error
	// WriteZeroes makes the range read as zero.
	WriteZeroes(off, n int64, flags ZeroFlags) error
	// Discard tells that the content is no longer needed. A layer may ignore
	// it; what it does not ignore reads as zero, never as the backing image.
	Discard(off, n int64) error
	// Flush returns when all that was written before it was called would
	// survive a power cut.
	Flush() error
	// Close flushes and closes the layer with all that it has opened.
	Close() error
}

// ZeroFlags say how zeros may be written.
type ZeroFlags uint8

const (
	// MayUnmap allows WriteZeroes to give the space back.
	MayUnmap ZeroFlags = 1 << iota
	// OwnZeroes asks the layer to hold the zeros itself, also where there is
	// nothing below it now: something will be. A layer may ignore it.
	OwnZeroes
	// NoFallback has WriteZeroes fail with ErrUnsupported where zeros would
	// have to be written like other data. Only a QuickZeroer is given it.
	NoFallback
)

// The abilities below are had by some layers only. As finds them.
type (
	// Backed layers have an image below them.
	Backed interface {
		// Backing returns the image below, nil if there is none.
		Backing() *Image
	}
	// Pinner is a layer in which space can be freed and used again. What
	// Resolve answered stays good from the Pin before it to the Unpin.
	Pinner interface {
		Pin() (token uint32)
		Unpin(token uint32)
	}
	// QuickZeroer is a layer that knows NoFallback.
	QuickZeroer interface {
		// ZeroesQuickly reports whether there is any way to write zeros but as
		// data.
		ZeroesQuickly() bool
	}
	// CompressedWriter stores guest data compressed.
	CompressedWriter interface {
		// WriteCompressed writes p at off, both multiples of the cluster size
		// (p may end short at the end of the disk). Clusters that do not
		// shrink are stored as they are. It uses all cores; clusters written
		// by one call lie in the file in their order.
		WriteCompressed(p []byte, off int64) error
	}
	// Preallocator sets space aside.
	Preallocator interface {
		Preallocate(mode Preallocation) error
	}
	// Describer tells what an image is.
	Describer interface {
		Describe() (Description, error)
	}
	// Checker finds, and on request mends, inconsistencies.
	Checker interface {
		Check(ctx context.Context, o CheckOptions) (CheckResult, error)
	}
	// Invalidator can give up what it has read of its file. A File that holds
	// anything of another one in memory may be one too.
	Invalidator interface {
		// Invalidate has nothing count any more that was read before: another
		// program has written the image, as at the end of a migration. Keys
		// of encryption are kept, and the images and files that it refers to
		// are invalidated first. Requests may go on meanwhile; those that
		// begin after it has returned see the image as it is in the file.
		//
		// If something that was written waits to be flushed, nothing is done
		// and the error is ErrInvalid: to write it now would destroy what the
		// other program has written. After another error the image reads as
		// before, or not at all, and can't be written any more.
		Invalidate() error
	}
	// Resizer changes the size of the guest disk.
	Resizer interface {
		// Resize, if it is cancelled, leaves the size as it was. Once the disk
		// has begun to shrink it is not cancelled any more.
		Resize(ctx context.Context, size int64, o ResizeOptions) error
	}
	// Emptier forgets what an overlay holds, so that all of its disk is that
	// of the image below again.
	Emptier interface {
		// MakeEmpty gives up all guest data of this layer, and its space.
		// Internal snapshots keep theirs.
		MakeEmpty() error
	}
	// BackingChanger changes which file lies below an overlay.
	BackingChanger interface {
		// ChangeBacking has the image name another backing file, as it is
		// to stand in the image, and its format; no name: none. All that was
		// written before is flushed first, and a power cut leaves the old
		// name or the new one. The open image reads on through the backing
		// image that it has, and can't be written any more.
		ChangeBacking(name, format string) error
	}
	// SnapshotLister lists internal snapshots.
	SnapshotLister interface {
		Snapshots() ([]Snapshot, error)
	}
	// Snapshotter makes internal snapshots, goes to them and deletes them. A
	// snapshot is named by its id or, failing that, by a name that only one
	// has; without one the error is fs.ErrNotExist, with several ErrInvalid.
	// While one of these runs, reads go on and all that writes waits. If it is
	// cancelled before the change has come about, all is as it was. Progress,
	// if not nil, is told from time to time how much is done, and does not use the
	// image.
	Snapshotter interface {
		// CreateSnapshot keeps the disk as it is. An empty ID becomes the
		// next number and a zero Date the current time; DiskSize is filled
		// in. It returns the record as it was made.
		CreateSnapshot(ctx context.Context, s Snapshot, progress func(done, total int64)) (Snapshot, error)
		// ApplySnapshot makes the disk what it was, size included.
		ApplySnapshot(ctx context.Context, idOrName string, progress func(done, total int64)) error
		// DeleteSnapshot deletes a snapshot and gives its space back. What
		// was opened of it must not be used any more.
		DeleteSnapshot(ctx context.Context, idOrName string, progress func(done, total int64)) error
	}
	// SnapshotOpener reads an internal snapshot without going there.
	SnapshotOpener interface {
		// OpenSnapshot returns a read-only image of the snapshot with that id
		// or, failing that, that name. It is good until this layer is closed.
		OpenSnapshot(idOrName string) (*Image, error)
	}
	// VMStateKeeper keeps the state of a virtual machine besides the disk; its
	// length is up to the caller, who tells it with a snapshot. Such a snapshot,
	// with a VMStateSize above 0, takes the state along: the disk has none then,
	// until it goes back to the snapshot. Nothing is flushed.
	VMStateKeeper interface {
		// ReadVMState fills p with the state from offset off on. What was
		// never written is zero.
		ReadVMState(p []byte, off int64) error
		WriteVMState(p []byte, off int64) error
	}
	// BitmapLister has persistent dirty bitmaps.
	BitmapLister interface {
		// Bitmaps lists them in their order, those that can't be used too. An
		// image that can't have any says ErrUnsupported.
		Bitmaps() ([]Bitmap, error)
		// DirtyExtents yields the ranges of the disk that have changed by the
		// word of a bitmap, in order and not touching each other. It tells of
		// the moment at which it is called.
		DirtyExtents(bitmap string) iter.Seq2[Span, error]
	}
	// BitmapEditor can change them.
	BitmapEditor interface {
		BitmapLister
		// EditBitmaps makes all changes or, if it returns an error, none: a
		// *BitmapEditError if one of them can't be made. They have survived a
		// power cut when it returns, and at no time does one leave some.
		// Progress, if not nil, is told from time to time how much is done,
		// and does not use the image.
		EditBitmaps(ctx context.Context, edits []BitmapEdit, progress func(done, total int64)) error
		// HoldBitmaps marks all bitmaps as in use until the image is closed,
		// as QEMU does when it opens one to write. Without it those that
		// record are marked before the first write.
		HoldBitmaps() error
	}
)
