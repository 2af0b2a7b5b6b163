package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Mistakes that programs for this format have made, each with what it takes to
// make it. After each the image has to be without fault, leaks included.

// pastMistake is an image with a disk of which all is known.
type pastMistake struct {
	t    *testing.T
	file *storage.Memory
	data *storage.Memory // the external data file
	open qcow2.OpenOptions
	img  *block.Image
	want []byte
}

func TestRegressions(t *testing.T) {
	base := newMemoryBacking(bytes.Repeat([]byte{0xba}, 1<<20))
	for _, c := range []struct {
		name string
		o    qcow2.CreateOptions
		do   func(m *pastMistake)
	}{
		{"space of a write that failed is used twice", qcow2.CreateOptions{ClusterSize: 4096}, failedWrite},
		{"space is used again while its hole is being punched", qcow2.CreateOptions{ClusterSize: 4096}, slowPunching},
		{"an L2 table that has moved is still taken for the old one", qcow2.CreateOptions{ClusterSize: 512}, movedTable},
		{"no space, because refcount blocks are not used again", qcow2.CreateOptions{ClusterSize: 512, RefcountBits: 64}, emptiedAndFilled},
		{"no COPIED flag in the L1 table", qcow2.CreateOptions{ClusterSize: 4096}, flagOfL1},
		{"compatible feature bits are lost", qcow2.CreateOptions{LazyRefcounts: true}, compatibleBits},
		{"a refcount table that is larger than it must be", qcow2.CreateOptions{ClusterSize: 4096}, largeRefcountTable},
		{"the compression type is lost", qcow2.CreateOptions{ClusterSize: 4096, Compression: qcow2.Zstd}, compressionType},
		{"compressed clusters that are written over leak", qcow2.CreateOptions{ClusterSize: 4096}, overCompressed},
		{"refcounts of 1 bit overflow", qcow2.CreateOptions{ClusterSize: 4096, RefcountBits: 1}, oneBit},
		{"the first cluster of a data file counts as unallocated", qcow2.CreateOptions{DataFile: "data", ClusterSize: 4096}, firstOfDataFile},
		{"the first cluster of a raw data file counts as unallocated", qcow2.CreateOptions{DataFile: "data", DataFileRaw: true, ClusterSize: 4096}, firstOfDataFile},
		{"an image with lazy refcounts stays marked as dirty", qcow2.CreateOptions{LazyRefcounts: true, ClusterSize: 4096}, closedLazily},
		{"a discard shows the backing file again", qcow2.CreateOptions{BackingFile: "base", BackingFormat: "raw", ClusterSize: 4096}, discardOfOverlay},
		{"a discard shows the backing file again, version 2", qcow2.CreateOptions{Version: 2, BackingFile: "base", BackingFormat: "raw", ClusterSize: 4096}, discardOfOverlay},
		{"a discard shows the backing file again, subclusters", qcow2.CreateOptions{ExtendedL2: true, BackingFile: "base", BackingFormat: "raw", ClusterSize: 16 << 10}, discardOfOverlay},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &pastMistake{t: t, file: storage.NewMemory(), data: storage.NewMemory(), want: make([]byte, 1<<20)}
			c.o.Size, m.open = 1<<20, qcow2.OpenOptions{Writable: true, Policy: base}
			if c.o.BackingFile != "" {
				m.want = bytes.Repeat([]byte{0xba}, 1<<20)
			}
			if c.o.DataFile != "" {
				c.o.Data = m.data.Reopen()
			}
			must(t, qcow2.Create(m.file.Reopen(), &c.o))
			m.reopen()
			c.do(m)
			m.reopen()
			m.verify()
			must(t, m.img.Close())
		})
	}
}

// reopen closes the image, if it is open, and opens it.
func (m *pastMistake) reopen() {
	m.t.Helper()
	if m.img != nil {
		must(m.t, m.img.Close())
	}
	m.img = m.openOn(m.file.Reopen())
}

func (m *pastMistake) openOn(f block.File) *block.Image {
	m.t.Helper()
	o := m.open
	if size, _ := m.data.Size(); size > 0 {
		o.Data = m.data.Reopen()
	}
	img, err := qcow2.Open(f, &o)
	must(m.t, err)
	return img
}

