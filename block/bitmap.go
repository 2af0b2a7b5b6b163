package block

// Bitmap describes a persistent dirty bitmap: a record of which parts of the
// disk have been written since it was made or cleared.
type Bitmap struct {
	Name        string
	Granularity int64 // bytes of the disk for each bit, a power of two
	Enabled     bool  // writes are recorded
	InUse       bool  // it was not stored after the last writes and says nothing
	// Unusable, if not nil, says why the bitmap can only be removed.
	Unusable error
}

// Span is a range of the guest disk in bytes.
type Span struct{ Start, Length int64 }

// BitmapOp is what is done to a bitmap.
type BitmapOp uint8

const (
	// AddBitmap makes a new one in which nothing is dirty.
	AddBitmap BitmapOp = iota
	// RemoveBitmap deletes one, also one that can't be used.
	RemoveBitmap
	// ClearBitmap forgets all that was recorded.
	ClearBitmap
	// EnableBitmap has writes recorded from now on.
	EnableBitmap
	// DisableBitmap ends that.
	DisableBitmap
	// MergeBitmap adds what another bitmap has recorded.
	MergeBitmap
)

func (o BitmapOp) String() string {
	return [...]string{"add", "remove", "clear", "enable", "disable", "merge"}[o%6]
}

// BitmapEdit is one change of the bitmap called Name.
type BitmapEdit struct {
	Op   BitmapOp
	Name string
	// Granularity of a new bitmap in bytes, a power of two from 512 to 2 GiB; 0
	// is the cluster size, at least 4 KiB and at most 64 KiB.
	Granularity int64
	// Disabled adds a bitmap that records nothing yet.
	Disabled bool
	// Source is the bitmap to merge. From is the image that has it, nil for
	// the same; its disk must be as large.
	Source string
	From   *Image
}

// BitmapEditError says which of several edits could not be made.
type BitmapEditError struct {
	Edit BitmapEdit
	Err  error
}

func (e *BitmapEditError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BitmapEditError) Unwrap() error { return e.Err }
