package block

import "time"

// Description is what an image says of itself.
type Description struct {
	Format        string
	VirtualSize   int64
	ClusterSize   int64 // 0 when the format has none
	Encrypted     bool
	Compressed    bool // every data cluster of the image is compressed (VMDK streams)
	Dirty         bool // was not closed; refcounts may be wrong
	BackingName   string
	BackingFormat string
	DataFile      string
	Snapshots     []Snapshot
	// Specific is what only this format has, in the order to be shown.
	Specific []Field
	// More is what QEMU's tools do not show, in the order to be shown.
	More []Field
}

// Field is one named value of a description: a bool, string, int64, or
// []Field or []any for nested ones.
type Field struct {
	Name  string
	Value any
}

// Snapshot is the record of an internal snapshot.
type Snapshot struct {
	ID, Name    string
	Date        time.Time
	VMClock     time.Duration
	VMStateSize int64
	DiskSize    int64
	// ICount is the instruction count of a recorded run, -1 if there is none.
	ICount int64
}

// Preallocation says how much space is set aside when an image is made.
type Preallocation uint8

const (
	// PreallocOff sets nothing aside.
	PreallocOff Preallocation = iota
	// PreallocMetadata sets up all tables, with the data clusters as holes.
	PreallocMetadata
	// PreallocFalloc reserves the space in the file system too.
	PreallocFalloc
	// PreallocFull writes zeros to it.
	PreallocFull
)

var preallocNames = [...]string{"off", "metadata", "falloc", "full"}

func (p Preallocation) String() string { return preallocNames[p&3] }

// ParsePreallocation is the reverse of String.
func ParsePreallocation(s string) (Preallocation, error) {
	for i, name := range preallocNames {
		if s == name {
			return Preallocation(i), nil
		}
	}
	return 0, Invalidf("Invalid parameter '%s'", s)
}

// Measurement is how large the file of an image will be, in bytes.
type Measurement struct {
	Required       int64 // with the content that it is to have
	FullyAllocated int64 // once all of the disk has been written
	Bitmaps        int64 // on top, for the bitmaps that come along; -1 if none can
}

// CheckOptions say what a check may do.
type CheckOptions struct {
	FixLeaks       bool
	FixCorruptions bool
	// Report, if not nil, is told of each finding as it is found.
	Report func(Finding)
	// Progress, if not nil, is told from time to time how much is done, and does
	// not use the image.
	Progress func(done, total int64)
}

// Finding is one thing that a check has found.
type Finding struct {
	Severity Severity
	Text     string // one sentence, as the format's reference program words it
	Offset   int64  // host offset, -1 when there is none
	Fixed    bool
}

// Severity orders findings.
type Severity uint8

const (
	// Leak wastes space and harms nothing.
	Leak Severity = iota
	// Corruption harms data, now or with the next write.
	Corruption
	// CheckFailure is what kept the check from looking.
	CheckFailure
)

// CheckResult counts what a check found and what the image holds.
type CheckResult struct {
	Leaks, LeaksFixed             int64
	Corruptions, CorruptionsFixed int64
	Errors                        int64 // places that could not be checked

	ImageEnd   int64 // end of the last cluster in use, host offset
	Clusters   int64 // guest clusters in all
	Allocated  int64
	Fragmented int64
	Compressed int64
}

// ResizeOptions say how to change a size.
type ResizeOptions struct {
	Preallocation Preallocation
	// Shrink allows a smaller size; what lies beyond it is lost.
	Shrink bool
	// Progress, if not nil, is told from time to time how much is done, and does
	// not use the image.
	Progress func(done, total int64)
}
