package qcow2

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/cow"
	"github.com/diskimg/diskimg/internal/deflate"
	"github.com/diskimg/diskimg/internal/inflate"
	"github.com/diskimg/diskimg/internal/zstd"
)

// Compressed clusters. Facts: qcow2 specification, "Compressed Clusters
// Descriptor".

// compressBatch is how many guest bytes are compressed at once, on all cores,
// before they are written in their order.
const compressBatch = 2 << 20

var inflaters = sync.Pool{New: func() any { return new(inflate.Decoder) }}

// codec is the compression type of an image.
type codec uint8

// decompress fills dst, a cluster, from src.
func (c codec) decompress(dst, src []byte) error {
	if c == compressionZstd {
		return zstd.Decode(dst, src)
	}
	in := inflaters.Get().(*inflate.Decoder)
	defer inflaters.Put(in)
	return in.Decode(dst, src)
}

// compress returns how long src is in dst; ok is false if it does not fit.
func (c codec) compress(dst, src []byte) (n int, ok bool) {
	if c == compressionZstd {
		return zstd.Compress(dst, src)
	}
	return deflate.Compress(dst, src)
}

// decodedCluster remembers the cluster that was decoded last for a read of less
// than a cluster, so that reading one in small steps decodes it once.
type decodedCluster struct {
	mu   sync.Mutex
	off  int64 // where its compressed bytes lie
	data *[]byte
	age  uint64 // how often everything was forgotten
}

// copy copies from the cluster at off, if that is the one. It returns the age of c.
func (c *decodedCluster) copy(off int64, p []byte, at int64) (age uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data == nil || c.off != off {
		return c.age, false
	}
	copy(p, (*c.data)[at:])
	return c.age, true
}

// put keeps data, which was read at an age of c, and returns what is not kept any
// more, nil if nothing.
func (c *decodedCluster) put(off int64, data *[]byte, age uint64) *[]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age != c.age {
		return data
	}
	old := c.data
	c.off, c.data = off, data
	return old
}

// forget drops what is kept and what is being read now.
func (c *decodedCluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = nil
	c.age++
}

// ReadSpecial implements block.Layer.
func (d *disk) ReadSpecial(e block.Extent, p []byte, off int64) error {
	if !e.Compressed {
		return d.readEncrypted(e, p, off)
	}
	at := off & (d.geo.clusterSize - 1)
	if at == 0 && int64(len(p)) == d.geo.clusterSize {
		return d.decode(p, e)
	}
	age, ok := d.decoded.copy(e.Offset, p, at)
	if ok {
		return nil
	}
	buf := cow.Buffer(d.geo.clusterSize)
	if err := d.decode(*buf, e); err != nil {
		cow.Release(buf)
		return err
	}
	copy(p, (*buf)[at:])
	// The request is pinned, so the place can't hold anything else before this.
	if old := d.decoded.put(e.Offset, buf, age); old != nil {
		cow.Release(old)
	}
	return nil
}

// decode reads and decodes a compressed cluster. Its length is known to the
// sector only, so the file may end before it does.
func (d *disk) decode(dst []byte, e block.Extent) error {
	buf := cow.Buffer(e.Stored)
	defer cow.Release(buf)
	if err := block.ReadFull(d.file, *buf, e.Offset); err != nil {
		return err
	}
	if err := codec(d.codec.Load()).decompress(dst, *buf); err != nil {
		return block.Corruptf("compressed cluster at %#x for guest offset %#x: %w", e.Offset, d.geo.alignDown(e.Start), err)
	}
	return nil
}

// squeezed is a guest cluster on its way to its place.
type squeezed struct {
	data []byte // what goes into the file
	raw  bool   // it did not shrink
	host hostOff
}

