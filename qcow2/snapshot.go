package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/diskimg/diskimg/block"
)

// The snapshot table. Facts: qcow2 specification, "Snapshots".

const (
	snapshotFixed     = 40
	maxSnapshotTable  = 64 << 20
	maxSnapshotExtra  = 1024
	extraVMStateSize  = 0
	extraDiskSize     = 8
	extraICount       = 16
	minSnapshotRecord = snapshotFixed
)

// snapshotRecord is an entry of the snapshot table.
type snapshotRecord struct {
	l1Offset uint64
	l1Size   uint32
	id, name string
	date     time.Time
	clock    time.Duration
	vmState  int64
	diskSize int64
	icount   int64
	extra    []byte
}

// snapshotTable is what has been read of the snapshot table.
type snapshotTable struct {
	records []snapshotRecord
	size    int64          // of the table in the file, in bytes
	over    uint32         // records that were left out, because there are too many
	excess  map[int]uint32 // how much extra data a record has, of those that have too much
}

// readSnapshots returns the records and the length of their table, which must
// not be above limit. It checks what can be checked without following them;
// their L1 tables are looked at when they are used.
func (d *disk) readSnapshots(limit int64) ([]snapshotRecord, int64, error) {
	t, err := d.scanSnapshots(limit, d.repairOnly)
	return t.records, t.size, err
}

// scanSnapshots is readSnapshots. To mend the table, it leaves out what is too much
// of it.
func (d *disk) scanSnapshots(limit int64, mend bool) (snapshotTable, error) {
	mend = mend && d.repairOnly
	t := snapshotTable{excess: map[int]uint32{}}
	count := d.hdr.snapshotCount
	if mend && count > maxSnapshots {
		t.over, count = count-maxSnapshots, maxSnapshots
	}
	for i := range count {
		s, n, extra, err := d.readSnapshot(int64(d.hdr.snapshotsOffset)+t.size, mend)
		switch {
		case err != nil:
			return snapshotTable{}, fmt.Errorf("snapshot table entry %d: %w", i, err)
		case extra > maxSnapshotExtra && !mend:
			return snapshotTable{}, block.Detailf(block.ErrCorrupt, fmt.Sprintf("Too much extra metadata in snapshot table entry %d", i),
				"%d bytes, the limit is %d (%w)", extra, maxSnapshotExtra, syscall.EFBIG)
		case extra > maxSnapshotExtra:
			t.excess[int(i)] = extra
		}
		if t.size+n > limit && mend {
			t.over += count - i
			break
		} else if t.size+n > limit {
			return snapshotTable{}, block.Unsupportedf("snapshot table is too large: more than %d bytes", limit)
		}
		t.size += n
		t.records = append(t.records, s)
	}
	return t, nil
}

// readSnapshot reads one record; n is its length with padding, extra how much extra
// data it has. What is too much of that is passed over to mend the table; else
// nothing is read.
func (d *disk) readSnapshot(off int64, mend bool) (s snapshotRecord, n int64, extra uint32, err error) {
	var fixed [snapshotFixed]byte
	if err := d.readTable("snapshot table", fixed[:], hostOff(off)); err != nil {
		return s, 0, 0, err
	}
	be := binary.BigEndian
	extra = be.Uint32(fixed[36:])
	if extra > maxSnapshotExtra && !mend {
		return s, 0, extra, nil // which the caller refuses
	}
	kept := min(extra, maxSnapshotExtra)
	idLen, nameLen := int(be.Uint16(fixed[12:])), int(be.Uint16(fixed[14:]))
	rest := make([]byte, int(kept)+idLen+nameLen)
	err = d.readTable("snapshot table", rest[:kept], hostOff(off+snapshotFixed))
	if err == nil {
		err = d.readTable("snapshot table", rest[kept:], hostOff(off+snapshotFixed+int64(extra)))
	}
	if err != nil {
		return s, 0, 0, err
	}
	s = snapshotRecord{
		l1Offset: be.Uint64(fixed[0:]),
		l1Size:   be.Uint32(fixed[8:]),
		date:     time.Unix(int64(be.Uint32(fixed[16:])), int64(be.Uint32(fixed[20:]))),
		clock:    time.Duration(be.Uint64(fixed[24:])),
		vmState:  int64(be.Uint32(fixed[32:])),
		diskSize: d.Size(),
		icount:   -1,
		extra:    rest[:kept],
		id:       text(rest[kept:][:idLen]),
		name:     text(rest[int(kept)+idLen:]),
	}
	s.readExtra()
	return s, (snapshotFixed + int64(extra) + int64(idLen+nameLen) + 7) &^ 7, extra, nil
}

// text is what names hold up to their first zero byte, which QEMU ends them at.
func text(name []byte) string {
	name, _, _ = bytes.Cut(name, []byte{0})
	return string(name)
}

