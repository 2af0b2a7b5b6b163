package qcow2

import (
	"context"
	"encoding/binary"
	"io/fs"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/task"
)

// Snapshots are created, applied and deleted. Each is at every instant wholly
// there or not at all; what a power cut can leave are leaks.

// CreateSnapshot implements block.Snapshotter.
func (d *disk) CreateSnapshot(ctx context.Context, s block.Snapshot, progress func(done, total int64)) (block.Snapshot, error) {
	if err := d.maySnapshot(); err != nil {
		return s, err
	}
	err := d.changeSnapshots(task.New(ctx, progress), "created", func(t *task.Task) ([]uint64, error) { return nil, d.addSnapshot(t, &s) })
	return s, err
}

// changeSnapshots makes a change that returns the L1 table of a tree that is no
// longer needed, and then gives back what has become free. The file ends where it
// did, or where what it holds ends.
func (d *disk) changeSnapshots(t *task.Task, done string, change func(t *task.Task) (dropped []uint64, err error)) error {
	if !d.writable {
		return block.ErrReadOnly
	}
	return d.alone(func() error {
		d.because(bySnapshot)
		defer d.because(byOther)
		end := d.fileEnd
		dropped, err := change(t)
		if err != nil {
			_ = d.giveEndBack(end) // what counts is why there is no change
			return err
		}
		t.Settle()
		if err = d.dropTree(t, dropped); err == nil {
			err = d.giveEndBack(end)
		}
		if err != nil {
			return block.Errorf(err, "the snapshot has been %s, but the space of what it replaces could not be given back: %w", done, err)
		}
		t.Finish()
		return nil
	})
}

// giveEndBack cuts off what lies behind the last cluster in use, but nothing below
// cluster end. Needs an image that is alone.
func (d *disk) giveEndBack(end int64) error {
	if err := d.quiesce(); err != nil {
		return err
	}
	return d.trim(end)
}

// addSnapshot creates a snapshot and fills in what the caller has left to us.
func (d *disk) addSnapshot(t *task.Task, s *block.Snapshot) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	records, oldSize, err := d.readSnapshots(maxSnapshotTable)
	if err != nil {
		return err
	}
	s.DiskSize = d.Size()
	if err := d.complete(s, records); err != nil {
		return err
	}
	return d.createSnapshot(t, s, records, oldSize)
}

// maySnapshot refuses a snapshot more than there may be: before the table of those
// that there are is read.
func (d *disk) maySnapshot() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if n := d.hdr.snapshotCount; n >= maxSnapshots {
		return block.Errorf(block.ErrNoSpace, "the image has %d snapshots, the limit is %d (%w)", n, maxSnapshots, syscall.EFBIG)
	}
	return nil
}

// complete fills in what the caller has left to us, and checks the rest.
func (d *disk) complete(s *block.Snapshot, records []snapshotRecord) error {
	switch {
	case d.external:
		return block.Unsupportedf("an image with an external data file can't have internal snapshots")
	case max(len(s.ID), len(s.Name)) > 1<<16-1:
		return block.Invalidf("the id or name of a snapshot has %d bytes, the limit is %d", max(len(s.ID), len(s.Name)), 1<<16-1)
	}
	if s.ID == "" {
		s.ID = nextID(records)
	}
	for i := range records {
		if records[i].id == s.ID {
			return block.Errorf(fs.ErrExist, "there is a snapshot with the id %q already", s.ID)
		}
	}
	if s.Date.IsZero() {
		s.Date = time.Now()
	}
	return nil
}

// nextID returns the number after the highest id.
func nextID(records []snapshotRecord) string {
	last := uint64(0)
	for i := range records {
		if n, err := strconv.ParseUint(records[i].id, 10, 63); err == nil {
			last = max(last, n)
		}
	}
	return strconv.FormatUint(last+1, 10)
}

