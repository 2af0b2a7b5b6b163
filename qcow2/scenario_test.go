package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/drill"
	"github.com/diskimg/diskimg/internal/stamp"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
)

// A scenario is a random sequence of operations on a small image of a random
// kind, with content that tells which operation put it there. The crash and
// fault tests play scenarios and hold what is left against what may be.

const sector = stamp.SectorSize

type scenario struct {
	drill.Drill
	t       *testing.T
	rand    *rand.Rand
	options qcow2.CreateOptions
	backing []byte        // nil without
	policy  memoryBacking // serves it

	kinds []int   // of operations; scenarios differ most in what they leave out
	sizes []int64 // that the disk has had
	leaky bool    // there are leaks, or may be, see ballast
	wary  bool    // writes are checked against the tables of snapshots too
	busy  bool    // the disk has machine state
	snaps []*scenarioSnapshot
}

// scenarioSnapshot is an internal snapshot. made and gone are the numbers of the
// operations that made and deleted it, gone is math.MaxInt if none did.
type scenarioSnapshot struct {
	name       string
	made, gone int
	failed     bool     // making it, or deleting it, returned an error
	ids        []uint32 // what each sector holds
	state      []uint32 // what each sector of the machine's state holds
}

// The machine's state may have stateSectors, which are given numbers that no
// sector of the disk has.
const (
	stateSectors = 24
	stateFirst   = 1 << 20
)

const backingID = 60_000

func newScenario(t *testing.T, seed uint64) *scenario {
	s := &scenario{t: t, rand: rand.New(rand.NewPCG(seed, 0))}
	s.Operation = s.operate
	s.kinds = append(s.rand.Perm(23)[:3+s.rand.IntN(20)], 7, 10)
	s.options = smallOptions(s.rand)
	s.encrypt(seed)
	s.wary = seed%2 == 0
	s.sizes = []int64{s.options.Size}
	if s.options.BackingFile != "" {
		s.backing = make([]byte, s.options.Size-sector)
		if s.rand.IntN(2) == 0 {
			s.backing = make([]byte, s.options.Size+16<<10+sector)
		}
		stamp.Fill(s.backing, 0, backingID)
		s.policy = newMemoryBacking(s.backing)
	}
	below := min(int64(len(s.backing)), s.options.Size) / sector
	s.First = func(at int) uint32 {
		if int64(at) < below {
			return backingID
		}
		return 0
	}
	return s
}

// smallOptions draws small images of all kinds: few clusters, so that
// operations meet.
func smallOptions(r *rand.Rand) qcow2.CreateOptions {
	o := qcow2.CreateOptions{
		ClusterSize:  512 << min(2, r.IntN(5)),
		RefcountBits: 1 << min(6, r.IntN(9)),
		Compression:  qcow2.Compression(r.IntN(2)),
		ExtendedL2:   r.IntN(4) == 0,
	}
	if r.IntN(5) == 0 {
		// The smallest refcount structures; see ballast.
		o.ClusterSize, o.RefcountBits, o.ExtendedL2 = 512, 64, false
	} else if o.ExtendedL2 {
		o.ClusterSize = 16 << 10
	} else if r.IntN(4) == 0 {
		o.Version, o.RefcountBits, o.Compression = 2, 16, qcow2.Zlib
	}
	if r.IntN(3) == 0 {
		o.BackingFile, o.BackingFormat = "base", "raw"
	}
	if o.Version != 2 && r.IntN(5) == 0 {
		o.DataFile = "data"
		o.DataFileRaw = o.BackingFile == "" && r.IntN(2) == 0
	}
	o.LazyRefcounts = o.Version != 2 && r.IntN(4) == 0
	o.Size = o.ClusterSize * int64(8+r.IntN(24))
	if o.ExtendedL2 {
		o.Size = o.ClusterSize * int64(2+r.IntN(6)) // of 32 subclusters each
	}
	if r.IntN(3) == 0 {
		o.Size -= sector
	}
	if !o.ExtendedL2 && r.IntN(4) == 0 {
		o.Size = min(32<<10, o.ClusterSize*o.ClusterSize/8) // all of an L2 table: growing needs a second
	}
	return o
}