// verify holds disk and image against what must be.
func (m *pastMistake) verify() {
	m.t.Helper()
	if !bytes.Equal(wholeDisk(m.t, m.img), m.want) {
		m.t.Error("the disk holds something else")
	}
	must(m.t, checkNoCorruption(m.img, true))
}

func (m *pastMistake) write(id byte, off, n int) {
	m.t.Helper()
	p := bytes.Repeat([]byte{id}, n)
	copy(m.want[off:], p)
	_, err := m.img.WriteAt(p, int64(off))
	must(m.t, err)
}

func (m *pastMistake) writeCompressed(id byte, off, n int) {
	m.t.Helper()
	p := bytes.Repeat([]byte{id}, n)
	copy(m.want[off:], p)
	must(m.t, m.img.WriteCompressed(p, int64(off)))
}

func (m *pastMistake) snapshots() block.Snapshotter {
	s, _ := block.As[block.Snapshotter](m.img)
	return s
}

// word reads 8 bytes of the file.
func (m *pastMistake) word(off int64) uint64 {
	var b [8]byte
	must(m.t, block.ReadFull(m.file, b[:], off))
	return binary.BigEndian.Uint64(b[:])
}

func (m *pastMistake) put(off int64, p []byte) {
	_, err := m.file.WriteAt(p, off)
	must(m.t, err)
}

func failedWrite(m *pastMistake) {
	m.write(1, 0, 512)
	for n := 1; n <= 4; n++ { // these are writes of data
		must(m.t, m.img.Close())
		m.img = m.openOn(faultfile.NewPlan(faultfile.Fault{Kind: faultfile.Write, N: n}).Wrap(m.file.Reopen()))
		failed := 0
		for i := range 4 {
			off := (n*8 + i) * 8192
			p := bytes.Repeat([]byte{byte(10*n + i)}, 8192)
			if _, err := m.img.WriteAt(p, int64(off)); err == nil {
				copy(m.want[off:], p)
			} else {
				failed++
			}
		}
		if failed != 1 {
			m.t.Errorf("%d writes failed, want 1", failed)
		}
		must(m.t, m.img.Flush())
	}
}

// slowPuncher takes its time for punching holes, and notices who writes to one
// meanwhile.
type slowPuncher struct {
	*storage.Memory
	mu    sync.Mutex
	holes map[int64]int64 // those being punched: offset and length
	hits  int
}

func (f *slowPuncher) PunchHole(off, n int64) error {
	f.mu.Lock()
	f.holes[off] = n
	f.mu.Unlock()
	time.Sleep(100 * time.Microsecond)
	err := f.Memory.PunchHole(off, n)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.holes, off)
	return err
}

func (f *slowPuncher) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	for start, n := range f.holes {
		if off < start+n && start < off+int64(len(p)) {
			f.hits++
		}
	}
	f.mu.Unlock()
	return f.Memory.WriteAt(p, off)
}

