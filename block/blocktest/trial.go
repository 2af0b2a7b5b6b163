package blocktest

import (
	"bytes"
	"errors"
	"slices"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/stamp"
)

// trial is a disk that faults happen to. For each sector it knows the writes
// of which it may show the content: live while the image is open and after it
// was closed well, stale after it was not. Zero stands for zeros.
type trial struct {
	*disk
	fault  fault
	live   [][]uint32
	stale  [][]uint32
	errs   []error
	broken bool // an error was ErrBroken
}

// step is one request of a trial; all are whole sectors.
type step struct {
	what   string
	off, n int64
	flags  block.ZeroFlags
}

func (t *trial) steps() []step {
	c := t.cluster
	h := (c / 2) / 512 * 512
	return []step{
		{what: "write", off: h, n: c},
		{what: "flush"},
		{what: "write", off: 512, n: 512},
		{what: "zero", off: c, n: c, flags: block.MayUnmap},
		{what: "discard", off: 0, n: c},
		{what: "write", off: 3 * c, n: 2 * c},
		{what: "flush"},
		{what: "compress", off: 5 * c, n: c},
		{what: "write", off: 2*c + h, n: c},
		{what: "zero", off: 3*c + h, n: c},
		{what: "write", off: 5*c + h, n: 512},
		{what: "flush"},
		{what: "discard", off: c, n: 3 * c},
		{what: "write", off: 0, n: 3 * c},
	}
}

// newTrial makes the image of a trial: closed, with zeros but for one cluster.
func (s *suite) newTrial(f fault) *trial {
	s.Helper()
	t := &trial{disk: s.disk(6*s.cluster + 512), fault: f}
	t.write(s.cluster, s.cluster)
	t.live = make([][]uint32, t.size()/512)
	for sector := range t.live {
		t.live[sector] = []uint32{0}
		if off := int64(sector) * 512; off >= s.cluster && off < 2*s.cluster {
			t.live[sector] = []uint32{t.id}
		}
	}
	if err := t.img.Close(); err != nil {
		s.Fatal(err)
	}
	t.img = nil
	t.flushed()
	return t
}

// do runs one step and notes what the disk may hold then.
func (t *trial) do(s step) {
	t.Helper()
	var err error
	var id uint32 // what the range holds afterwards
	switch s.what {
	case "flush":
		if err = t.img.Flush(); err == nil {
			t.flushed()
		}
	case "zero":
		err = t.img.WriteZeroes(s.off, s.n, s.flags)
	case "discard":
		err = t.img.Discard(s.off, s.n)
	case "compress":
		if !t.suite.compress {
			return
		}
		p := t.fill(s.off, s.n)
		id, err = t.id, t.img.WriteCompressed(p, s.off)
	default:
		p := t.fill(s.off, s.n)
		id = t.id
		_, err = t.img.WriteAt(p, s.off)
	}
	switch {
	case !t.broken:
		t.note(s, id, err == nil && s.what != "discard")
	case !errors.Is(err, block.ErrBroken):
		t.fatalf("%s on a broken image: error is %v", s.what, err)
	}
	if err != nil {
		t.failed(err)
		t.look()
	}
}

// note adds id to what each sector of the step's range may hold; sure says that
// it holds nothing else.
func (t *trial) note(s step, id uint32, sure bool) {
	for sector := s.off / 512; sector < (s.off+s.n)/512; sector++ {
		if sure {
			t.live[sector] = nil
		}
		t.live[sector] = add(t.live[sector], id)
		t.stale[sector] = add(t.stale[sector], id)
	}
}

func add(set []uint32, id uint32) []uint32 {
	if slices.Contains(set, id) {
		return set
	}
	return append(slices.Clip(set), id)
}

// flushed forgets what cannot come back any more.
func (t *trial) flushed() { t.stale = slices.Clone(t.live) }

// finish notes how the image was closed.
func (t *trial) finish(err error) {
	t.Helper()
	switch {
	case err != nil:
		t.failed(err)
	case t.broken:
		t.fatalf("a broken image is closed without an error")
	default:
		t.flushed()
	}
}

// failed notes an error, which must be the injected one or its consequence.
func (t *trial) failed(err error) {
	t.Helper()
	t.errs = append(t.errs, err)
	broken := errors.Is(err, block.ErrBroken)
	if !broken && !errors.Is(err, t.fault.Err) || !t.fault.happened() {
		t.fatalf("error is %v", err)
	}
	t.broken = t.broken || broken
}

// look reads the disk while it is open, when the fault is over.
func (t *trial) look() {
	t.Helper()
	if t.fault.happened() && !t.fault.Sticky {
		t.compare(t.live)
	}
}

// judge looks at what the trial has left.
func (t *trial) judge() {
	t.Helper()
	happened := t.fault.happened()
	if happened && len(t.errs) == 0 && !optional[t.fault.Kind] {
		t.fatalf("no error came back")
	}
	if happened && t.fault.Kind == faultfile.Sync && !t.broken {
		t.fatalf("the image is not broken after a failed sync; errors: %v", t.errs)
	}
	t.open(false)
	t.check(!happened)
	t.compare(t.stale)
	t.want = t.read(0, t.size())
	t.verifyExtents()
	if err := t.img.Close(); err != nil {
		t.fatalf("close: %v", err)
	}
	t.useAgain()
}

// useAgain demands that the image can be written once the fault is gone.
func (t *trial) useAgain() {
	t.Helper()
	t.open(true)
	t.write(0, t.size())
	t.verify()
	if err := t.img.Close(); err != nil {
		t.fatalf("close: %v", err)
	}
	t.open(false)
	t.verify()
	t.check(!t.fault.happened())
	if err := t.img.Close(); err != nil {
		t.fatalf("close: %v", err)
	}
}

// compare demands that each sector shows the content of a write that may be there.
func (t *trial) compare(may [][]uint32) {
	t.Helper()
	p := t.read(0, t.size())
	want := make([]byte, 512)
	for sector, ids := range may {
		off := int64(sector) * 512
		got := p[off : off+512]
		if !slices.ContainsFunc(ids, func(id uint32) bool {
			clear(want)
			if id > 0 {
				stamp.Fill(want, off, id)
			}
			return bytes.Equal(got, want)
		}) {
			t.fatalf("sector at %#x may hold writes %v: %s", off, ids, stamp.Diff(got, want, off))
		}
	}
}

func (t *trial) fatalf(format string, args ...any) {
	t.Helper()
	t.Fatalf("%v: "+format, append([]any{t.fault.Fault}, args...)...)
}