func (d *disk) createSnapshot(t *task.Task, s *block.Snapshot, records []snapshotRecord, oldSize int64) error {
	r := newRecord(s)
	table := encodeSnapshots(append(records, r))
	if len(table) > maxSnapshotTable {
		return block.Errorf(block.ErrNoSpace, "snapshot table needs %d bytes, the limit is %d (%w)", len(table), maxSnapshotTable, syscall.EFBIG)
	}
	end := d.sharedL1(s.VMStateSize)
	t.Expect(3 * countTables(d.l1))
	// Before anything is written, a snapshot that can't be is refused.
	if err := d.mayShare(t, d.l1[:end]); err != nil {
		return err
	}
	moves := func(at int, data []byte) (bool, error) {
		if at >= end {
			return false, nil
		}
		return d.anyCopied(data)
	}
	n := d.geo.clusters(int64(len(d.l1)) * 8)
	return d.rewrite(t, 0, []int64{n, d.geo.clusters(int64(len(table)))}, moves, func(c *swap) error {
		l1, state := d.l1[:end], d.l1[end:]
		shared, err := c.share(l1, 2)
		if err != nil {
			return err
		}
		for i, e := range l1 {
			if e&offsetMask != shared[i] {
				c.lose(hostOff(e&offsetMask), d.geo.clusterSize)
			}
		}
		if err := c.setL1(c.home.l1Run, slices.Concat(shared, make([]uint64, len(state)))); err != nil {
			return err
		}
		kept := slices.Concat(shared, state)
		if err := c.writeTable(c.tables[0], kept); err != nil {
			return err
		}
		r.l1Offset, r.l1Size = uint64(c.tables[0].off(&d.geo)), uint32(len(kept))
		return c.setSnapshots(c.tables[1], append(records, r), oldSize)
	})
}

// sharedL1 returns how many entries of the L1 table a snapshot is to share with the
// disk. What the others lead to is the state of a machine, which the snapshot takes
// along: that has no other use, and who had to copy it when the next state is
// written would do so for nothing. It is referred to as often as before.
func (d *disk) sharedL1(size int64) int {
	if size == 0 {
		return len(d.l1)
	}
	return min(len(d.l1), int(d.geo.l1Entries(d.Size())))
}

// setSnapshots writes the snapshot table to a run that was set aside.
func (c *swap) setSnapshots(run hostRun, records []snapshotRecord, oldSize int64) error {
	off := run.off(&c.d.geo)
	if _, err := c.d.file.WriteAt(encodeSnapshots(records), int64(off)); err != nil {
		return err
	}
	c.lose(hostOff(c.hdr.snapshotsOffset), oldSize)
	c.hdr.snapshotsOffset, c.hdr.snapshotCount = uint64(off), uint32(len(records))
	return nil
}

// newRecord makes the record of a snapshot, with all the extra data that is
// known.
func newRecord(s *block.Snapshot) snapshotRecord {
	extra := make([]byte, 0, 24)
	for _, v := range []int64{s.VMStateSize, s.DiskSize, s.ICount} {
		extra = binary.BigEndian.AppendUint64(extra, uint64(v))
	}
	return snapshotRecord{
		id: s.ID, name: s.Name, date: s.Date, clock: s.VMClock,
		vmState: s.VMStateSize, diskSize: s.DiskSize, icount: s.ICount, extra: extra,
	}
}

// encode returns the record as it is on disk, with padding.
func (s *snapshotRecord) encode() []byte {
	be := binary.BigEndian
	b := make([]byte, snapshotFixed, snapshotFixed+len(s.extra)+len(s.id)+len(s.name)+8)
	be.PutUint64(b[0:], s.l1Offset)
	be.PutUint32(b[8:], s.l1Size)
	be.PutUint16(b[12:], uint16(len(s.id)))
	be.PutUint16(b[14:], uint16(len(s.name)))
	be.PutUint32(b[16:], uint32(s.date.Unix()))
	be.PutUint32(b[20:], uint32(s.date.Nanosecond()))
	be.PutUint64(b[24:], uint64(s.clock))
	if s.vmState < 1<<32 {
		be.PutUint32(b[32:], uint32(s.vmState))
	}
	be.PutUint32(b[36:], uint32(len(s.extra)))
	b = append(append(append(b, s.extra...), s.id...), s.name...)
	return append(b, make([]byte, -len(b)&7)...)
}

func encodeSnapshots(records []snapshotRecord) (table []byte) {
	for i := range records {
		table = append(table, records[i].encode()...)
	}
	return table
}

// ApplySnapshot implements block.Snapshotter.
func (d *disk) ApplySnapshot(ctx context.Context, idOrName string, progress func(done, total int64)) error {
	return d.changeSnapshots(task.New(ctx, progress), "applied", func(t *task.Task) ([]uint64, error) { return d.applySnapshot(t, idOrName) })
}