// encrypt has one image in four encrypted, few of them with LUKS: its header is
// larger than all the rest.
func (s *scenario) encrypt(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	if s.options.DataFileRaw || r.IntN(4) > 0 {
		return
	}
	s.options.Encryption, s.options.Passphrase = qcow2.AES, passphrase
	if s.options.ClusterSize > 512 && r.IntN(6) == 0 {
		s.options.Encryption = qcow2.LUKS
		s.options.LUKS = qcow2.LUKSOptions{Cipher: "aes-128", Mode: "cbc", IterTime: time.Microsecond}
	}
}

func passphrase() ([]byte, error) { return []byte("a passphrase"), nil }

// ballast counts leaks in an image with clusters of 512 bytes and refcounts of
// 64 bits: almost all that its only refcount block counts, so that a second is
// needed soon, or that its refcount table covers, so that this has to grow.
func (s *scenario) ballast(f block.File) {
	const entries, cluster, table = 64, 512, 512
	if s.options.ClusterSize != cluster || s.options.RefcountBits != 64 {
		return
	}
	s.leaky = true
	put := func(p []byte, off int64) {
		if _, err := f.WriteAt(p, off); err != nil {
			s.t.Error(err)
		}
	}
	one := binary.BigEndian.AppendUint64(nil, 1)
	if s.rand.IntN(2) == 0 {
		put(bytes.Repeat(one, entries-9-s.rand.IntN(16)), 2*cluster+8*8)
		return
	}
	for b := int64(1); b < entries; b++ {
		at := b * entries * cluster
		put(binary.BigEndian.AppendUint64(nil, uint64(at)), table+8*b)
		used := int64(entries)
		if b == entries-1 {
			used = 1 + s.rand.Int64N(entries)
		}
		put(append(bytes.Repeat(one, int(used)), make([]byte, cluster)...)[:cluster], at)
	}
	put(bytes.Repeat(one, entries-8), 2*cluster+8*8)
}

// memoryBacking is a policy that has an image in memory, empty if file is nil, for
// each backing image.
type memoryBacking struct{ file *storage.Memory }

func newMemoryBacking(data []byte) memoryBacking {
	f := storage.NewMemory()
	_, _ = f.WriteAt(data, 0)
	return memoryBacking{f}
}

func (m memoryBacking) OpenImage(block.Ref) (*block.Image, error) {
	if m.file == nil {
		return raw.Open(storage.NewMemory(), nil)
	}
	return raw.Open(m.file.Reopen(), nil)
}

func (m memoryBacking) OpenFile(ref block.Ref) (block.File, error) { return block.Deny{}.OpenFile(ref) }

func (s *scenario) operate() error {
	op := s.place()
	off, n := int64(op.First)*sector, int64(op.End-op.First)*sector
	switch s.kinds[s.rand.IntN(len(s.kinds))] {
	default:
		_, err := s.Img.WriteAt(s.Write(op), off)
		return err
	case 0, 1:
		s.Begin(op)
		return s.Img.WriteZeroes(off, n, block.ZeroFlags(s.rand.IntN(2)))
	case 2, 3:
		s.Begin(op)
		if err := s.Img.Discard(off, n); err != nil {
			return err
		}
		return s.settleDiscard(op)
	case 4, 5, 6:
		return s.compressed(op)
	case 7, 8, 9:
		if err := s.Img.Flush(); err != nil {
			return err
		}
		s.Note(true)
		return nil
	case 10:
		return s.Reopen()
	case 11:
		return s.resize()
	case 12:
		return s.makeEmpty()
	case 16:
		return s.createSnapshot()
	case 17:
		return s.applySnapshot()
	case 18:
		return s.deleteSnapshot()
	case 19, 20:
		return s.amend()
	case 21, 22:
		return s.writeState()
	}
}