// validL1 reports whether the L1 table of a snapshot is in the file, where and
// as long as it may be.
func (d *disk) validL1(s *snapshotRecord) bool {
	return d.checkL1(s) == nil && d.inFile("snapshot L1 table", s.l1Offset, int64(s.l1Size)*8) == nil
}

func (s *snapshotRecord) readExtra() {
	field := func(at int, v *int64) {
		if len(s.extra) >= at+8 {
			*v = int64(binary.BigEndian.Uint64(s.extra[at:]))
		}
	}
	field(extraVMStateSize, &s.vmState)
	field(extraDiskSize, &s.diskSize)
	field(extraICount, &s.icount)
}

// Snapshots implements block.SnapshotLister.
func (d *disk) Snapshots() ([]block.Snapshot, error) { return d.listSnapshots(maxSnapshotTable) }

func (d *disk) listSnapshots(limit int64) ([]block.Snapshot, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	records, _, err := d.readSnapshots(limit)
	if err != nil {
		return nil, err
	}
	list := make([]block.Snapshot, len(records))
	for i, r := range records {
		list[i] = block.Snapshot{
			ID: r.id, Name: r.name, Date: r.date, VMClock: r.clock,
			VMStateSize: r.vmState, DiskSize: r.diskSize, ICount: r.icount,
		}
	}
	return list, nil
}

// OpenSnapshot implements block.SnapshotOpener.
func (d *disk) OpenSnapshot(idOrName string) (*block.Image, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	records, at, _, err := d.findSnapshot(idOrName)
	if err != nil {
		return nil, err
	}
	view, err := d.viewOf(&records[at])
	if err != nil {
		return nil, err
	}
	return block.NewImage(view, block.ImageOptions{Path: d.path, Format: "qcow2"}), nil
}

// findSnapshot reads the snapshot table, which is size bytes long, and returns the
// index of the record with that id or, failing that, of the only one with that name.
// Needs mu.
func (d *disk) findSnapshot(idOrName string) (records []snapshotRecord, at int, size int64, err error) {
	if records, size, err = d.readSnapshots(maxSnapshotTable); err == nil {
		at, err = findRecord(records, idOrName)
	}
	return records, at, size, err
}

func findRecord(records []snapshotRecord, idOrName string) (int, error) {
	for i := range records {
		if records[i].id == idOrName {
			return i, nil
		}
	}
	found := -1
	for i := range records {
		if records[i].name != idOrName {
			continue
		}
		if found >= 0 {
			return 0, block.Invalidf("the name %q is ambiguous: the snapshots with the ids %q and %q have it", idOrName, records[found].id, records[i].id)
		}
		found = i
	}
	if found < 0 {
		return 0, block.Errorf(fs.ErrNotExist, "Can't find snapshot %q", idOrName)
	}
	return found, nil
}

// snapshotView is a disk as a snapshot has kept it. It shares the files of the
// disk that it belongs to.
type snapshotView struct{ *disk }

// Close implements block.Layer; the files stay open.
func (snapshotView) Close() error { return nil }

// Invalidate implements block.Invalidator: a snapshot goes with its disk.
func (snapshotView) Invalidate() error {
	return block.Unsupportedf("a snapshot has to be opened anew when its disk has been invalidated")
}

// checkL1 finds out whether the L1 table of a snapshot can be where, and as long as,
// its record says. The error wraps the number that QEMU has for it.
func (d *disk) checkL1(s *snapshotRecord) error {
	switch {
	case s.l1Size > maxL1Bytes/8:
		return block.Detailf(block.ErrCorrupt, "Snapshot L1 table too large", "that of snapshot %q has %d entries, the limit is %d (%w)", s.id, s.l1Size, maxL1Bytes/8, syscall.EFBIG)
	case s.l1Offset&uint64(d.geo.clusterSize-1) != 0 || s.l1Offset >= maxHostOffset:
		return block.Detailf(block.ErrCorrupt, "Snapshot L1 table offset invalid", "that of snapshot %q is %#x (%w)", s.id, s.l1Offset, syscall.EINVAL)
	}
	return nil
}

// viewOf returns a read-only disk with the L1 table of a snapshot.
func (d *disk) viewOf(s *snapshotRecord) (snapshotView, error) {
	if err := d.checkL1(s); err != nil {
		return snapshotView{}, err
	}
	v, err := d.openView(s)
	if err != nil {
		err = block.Corruptf("snapshot %q: %w", s.id, err)
	}
	return v, err
}

func (d *disk) openView(s *snapshotRecord) (snapshotView, error) {
	h := *d.hdr
	h.l1Size, h.l1Offset, h.size = s.l1Size, s.l1Offset, uint64(s.diskSize)
	h.autoclear &^= autoclearBitmaps // bitmaps are of the disk as it is now
	if err := h.validate(); err != nil {
		return snapshotView{}, err
	}
	v := newDisk(d.file, &h, &OpenOptions{Path: d.path})
	v.data, v.backing, v.sparse, v.crypt = d.data, d.backing, d.sparse, d.crypt
	return snapshotView{v}, v.loadL1()
}
