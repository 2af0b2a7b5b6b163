package blocktest

import (
	"errors"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// Format is what the suite has to know of an image format.
type Format struct {
	// Name is what qemu-img calls the format.
	Name string
	// Create makes an image at a path where there is nothing yet.
	Create func(path string, o CreateOptions) error
	// Open opens an image by its path, and what it refers to.
	Open func(path string, o OpenOptions) (*block.Image, error)
	// Backing says that Create heeds CreateOptions.Backing.
	Backing bool
	// MayAllocate says that reading 4 KiB may allocate memory.
	MayAllocate bool
	// Check, if not nil, is one more judgement on a closed image, next to that
	// of the format's own block.Checker: another program's.
	Check func(path string) error
}

// CreateOptions say what image to make.
type CreateOptions struct {
	Size int64
	// Backing is the path of the image below, empty for none. It has the
	// format BackingFormat, empty for the same.
	Backing, BackingFormat string
	// Options are more options, in qemu-img's names. In a value, {path}
	// stands for the path of the image.
	Options map[string]string
	// Wrap, if not nil, goes around each file that is created.
	Wrap func(block.File) block.File
}

// ExpandOptions returns options with {path} replaced by a path.
func ExpandOptions(options map[string]string, path string) map[string]string {
	m := maps.Clone(options)
	for k, v := range m {
		m[k] = strings.ReplaceAll(v, "{path}", path)
	}
	return m
}

// OpenOptions say how to open an image.
type OpenOptions struct {
	Writable bool
	// Wrap, if not nil, goes around each file of the image itself, not around
	// those of its backing image.
	Wrap func(block.File) block.File
}

// TestImage runs the whole suite on a format, each part as a subtest of t.
// After each close the image is opened for reading, its content compared, its
// extents compared with the content, and Check must find it clean. The test t
// must not be a parallel one, because the suite counts memory allocations.
func TestImage(t *testing.T, f Format) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.run(newSuite(t, f)) })
	}
}

// part is one part of the suite. It ends its test by itself where the format
// can't do what it is about.
type part struct {
	name string
	run  func(*suite)
}

var parts = []part{
	{"Size", testSize},
	{"Bounds", testBounds},
	{"EndOfDisk", testEndOfDisk},
	{"ReadOnly", testReadOnly},
	{"Empty", testEmpty},
	{"Closed", testClosed},
	{"Unaligned", testUnaligned},
	{"WholeDisk", testWholeDisk},
	{"Persistence", testPersistence},
	{"WriteZeroes", testWriteZeroes},
	{"Discard", testDiscard},
	{"Compressed", testCompressed},
	{"Reuse", testReuse},
	{"Extents", testExtents},
	{"Backing", testBacking},
	{"BackingSizes", testBackingSizes},
	{"Chain", testChain},
	{"Concurrent", testConcurrent},
	{"ReadersAndReuse", testReadersAndReuse},
	{"Allocations", testAllocations},
	{"Faults", testFaults},
	{"CreateFaults", testCreateFaults},
	{"FailedSync", testFailedSync},
}

// suite is one part at work on one format.
type suite struct {
	testing.TB
	format   Format
	cluster  int64
	compress bool // images take compressed writes
	dir      string
	images   int
}

// defaultCluster is the unit in which requests are laid out for a format that
// has no clusters.
const defaultCluster = 64 << 10

func newSuite(t testing.TB, f Format) *suite {
	t.Helper()
	s := &suite{TB: t, format: f, cluster: defaultCluster, dir: t.TempDir()}
	probe := s.disk(1 << 20)
	if d, ok := block.As[block.Describer](probe.img); ok {
		about, err := d.Describe()
		if err != nil {
			t.Fatalf("describe: %v", err)
		}
		if about.ClusterSize > 0 {
			s.cluster = about.ClusterSize
		}
	}
	probe.close()
	s.compress = s.canCompress()
	return s
}

// canCompress tries: whether an image can depends on its options too.
func (s *suite) canCompress() bool {
	s.Helper()
	d := s.disk(s.cluster)
	err := d.img.WriteCompressed(d.want, 0)
	if err != nil && !errors.Is(err, block.ErrUnsupported) {
		s.Fatalf("compressed write: %v", err)
	}
	d.close()
	return err == nil
}

// path returns a path where there is nothing.
func (s *suite) path() string {
	s.images++
	return filepath.Join(s.dir, "disk"+strconv.Itoa(s.images))
}

// disk makes an image and opens it for writing.
func (s *suite) disk(size int64) *disk {
	s.Helper()
	return s.create(CreateOptions{Size: size}, make([]byte, size))
}

// overlay makes an image on top of a closed one and opens it for writing.
func (s *suite) overlay(base *disk, size int64) *disk {
	s.Helper()
	content := make([]byte, size)
	copy(content, base.want)
	return s.create(CreateOptions{Size: size, Backing: base.path}, content)
}

func (s *suite) create(o CreateOptions, content []byte) *disk {
	s.Helper()
	d := &disk{suite: s, path: s.path(), want: content}
	if err := s.format.Create(d.path, o); err != nil {
		s.Fatalf("create %+v: %v", o, err)
	}
	d.open(true)
	if got := d.img.Size(); got != o.Size {
		s.Fatalf("size is %d, want %d", got, o.Size)
	}
	return d
}