// place returns where the next operation goes: often near where an earlier one
// went.
func (s *scenario) place() stamp.Change {
	sectors, cluster := int(s.Img.Size()/sector), int(s.options.ClusterSize/sector)
	op := stamp.Change{First: s.rand.IntN(sectors)}
	if len(s.Changes) > 0 && s.rand.IntN(3) > 0 {
		op.First = min(sectors-1, s.Changes[s.rand.IntN(len(s.Changes))].First%stateFirst)
	}
	op.End = op.First + 1 + s.rand.IntN(min(sectors-op.First, 3*cluster))
	if s.rand.IntN(2) == 0 {
		op.First = op.First / cluster * cluster
		op.End = min(sectors, (op.End+cluster-1)/cluster*cluster)
	}
	return op
}

// compressed writes the clusters that op touches.
func (s *scenario) compressed(op stamp.Change) error {
	if s.options.DataFile != "" || s.options.Encryption != qcow2.NoEncryption {
		return nil
	}
	per := int(s.options.ClusterSize / sector)
	op.First = op.First / per * per
	op.End = min((op.End+per-1)/per*per, int(s.Img.Size()/sector))
	p := s.Write(op)
	if s.rand.IntN(4) == 0 {
		stamp.Noise(p, int64(op.First)*sector, uint32(len(s.Changes)))
	}
	return s.Img.WriteCompressed(p, int64(op.First)*sector)
}

// settleDiscard records which sectors a discard has left alone, each as an
// operation that keeps what is there.
func (s *scenario) settleDiscard(op stamp.Change) error {
	p := make([]byte, (op.End-op.First)*sector)
	if _, err := s.Img.ReadAt(p, int64(op.First)*sector); err != nil {
		return err
	}
	for at := op.First; at < op.End; at++ {
		if id := stamp.Sector(p[(at-op.First)*sector:], int64(at)*sector); id != 0 {
			s.Changes = append(s.Changes, stamp.Change{First: at, End: at + 1, ID: id})
		}
	}
	s.Note(false)
	return nil
}

// resize makes the disk larger or smaller. Where machine state begins would move.
func (s *scenario) resize() error {
	v2 := s.options.Version == 2
	if s.busy || v2 && (len(s.snaps) > 0 || int64(len(s.backing)) > min(s.options.Size, s.Img.Size())) {
		return nil // refused
	}
	old, span := s.Img.Size(), min(s.options.ClusterSize*s.options.ClusterSize/8, 64<<10)
	size := old + (s.rand.Int64N(2*span)-span)/sector*sector
	size = max(sector, min(size, s.options.Size+64<<10))
	if size == old {
		return nil
	}
	s.sizes = append(s.sizes, size)
	o := block.ResizeOptions{Shrink: true}
	if size > old && s.rand.IntN(3) == 0 {
		o.Preallocation = block.Preallocation(s.rand.IntN(4))
	}
	s.Begin(stamp.Change{First: int(min(size, old) / sector), End: int(max(size, old) / sector)})
	resizer, _ := block.As[block.Resizer](s.Img)
	err := resizer.Resize(context.Background(), size, o)
	s.Note(err == nil)
	return err
}

// amend changes version, width of refcounts or lazy refcounts.
func (s *scenario) amend() error {
	on := s.rand.IntN(2) == 0
	o := []qcow2.AmendOptions{
		{Version: 2 + s.rand.IntN(2)}, {Version: 2, RefcountBits: 16}, {Version: 3, RefcountBits: 1 << s.rand.IntN(7)},
		{RefcountBits: 1 << s.rand.IntN(7)}, {Version: 3, LazyRefcounts: &on},
	}[s.rand.IntN(5)]
	s.mark()
	err := qcow2.Amend(context.Background(), s.Img, &o)
	s.leaky = s.leaky || atLimit(err) // as in createSnapshot
	if errors.Is(err, block.ErrUnsupported) || errors.Is(err, block.ErrInvalid) && !errors.Is(err, block.ErrBroken) || atLimit(err) {
		err = nil // it can't be
	}
	return errors.Join(err, s.describe())
}

// describe finds out what an image is now.
func (s *scenario) describe() error {
	describer, _ := block.As[block.Describer](s.Img)
	d, err := describer.Describe()
	if err != nil {
		return err
	}
	for _, f := range d.Specific {
		switch f.Name {
		case "compat":
			s.options.Version = map[any]int{"0.10": 2, "1.1": 3}[f.Value]
		case "refcount-bits":
			s.options.RefcountBits = int(f.Value.(int64))
		}
	}
	return nil
}