// WriteCompressed implements block.CompressedWriter.
func (d *disk) WriteCompressed(p []byte, off int64) error {
	switch {
	case off&(d.geo.clusterSize-1) != 0:
		return block.Invalidf("compressed writes begin at a multiple of the cluster size %d", d.geo.clusterSize)
	case int64(len(p))&(d.geo.clusterSize-1) != 0 && off+int64(len(p)) != d.Size():
		return block.Invalidf("compressed writes are multiples of the cluster size %d long", d.geo.clusterSize)
	case d.crypt != nil:
		return block.Unsupportedf("Compression and encryption not supported at the same time")
	case d.external:
		return block.Unsupportedf("images with an external data file have no compressed clusters")
	}
	token := d.enter()
	defer d.leave(token)
	if err := d.announceWrite(); err != nil {
		return err
	}
	defer d.markDirty(off, int64(len(p)))
	for len(p) > 0 {
		n := min(int64(len(p)), max(compressBatch, d.geo.clusterSize), d.sliceSpan(guestOff(off)))
		if err := d.writeSqueezed(p[:n], guestOff(off)); err != nil {
			return d.settle(err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeSqueezed writes what one L2 slice describes.
func (d *disk) writeSqueezed(p []byte, off guestOff) error {
	if err := d.relieve(); err != nil {
		return err
	}
	slab := cow.Buffer(d.geo.alignUp(int64(len(p))))
	defer cow.Release(slab)
	list := d.squeeze(p, *slab)

	r := d.ranges.Acquire(int64(off), d.geo.alignUp(int64(len(p))))
	defer d.ranges.Release(r)
	if err := d.placeSqueezed(list, off); err != nil {
		return err
	}
	// Before new data gets to where the remembered cluster may have been, it is
	// forgotten.
	d.decoded.forget()
	err := d.writeRuns(list)
	if err == nil {
		err = d.publishSqueezed(list, off)
	}
	if err != nil {
		d.undoSqueezed(list)
	}
	return err
}

// squeeze compresses the clusters of p into slab, on all cores.
func (d *disk) squeeze(p, slab []byte) []squeezed {
	cs := int(d.geo.clusterSize)
	list := make([]squeezed, d.geo.clusters(int64(len(p))))
	one := func(i int) {
		src, dst := p[i*cs:min(len(p), (i+1)*cs)], slab[i*cs:(i+1)*cs]
		if len(src) < cs { // the disk ends in this cluster
			src = append(make([]byte, 0, cs), src...)[:cs]
		}
		n, ok := codec(d.codec.Load()).compress(dst[:cs-1], src)
		list[i] = squeezed{data: dst[:n], raw: !ok}
		if !ok {
			list[i].data = src
		}
	}
	onAllCores(len(list), one)
	return list
}

// onAllCores calls f for each of [0, n), several at a time.
func onAllCores(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// placeSqueezed finds and counts the space for list. Takes mu.
func (d *disk) placeSqueezed(list []squeezed, off guestOff) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	if err := d.ownTable(off); err != nil {
		return err
	}
	for i := range list {
		host, err := d.placeOne(&list[i])
		if err != nil {
			d.unplace(list[:i])
			return err
		}
		list[i].host = host
	}
	return nil
}

func (d *disk) placeOne(s *squeezed) (hostOff, error) {
	if s.raw {
		run, err := d.alloc(1)
		return run.off(&d.geo), err
	}
	off, err := d.allocBytes(int64(len(s.data)))
	if err != nil {
		return 0, err
	}
	if _, ok := d.geo.compressedDesc(off, int64(len(s.data))); !ok {
		d.unallocBytes(off, int64(len(s.data)))
		return 0, block.Errorf(block.ErrNoSpace, "compressed data at %#x is beyond what an L2 entry can express", int64(off))
	}
	return off, nil
}

func (d *disk) unplace(list []squeezed) {
	for _, s := range list {
		d.unallocBytes(s.host, int64(len(s.data)))
	}
}

// undoSqueezed is unplace after a failed write. Takes mu.
func (d *disk) undoSqueezed(list []squeezed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		d.unplace(list)
	}
}

// writeRuns writes the data of list, what is contiguous at once.
func (d *disk) writeRuns(list []squeezed) error {
	for len(list) > 0 {
		n, size := 1, len(list[0].data)
		for n < len(list) && list[n].host == list[0].host+hostOff(size) {
			size += len(list[n].data)
			n++
		}
		if err := d.writeJoined(list[:n], size); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (d *disk) writeJoined(list []squeezed, size int) error {
	d.event(block.EventWriteCompressed)
	if len(list) == 1 {
		_, err := d.file.WriteAt(list[0].data, int64(list[0].host))
		return err
	}
	buf := cow.Buffer(int64(size))
	defer cow.Release(buf)
	at := 0
	for _, s := range list {
		at += copy((*buf)[at:], s.data)
	}
	_, err := d.file.WriteAt(*buf, int64(list[0].host))
	return err
}

// publishSqueezed links list, which is in the file. Takes mu.
func (d *disk) publishSqueezed(list []squeezed, off guestOff) error {
	for {
		d.mu.Lock()
		b, at, slice, err := d.lookup(off)
		if err == nil && d.broken != nil {
			err = d.broken
		}
		if err == nil && b != nil {
			err = d.mayReplace(b, at, int64(len(list)))
		}
		if err == nil && b != nil {
			for i, s := range list {
				place := at + i<<d.geo.entryBits
				old := d.entryAt(b, place)
				d.setLink(b, place, d.squeezedEntry(s))
				d.releaseEntry(old)
			}
		}
		d.mu.Unlock()
		if b != nil || err != nil {
			return err
		}
		if err := d.loadSlice(slice); err != nil {
			return err
		}
	}
}

func (d *disk) squeezedEntry(s squeezed) l2Entry {
	if !s.raw {
		desc, _ := d.geo.compressedDesc(s.host, int64(len(s.data))) // checked by placeOne
		return l2Entry{desc: desc}
	}
	e := l2Entry{desc: uint64(s.host) | flagCopied}
	if d.geo.extended {
		e.bitmap = allAllocated
	}
	return e
}