// applySnapshot makes the tree of a snapshot the active one too, and returns the
// L1 table that it replaces.
func (d *disk) applySnapshot(t *task.Task, idOrName string) (old []uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mayApply(); err != nil {
		return nil, err
	}
	records, at, _, err := d.findSnapshot(idOrName)
	if err != nil {
		return nil, err
	}
	s := &records[at]
	view, err := d.viewOf(s)
	if err != nil {
		return nil, err
	}
	old = d.l1
	t.Expect(3*countTables(view.l1) + 2*countTables(old))
	if err := d.mayShare(t, view.l1); err != nil {
		return nil, err
	}
	var tables []int64
	if n := d.geo.clusters(int64(len(view.l1)) * 8); n > d.l1Place().n {
		tables = []int64{n}
	}
	return old, d.rewrite(t, countTables(view.l1), tables, nil, func(c *swap) error {
		shared, err := c.share(view.l1, 1)
		if err != nil {
			return err
		}
		c.hdr.size = uint64(s.diskSize)
		if tables != nil {
			c.lose(c.home.l1Run.off(&d.geo), c.home.l1Run.n<<d.geo.clusterBits)
			return c.setL1(c.tables[0], shared)
		}
		return c.setL1(c.home.l1Run, append(shared, make([]uint64, max(0, len(old)-len(shared)))...))
	})
}

// mayApply refuses to go to a snapshot. Needs mu.
func (d *disk) mayApply() error {
	switch {
	case d.external:
		return block.Unsupportedf("an image with an external data file can't have internal snapshots")
	case len(d.bitmaps.list) > 0:
		// They would have to tell what differs between the two states.
		return block.Invalidf("Device has active dirty bitmaps")
	}
	return nil
}

// DeleteSnapshot implements block.Snapshotter.
func (d *disk) DeleteSnapshot(ctx context.Context, idOrName string, progress func(done, total int64)) error {
	return d.changeSnapshots(task.New(ctx, progress), "deleted", func(t *task.Task) ([]uint64, error) { return d.unlinkSnapshot(t, idOrName) })
}

// unlinkSnapshot takes a snapshot out of the table and returns its L1 table.
// What that leads to keeps its counts.
func (d *disk) unlinkSnapshot(t *task.Task, idOrName string) (l1 []uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	records, at, oldSize, err := d.findSnapshot(idOrName)
	if err != nil {
		return nil, err
	}
	s := records[at]
	if l1, err = d.readL1Of(&s); err != nil {
		return nil, err
	}
	t.Expect(2*countTables(l1) + countTables(d.l1))
	if err := t.Step(0); err != nil {
		return nil, err
	}
	if err := d.writeSnapshots(append(records[:at:at], records[at+1:]...), oldSize); err != nil {
		return nil, err
	}
	if d.inactiveL2 {
		// The L2 tables that it had to itself are nobody's now.
		if err := d.mapMetadata(); err != nil {
			return nil, d.poison(err)
		}
	}
	d.replaced(hostOff(s.l1Offset), int64(len(l1))*8)
	return l1, nil
}

// readL1Of reads the L1 table of a snapshot.
func (d *disk) readL1Of(s *snapshotRecord) ([]uint64, error) {
	if err := d.checkL1(s); err != nil {
		return nil, err
	}
	if !d.validL1(s) {
		return nil, block.Corruptf("snapshot %q: L1 table of %d entries at %#x is not in the file", s.id, s.l1Size, s.l1Offset)
	}
	b := make([]byte, int64(s.l1Size)*8)
	if err := d.readTable("snapshot L1 table", b, hostOff(s.l1Offset)); err != nil {
		return nil, err
	}
	return decodeTable(b), nil
}

// writeSnapshots writes the snapshot table to a new place and has the header
// name it. oldSize is the length of the one before. Needs mu exclusively.
func (d *disk) writeSnapshots(records []snapshotRecord, oldSize int64) error {
	table := encodeSnapshots(records)
	off := hostOff(0)
	if len(records) > 0 {
		n := d.geo.clusters(int64(len(table)))
		run, err := d.alloc(n)
		if err != nil {
			return err
		}
		off = run.off(&d.geo)
		if _, err := d.file.WriteAt(table, int64(off)); err != nil {
			d.unalloc(run)
			return err
		}
		d.claim(metaSnapshots, off, int64(len(table)))
	}
	// Before the header names the new table, it and its counts must be on disk.
	if err := d.writeCounts(); err != nil {
		return err
	}
	field := binary.BigEndian.AppendUint32(nil, uint32(len(records)))
	if err := d.patchHeader(atSnapshots, binary.BigEndian.AppendUint64(field, uint64(off))); err != nil {
		return err
	}
	d.replaced(hostOff(d.hdr.snapshotsOffset), oldSize)
	d.hdr.snapshotCount, d.hdr.snapshotsOffset = uint32(len(records)), uint64(off)
	return nil
}