// makeEmpty has the disk read as its backing image again.
func (s *scenario) makeEmpty() error {
	if s.options.DataFileRaw {
		return nil
	}
	below := min(len(s.backing), int(s.Img.Size())) / sector
	s.Changes = append(s.Changes, stamp.Change{End: below, ID: backingID}, stamp.Change{First: below, End: int(s.Img.Size() / sector)})
	s.setState(make([]uint32, stateSectors))
	s.Note(false)
	e, _ := block.As[block.Emptier](s.Img)
	if err := e.MakeEmpty(); err != nil {
		return err
	}
	s.busy = false
	s.Note(true)
	return nil
}

// mark begins an operation that changes no sector, and returns its number.
func (s *scenario) mark() int {
	s.Begin(stamp.Change{})
	return len(s.Changes) - 1
}

// createSnapshot keeps the disk as it is, if the image can have snapshots.
func (s *scenario) createSnapshot() error {
	if s.options.DataFile != "" || len(s.snaps) == 8 {
		return nil
	}
	ids, err := stamp.Sectors(s.Img.ReadAt, 0, int(s.Img.Size()/sector))
	if err != nil {
		return err
	}
	state, err := stamp.Sectors(readState(s.Img), stateFirst, stateSectors)
	if err != nil {
		return err
	}
	k := &scenarioSnapshot{name: fmt.Sprintf("snapshot %d", len(s.snaps)), ids: ids, state: state, gone: math.MaxInt}
	record, from := block.Snapshot{Name: k.name}, len(s.Changes)
	if s.busy && s.rand.IntN(3) > 0 {
		record.VMStateSize = stateSectors * sector
		s.setState(make([]uint32, stateSectors))
	}
	k.made = s.mark()
	s.snaps = append(s.snaps, k)
	maker, _ := block.As[block.Snapshotter](s.Img)
	_, err = maker.CreateSnapshot(context.Background(), record, nil)
	if s.narrow() && atLimit(err) {
		k.failed = true // nothing more can be shared
		s.leaky = true  // if the disk fails while what was begun is taken back
		s.Doubt(from)
		return nil
	}
	s.busy = s.busy && (err != nil || record.VMStateSize == 0)
	k.failed = k.failed || err != nil
	s.Note(err == nil)
	return err
}

// narrow reports whether refcounts can come to their limit, where what is to be
// shared is refused.
func (s *scenario) narrow() bool { return s.options.RefcountBits != 0 && s.options.RefcountBits < 8 }

// atLimit reports whether something does not fit into the format, which is no
// failure of the disk.
func atLimit(err error) bool {
	return errors.Is(err, block.ErrNoSpace) && !errors.Is(err, syscall.ENOSPC)
}