func slowPunching(m *pastMistake) {
	f := &slowPuncher{Memory: m.file.Reopen(), holes: map[int64]int64{}}
	must(m.t, m.img.Close())
	m.img = m.openOn(f)
	var wg sync.WaitGroup
	const part = 1 << 20 / 4
	for i := range 4 {
		wg.Go(func() {
			for round := range 20 {
				p := bytes.Repeat([]byte{byte(16*i + round + 1)}, part)
				_, err := m.img.WriteAt(p, int64(i)*part)
				if round < 19 {
					err = errors.Join(err, m.img.Discard(int64(i)*part, part), m.img.Flush())
				} else {
					copy(m.want[i*part:], p)
				}
				if err != nil {
					m.t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if f.hits > 0 {
		m.t.Errorf("%d writes to space that was being punched", f.hits)
	}
}

func movedTable(m *pastMistake) {
	for i := range 6 {
		m.write(byte(i+1), 0, 300<<10)
		s, err := m.snapshots().CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil)
		must(m.t, err)
		m.write(byte(i+100), 512*i, 512) // its table has to move
		if i%2 == 0 {
			must(m.t, m.img.Flush())
		}
		must(m.t, m.snapshots().DeleteSnapshot(context.Background(), s.ID, nil))
		m.write(byte(i+50), 7, 100)
	}
}

func emptiedAndFilled(m *pastMistake) {
	size, err := m.file.Size()
	must(m.t, err)
	for i := range 4 {
		m.write(byte(i+1), 0, 1<<20)
		e, _ := block.As[block.Emptier](m.img)
		must(m.t, errors.Join(m.img.Flush(), e.MakeEmpty()))
		clear(m.want)
		if i == 0 {
			size, err = m.file.Size()
			must(m.t, err)
		}
	}
	if now, err := m.file.Size(); err != nil || now > size {
		m.t.Errorf("an empty image has grown from %d to %d bytes: %v", size, now, err)
	}
	m.write(9, 0, 1<<20)
}

func flagOfL1(m *pastMistake) {
	l1 := int64(m.word(40))
	copied := func() bool { return m.word(l1)>>63 == 1 }
	m.write(1, 0, 4096)
	must(m.t, m.img.Flush())
	if !copied() {
		m.t.Error("a table of the disk's own has no COPIED flag")
	}
	s, err := m.snapshots().CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil)
	must(m.t, err)
	if l1 = int64(m.word(40)); copied() {
		m.t.Error("a table that a snapshot shares has a COPIED flag")
	}
	must(m.t, m.snapshots().DeleteSnapshot(context.Background(), s.ID, nil))
	if l1 = int64(m.word(40)); !copied() {
		m.t.Error("a table that was shared and is not any more has no COPIED flag")
	}
}

func compatibleBits(m *pastMistake) {
	const at, lazy, unknown = 80, 1, 1 << 40
	must(m.t, m.img.Close())
	m.img = nil
	m.put(at, binary.BigEndian.AppendUint64(nil, lazy|unknown))
	m.reopen()
	m.write(1, 0, 1<<20)
	_, err := m.snapshots().CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil)
	must(m.t, err)
	m.reopen()
	if bits := m.word(at); bits != lazy|unknown {
		m.t.Errorf("compatible features %#x, were %#x", bits, lazy|unknown)
	}
}

func largeRefcountTable(m *pastMistake) {
	m.write(1, 0, 4096)
	must(m.t, m.img.Close())
	m.img = nil
	const cluster, clusters = 4096, 3
	old, size := int64(m.word(48)), int64(0)
	size, err := m.file.Size()
	must(m.t, err)
	size = (size + cluster - 1) / cluster * cluster
	table := make([]byte, clusters*cluster)
	must(m.t, block.ReadFull(m.file, table[:cluster], old))
	m.put(size, table)
	counts := int64(m.word(old))
	for i := range int64(clusters) {
		m.put(counts+2*(size/cluster+i), []byte{0, 1})
	}
	m.put(counts+2*(old/cluster), []byte{0, 0})
	m.put(48, binary.BigEndian.AppendUint64(nil, uint64(size)))
	m.put(56, binary.BigEndian.AppendUint32(nil, clusters))
	m.reopen()
	m.verify()
	m.write(2, 512<<10, 300<<10)
	m.reopen()
	if n := m.word(56) >> 32; n != clusters {
		m.t.Errorf("the refcount table has %d clusters, had %d", n, clusters)
	}
}

func compressionType(m *pastMistake) {
	m.writeCompressed(1, 0, 64<<10)
	m.reopen()
	m.write(2, 512<<10, 4096)
	_, err := m.snapshots().CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil)
	must(m.t, err)
	r, _ := block.As[block.Resizer](m.img)
	must(m.t, r.Resize(context.Background(), 2<<20, block.ResizeOptions{}))
	m.want = append(m.want, make([]byte, 1<<20)...)
	m.reopen()
	m.writeCompressed(3, 256<<10, 64<<10)
	if incompat, kind := m.word(72), m.word(104)>>56; incompat&8 == 0 || kind != 1 {
		m.t.Errorf("incompatible features %#x, compression type %d", incompat, kind)
	}
}

func overCompressed(m *pastMistake) {
	for i := range 5 {
		m.writeCompressed(byte(i+1), 0, 128<<10)
		m.write(byte(i+10), 4096*i, 4096)
		m.write(byte(i+20), 4096*(i+5)+7, 100)
		m.writeCompressed(byte(i+30), 4096*10, 3*4096)
		must(m.t, m.img.WriteZeroes(4096*20, 4096*2, block.MayUnmap))
		clear(m.want[4096*20:][:4096*2])
		must(m.t, m.img.Flush())
	}
}

func oneBit(m *pastMistake) {
	m.write(1, 0, 64<<10)
	m.writeCompressed(2, 128<<10, 64<<10) // many would go into one cluster
	must(m.t, m.img.Flush())
	if _, err := m.snapshots().CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil); !errors.Is(err, block.ErrNoSpace) {
		m.t.Errorf("a snapshot: %v", err)
	}
	m.verify()
	m.write(3, 0, 512)
	m.writeCompressed(4, 132<<10, 8192)
}

