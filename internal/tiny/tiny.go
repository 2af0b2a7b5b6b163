// Package tiny is the smallest disk format that has all that can go wrong in a
// real one: clusters that are allocated, freed and used again, zero and
// compressed clusters, copy on write from a backing image. It is not for data.
// It is the subject on which the test suites are tested themselves: with a Bug
// switched on, a suite must fail.
//
// The file is a header of 512 bytes, a table of one entry for each cluster of
// the disk, and clusters. A table entry is changed after the data it names has
// been written.
package tiny

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

const (
	magic      = "tinydisk"
	headerSize = 512
	maxName    = headerSize - 26

	// An entry is zero where the backing image shows, zeroEntry, or the host
	// offset of a cluster, with packedFlag if what is there is compressed.
	zeroEntry  = 1
	packedFlag = 1
)

// Bug is a mistake that can be switched on.
type Bug string

// The mistakes.
const (
	LoseHead       Bug = "copy on write forgets what lies before the data"
	LoseTail       Bug = "copy on write forgets what lies after the data"
	StaleReuse     Bug = "a cluster used again shows what it held before"
	DoubleUse      Bug = "a discarded cluster is freed and still named"
	DiscardBelow   Bug = "a discard lets the backing image show"
	DiscardWide    Bug = "a discard of part of a cluster takes all of it"
	ZeroWide       Bug = "zeros for part of a cluster take all of it"
	ZeroLost       Bug = "zeros over a hole are not written down"
	ForgetTable    Bug = "a table entry never reaches the file"
	LongExtent     Bug = "clusters that don't lie together are one extent"
	WrongZero      Bug = "the extent after a zero cluster is zero too"
	NoLock         Bug = "writers don't wait for each other"
	NoPin          Bug = "writers don't wait for readers"
	IgnoreWrite    Bug = "a failed table write is ignored"
	IgnoreSync     Bug = "a failed sync is ignored"
	ForgiveSync    Bug = "a sync after a failed one succeeds"
	WriteReadOnly  Bug = "opening for reading writes the header"
	AllocatingRead Bug = "each lookup allocates memory"
	LeakyCheck     Bug = "each close leaves a leak behind"
	ShortPacked    Bug = "a compressed cluster loses its last bytes"
)

// CreateOptions are for Create.
type CreateOptions struct {
	Size        int64
	ClusterSize int64  // 0 for 4096
	Backing     string // name of the image below
}

// Create writes an empty image to an empty file.
func Create(f block.File, o CreateOptions) error {
	if o.ClusterSize == 0 {
		o.ClusterSize = 4096
	}
	if len(o.Backing) > maxName {
		return block.Invalidf("backing name of %d bytes: the limit is %d", len(o.Backing), maxName)
	}
	h := make([]byte, headerSize)
	copy(h, magic)
	binary.LittleEndian.PutUint64(h[8:], uint64(o.Size))
	binary.LittleEndian.PutUint64(h[16:], uint64(o.ClusterSize))
	binary.LittleEndian.PutUint16(h[24:], uint16(len(o.Backing)))
	copy(h[26:], o.Backing)
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	l := layer{size: o.Size, cluster: o.ClusterSize}
	if err := f.Truncate(l.firstCluster()); err != nil {
		return err
	}
	return f.Sync()
}

// Options are for Open.
type Options struct {
	Path     string
	Writable bool
	Policy   block.Policy // opens the backing image
	Bug      Bug
}

// Open opens an image. It owns the file.
func Open(f block.File, o Options) (*block.Image, error) {
	h := make([]byte, headerSize)
	if _, err := f.ReadAt(h, 0); err != nil {
		return nil, err
	}
	if string(h[:8]) != magic {
		return nil, block.Errorf(block.ErrFormat, "magic %q", h[:8])
	}
	l := &layer{
		file: f, bug: o.Bug, writable: o.Writable,
		size:    int64(binary.LittleEndian.Uint64(h[8:])),
		cluster: int64(binary.LittleEndian.Uint64(h[16:])),
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	if name := h[26:][:binary.LittleEndian.Uint16(h[24:])]; len(name) > 0 {
		var err error
		l.backing, err = o.Policy.OpenImage(block.Ref{Role: block.RoleBacking, Name: string(name), From: o.Path})
		if err != nil {
			return nil, err
		}
	}
	if l.bug == WriteReadOnly {
		if _, err := f.WriteAt(h, 0); err != nil {
			return nil, err
		}
	}
	return block.NewImage(l, block.ImageOptions{Path: o.Path, Format: "tiny", Writable: o.Writable}), nil
}

// layer is an open image.
type layer struct {
	file     block.File
	size     int64
	cluster  int64
	backing  *block.Image
	writable bool
	bug      Bug

	table []atomic.Uint64
	// pins is held by readers from before Resolve until they have read, and
	// by who changes the table, so that no cluster is used again under a
	// reader.
	pins sync.RWMutex
	// mu is held by writers. It comes before pins.
	mu     sync.Mutex
	free   []int64
	end    int64 // where the file is extended
	broken error
	sink   []byte // keeps what AllocatingRead allocates
}

func (l *layer) clusters() int64 { return (l.size + l.cluster - 1) / l.cluster }

func (l *layer) firstCluster() int64 {
	return (headerSize + 8*l.clusters() + l.cluster - 1) / l.cluster * l.cluster
}

// load reads the table and finds the clusters that nothing refers to.
func (l *layer) load() error {
	raw := make([]byte, 8*l.clusters())
	if _, err := l.file.ReadAt(raw, headerSize); err != nil {
		return err
	}
	l.table = make([]atomic.Uint64, l.clusters())
	used := map[int64]bool{}
	l.end = l.firstCluster()
	for i := range l.table {
		e := binary.LittleEndian.Uint64(raw[8*i:])
		l.table[i].Store(e)
		used[hostOffset(e)] = true
		l.end = max(l.end, hostOffset(e)+l.cluster)
	}
	for off := l.firstCluster(); off < l.end; off += l.cluster {
		if !used[off] {
			l.free = append(l.free, off)
		}
	}
	return nil
}

func hostOffset(entry uint64) int64 { return int64(entry &^ packedFlag) }

func isData(entry uint64) bool { return entry > zeroEntry && entry&packedFlag == 0 }

func isPacked(entry uint64) bool { return entry > zeroEntry && entry&packedFlag != 0 }

// Size, Backing, Pin and Unpin are of block's interfaces.
func (l *layer) Size() int64 { return l.size }

func (l *layer) Backing() *block.Image { return l.backing }

func (l *layer) Pin() uint32 {
	if l.bug != NoPin {
		l.pins.RLock()
	}
	return 0
}

func (l *layer) Unpin(uint32) {
	if l.bug != NoPin {
		l.pins.RUnlock()
	}
}

// Describe tells the cluster size.
func (l *layer) Describe() (block.Description, error) {
	return block.Description{Format: "tiny", VirtualSize: l.size, ClusterSize: l.cluster}, nil
}