// pick returns a snapshot that is there, nil if none is.
func (s *scenario) pick() *scenarioSnapshot {
	var list []*scenarioSnapshot
	for _, k := range s.snaps {
		if !k.failed && k.gone == math.MaxInt {
			list = append(list, k)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.rand.IntN(len(list))]
}

// applySnapshot goes back to a snapshot.
func (s *scenario) applySnapshot() error {
	k := s.pick()
	if k == nil {
		return nil
	}
	from := len(s.Changes)
	for at, id := range k.ids {
		s.Changes = append(s.Changes, stamp.Change{First: at, End: at + 1, ID: id})
	}
	s.setState(k.state)
	s.Note(false)
	maker, _ := block.As[block.Snapshotter](s.Img)
	err := maker.ApplySnapshot(context.Background(), k.name, nil)
	if s.narrow() && atLimit(err) {
		s.Doubt(from)
		return nil
	}
	s.busy = s.busy && err != nil || slices.Max(k.state) > 0
	s.Note(err == nil)
	return err
}

// setState notes what the machine's state is about to be.
func (s *scenario) setState(ids []uint32) {
	for at, id := range ids {
		s.Changes = append(s.Changes, stamp.Change{First: stateFirst + at, End: stateFirst + at + 1, ID: id})
	}
}

// writeState writes machine state, if the image can have any.
func (s *scenario) writeState() error {
	if s.options.DataFile != "" {
		return nil
	}
	at := s.rand.IntN(stateSectors)
	op := stamp.Change{First: stateFirst + at, End: stateFirst + at + 1 + s.rand.IntN(stateSectors-at)}
	s.busy = true
	k, _ := block.As[block.VMStateKeeper](s.Img)
	return k.WriteVMState(s.Write(op), int64(at)*sector)
}

// readState returns what reads the machine's state, at the offset of stateFirst.
func readState(img *block.Image) stamp.Reader {
	k, _ := block.As[block.VMStateKeeper](img)
	return func(p []byte, off int64) (int, error) {
		return len(p), k.ReadVMState(p, off-stateFirst*sector)
	}
}

func (s *scenario) deleteSnapshot() error {
	k := s.pick()
	if k == nil {
		return nil
	}
	k.gone = s.mark()
	maker, _ := block.As[block.Snapshotter](s.Img)
	err := maker.DeleteSnapshot(context.Background(), k.name, nil)
	k.failed = err != nil
	s.Note(err == nil)
	return err
}

// checkSnapshots demands that each snapshot that must be there is, that none is
// that can't be, and that each holds what the disk did when it was made.
func (s *scenario) checkSnapshots(img *block.Image, m *stamp.Moment) error {
	lister, _ := block.As[block.SnapshotLister](img)
	list, err := lister.Snapshots()
	if err != nil {
		return err
	}
	for _, k := range s.snaps {
		there := slices.ContainsFunc(list, func(x block.Snapshot) bool { return x.Name == k.name })
		may := m.Begun > k.made && (k.gone >= m.Safe || k.failed)
		must := m.Safe > k.made && m.Begun <= k.gone && !k.failed
		if there && !may || !there && must {
			return fmt.Errorf("%s is there: %v; made by operation %d, deleted by %d; %d were flushed, %d had begun", k.name, there, k.made, k.gone, m.Safe, m.Begun)
		}
		if there {
			if err := k.check(img); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *scenarioSnapshot) check(img *block.Image) error {
	opener, _ := block.As[block.SnapshotOpener](img)
	view, err := opener.OpenSnapshot(k.name)
	if err != nil {
		return err
	}
	ids, err := stamp.Sectors(view.ReadAt, 0, int(view.Size()/sector))
	if err == nil && !slices.Equal(ids, k.ids) {
		err = fmt.Errorf("%s holds %d, not %d", k.name, ids, k.ids)
	}
	if err == nil {
		if ids, err = stamp.Sectors(readState(view), stateFirst, stateSectors); err == nil && !slices.Equal(ids, k.state) {
			err = fmt.Errorf("%s has the state %d, not %d", k.name, ids, k.state)
		}
	}
	return errors.Join(err, view.Close())
}

// checkContent compares each sector, and each snapshot, with what may be there at
// a moment.
func (s *scenario) checkContent(img *block.Image, m *stamp.Moment) error {
	if !slices.Contains(s.sizes, img.Size()) {
		return fmt.Errorf("the disk has %d bytes, not one of %d", img.Size(), s.sizes)
	}
	err := m.Check(img.ReadAt, 0, int(img.Size()/sector))
	if err == nil {
		err = m.Check(readState(img), stateFirst, stateFirst+stateSectors)
	}
	return errors.Join(err, s.checkSnapshots(img, m))
}

// isDirty reports whether an image was not closed.
func isDirty(img *block.Image) bool {
	d, _ := block.As[block.Describer](img)
	is, err := d.Describe()
	return err == nil && is.Dirty
}

// checkNoCorruption checks an open image; leaks are reported only if they
// count.
func checkNoCorruption(img *block.Image, leaksCount bool) error {
	c, _ := block.As[block.Checker](img)
	res, err := c.Check(context.Background(), block.CheckOptions{})
	if err != nil || res.Corruptions+res.Errors == 0 && (!leaksCount || res.Leaks == 0) {
		return err
	}
	var found []string
	res, err = c.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) {
		if f.Severity != block.Leak || leaksCount {
			found = append(found, f.Text)
		}
	}})
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("check: %+v %q", res, found)
	}
	return err
}