func firstOfDataFile(m *pastMistake) {
	m.write(1, 0, 4096)
	m.reopen()
	m.verify()
	e, err := m.img.Locate(0, 4096)
	if err != nil || e.Kind != block.Data || e.Offset != 0 || !e.HasOffset {
		m.t.Errorf("%+v, %v", e, err)
	}
	m.write(2, 100, 5000)
	must(m.t, m.img.WriteZeroes(0, 4096, 0))
	clear(m.want[:4096])
	m.reopen()
	m.verify()
	m.write(3, 7, 700)
	m.reopen()
	m.verify()
	must(m.t, m.img.WriteZeroes(0, 4096, block.MayUnmap))
	clear(m.want[:4096])
}

func closedLazily(m *pastMistake) {
	m.write(1, 0, 1<<20)
	must(m.t, m.img.Flush())
	if m.word(72)&1 == 0 {
		m.t.Error("the image is not marked as dirty while its refcounts are behind")
	}
	m.reopen()
	m.write(2, 0, 4096) // in place: no refcount changes
	must(m.t, m.img.Close())
	m.img = nil
	if m.word(72)&1 != 0 {
		m.t.Error("the image is marked as dirty after it was closed")
	}
}

func discardOfOverlay(m *pastMistake) {
	m.write(1, 0, 256<<10)
	for _, off := range []int64{64 << 10, 512 << 10} { // written before, and not
		must(m.t, m.img.Discard(off, 128<<10))
		got := make([]byte, 128<<10)
		_, err := m.img.ReadAt(got, off)
		must(m.t, err)
		if off < 256<<10 && bytes.Contains(got, []byte{0xba}) {
			m.t.Errorf("what lies below shows at %#x", off)
		}
		copy(m.want[off:], got)
	}
	must(m.t, m.img.WriteZeroes(0, 32<<10, block.MayUnmap))
	clear(m.want[:32<<10])
}

// The length of compressed data takes up more bits of an entry the larger
// clusters are. QEMU reads what we have compressed, whatever its length.
func TestCompressedLengths(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for bits := 9; bits <= 21; bits++ {
		path := filepath.Join(t.TempDir(), "disk")
		f, err := storage.CreateFile(path, nil)
		must(t, err)
		cluster := 1 << bits
		must(t, qcow2.Create(f, &qcow2.CreateOptions{Size: int64(8 * cluster), ClusterSize: int64(cluster)}))
		img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
		must(t, err)
		r := rand.New(rand.NewPCG(uint64(bits), 0))
		p := make([]byte, 8*cluster)
		for i := range p { // each cluster with a larger part that is noise
			if i%cluster < cluster/9*(1+i/cluster) {
				p[i] = byte(r.Uint32())
			}
		}
		must(t, errors.Join(img.WriteCompressed(p, 0), checkNoCorruption(img, true), img.Close()))
		plain, err := storage.CreateFile(path+".raw", nil)
		must(t, err)
		_, err = plain.WriteAt(p, 0)
		must(t, errors.Join(err, plain.Close()))
		qemu.Check(t, path, "qcow2")
		qemu.Compare(t, path, "qcow2", path+".raw", "raw")
		img = openPath(t, path, false)
		if !bytes.Equal(wholeDisk(t, img), p) {
			t.Error(fmt.Sprint("clusters of ", cluster, " bytes read back otherwise"))
		}
		must(t, img.Close())
	}
}
