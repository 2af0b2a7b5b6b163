package crashfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/crashfile"
)

func TestFile(t *testing.T) {
	blocktest.TestFile(t, func(t *testing.T) block.File { return crashfile.New() })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f *crashfile.File, off int64, p []byte) {
	t.Helper()
	_, err := f.WriteAt(p, off)
	must(t, err)
}

// content reads all of a file.
func content(t testing.TB, f *crashfile.File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// contents collects the different contents of the first file that the states
// have, at one instant or, with instant -1, at all.
func contents(t testing.TB, g *crashfile.Group, instant int) map[string]bool {
	got := make(map[string]bool)
	for s := range g.States(crashfile.Options{Exhaustive: 12}) {
		if instant < 0 || s.Instant == instant {
			got[string(content(t, s.Files[0]))] = true
		}
	}
	return got
}

// Sectors that are written once each survive in all combinations, and in no
// other state.
func TestIndependentSectors(t *testing.T) {
	for k := range 8 {
		f := crashfile.New()
		must(t, f.Truncate(4096))
		f.Group().Checkpoint()
		for i := range k {
			write(t, f, int64(i*512), fill(byte(i+1), 512))
		}
		got := contents(t, f.Group(), -1)
		if len(got) != 1<<k {
			t.Errorf("%d sectors are found in %d states, want %d", k, len(got), 1<<k)
		}
		for c := range got {
			for i := range 8 {
				sector := []byte(c)[i*512 : (i+1)*512]
				if !bytes.Equal(sector, fill(0, 512)) && !(i < k && bytes.Equal(sector, fill(byte(i+1), 512))) {
					t.Errorf("%d sectors: sector %d holds %x...", k, i, sector[:8])
				}
			}
		}
	}
}

// A sector goes through its states in order: the second change is never there
// without the first.
func TestOneSector(t *testing.T) {
	f := crashfile.New()
	must(t, f.Truncate(512))
	f.Group().Checkpoint()
	write(t, f, 0, []byte{1})
	write(t, f, 8, []byte{1})
	write(t, f, 16, []byte{1})
	f.Mark("so that all states are new at the last instant")
	got := contents(t, f.Group(), 3)
	want := make(map[string]bool)
	p := make([]byte, 512)
	want[string(p)] = true
	for _, at := range []int{0, 8, 16} {
		p[at] = 1
		want[string(p)] = true
	}
	if len(got) != len(want) {
		t.Errorf("%d states, want %d", len(got), len(want))
	}
	for c := range got {
		if !want[c] {
			t.Errorf("state with bytes %d %d %d", c[0], c[8], c[16])
		}
	}
}

// A write within a sector is never torn; one over a border of sectors can be.
func TestTorn(t *testing.T) {
	for _, test := range []struct {
		off, n int
		torn   bool
	}{{0, 512, false}, {100, 8, false}, {508, 8, true}, {0, 1024, true}, {4096 - 4, 8, true}, {0, 16384, true}} {
		f := crashfile.New()
		must(t, f.Truncate(1<<15))
		f.Group().Checkpoint()
		write(t, f, int64(test.off), fill(7, test.n))
		torn, atPages := false, false
		for s := range f.Group().States(crashfile.Options{}) {
			c := content(t, s.Files[0])[test.off : test.off+test.n]
			n := bytes.Count(c, []byte{7})
			torn = torn || n > 0 && n < test.n
			atPages = atPages || n > 0 && n%4096 == 0 && n < test.n
			if border := test.off + n; n > 0 && n < test.n && c[0] == 7 && c[n-1] == 7 && border%512 != 0 {
				t.Errorf("%+v: torn at %d, which is no border of sectors", test, border)
			}
		}
		if torn != test.torn || test.n > 8192 && !atPages {
			t.Errorf("%+v: torn %v, at pages %v", test, torn, atPages)
		}
	}
}

func TestLengths(t *testing.T) {
	f := crashfile.New()
	write(t, f, 0, fill(1, 512))
	must(t, f.Sync())
	f.Group().Checkpoint()
	write(t, f, 512, fill(2, 512))
	write(t, f, 1024, fill(3, 512))
	got := make(map[string]bool)
	for c := range contents(t, f.Group(), -1) {
		short := ""
		for i := 0; i < len(c); i += 512 {
			short += fmt.Sprint(c[i])
		}
		got[short] = true
	}
	// 10 and 100: the length is there, the content is not.
	for _, want := range []string{"1", "12", "123", "103", "100", "120"} {
		if !got[want] {
			t.Errorf("no state %s", want)
		}
		delete(got, want)
	}
	delete(got, "10") // the length as it was after the first write
	if len(got) > 0 {
		t.Errorf("other states: %v", got)
	}
}

func TestTruncate(t *testing.T) {
	f := crashfile.New()
	write(t, f, 0, fill(1, 2048))
	must(t, f.Sync())
	f.Group().Checkpoint()
	must(t, f.Truncate(512))
	if got := contents(t, f.Group(), -1); len(got) != 2 || !got[string(fill(1, 2048))] || !got[string(fill(1, 512))] {
		t.Errorf("%d states after cutting", len(got))
	}
	must(t, f.Truncate(4096))
	write(t, f, 3072, fill(2, 512))
	for c := range contents(t, f.Group(), -1) {
		if len(c) > 2048 && c[512] == 1 {
			t.Errorf("a file of %d bytes shows what was cut off", len(c))
		}
	}
}

func TestZeroPunchReserve(t *testing.T) {
	f := crashfile.New()
	write(t, f, 0, fill(1, 8192))
	must(t, f.Sync())
	f.Group().Checkpoint()
	must(t, f.PunchHole(0, 4096))
	must(t, f.WriteZeroes(8192, 512))
	must(t, f.Reserve(0, 16384))
	whole, punched, long := false, false, false
	for c := range contents(t, f.Group(), -1) {
		whole = whole || c == string(fill(1, 8192))
		punched = punched || c == string(append(fill(0, 4096), fill(1, 4096)...))
		long = long || c == string(append(fill(1, 8192), fill(0, 8192)...))
	}
	if !whole || !punched || !long {
		t.Errorf("untouched %v, punched %v, reserved %v", whole, punched, long)
	}
}

// A Sync makes durable what was done to its own file, nothing else.
func TestSyncIsPerFile(t *testing.T) {
	g := crashfile.NewGroup()
	a, b := g.New(), g.New()
	write(t, a, 0, []byte("a"))
	write(t, b, 0, []byte("b"))
	must(t, b.Sync())
	g.Mark("b is safe")
	lost := false
	for s := range g.States(crashfile.Options{}) {
		if len(s.Files) != 2 {
			t.Fatalf("%d files", len(s.Files))
		}
		if len(s.Marks) == 0 {
			continue
		}
		if string(content(t, s.Files[1])) != "b" {
			t.Errorf("what was synced is lost: %v", s)
		}
		lost = lost || len(content(t, s.Files[0])) == 0
	}
	if !lost {
		t.Error("what was not synced is never lost")
	}
}

// States are those of the model in which each sector holds a version that it
// had since the last sync, for random operations on two files.
func TestStatesAreLegal(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 7))
		g := crashfile.NewGroup()
		m := model{files: []*crashfile.File{g.New(), g.New()}}
		m.snap()
		for range 40 {
			m.step(t, r)
			m.snap()
		}
		var stats crashfile.Stats
		for s := range g.States(crashfile.Options{Seed: seed, Stats: &stats}) {
			for i := range m.files {
				m.check(t, seed, s, i)
			}
		}
		if stats.Distinct < 200 || stats.Instants != 41 {
			t.Errorf("seed %d: %+v", seed, stats)
		}
	}
}

// model is files with all contents they had, and when they were synced.
type model struct {
	files  []*crashfile.File
	past   [][2][]byte // by instant and file
	synced [][2]int    // by instant and file: the instant that is durable
}

const modelSize = 24 << 10

func (m *model) snap() {
	var now [2][]byte
	for i, f := range m.files {
		size, _ := f.Size()
		now[i] = make([]byte, size)
		f.ReadAt(now[i], 0)
	}
	m.past = append(m.past, now)
	if len(m.synced) < len(m.past) {
		var last [2]int
		if n := len(m.synced); n > 0 {
			last = m.synced[n-1]
		}
		m.synced = append(m.synced, last)
	}
}

func (m *model) step(t *testing.T, r *rand.Rand) {
	i := r.IntN(2)
	f := m.files[i]
	off, n := r.Int64N(modelSize), r.Int64N(6000)+1
	switch r.IntN(10) {
	case 0:
		must(t, f.Sync())
		last := m.synced[len(m.synced)-1]
		last[i] = len(m.past)
		m.synced = append(m.synced, last)
	case 1:
		must(t, f.PunchHole(off, n))
	case 2:
		must(t, f.WriteZeroes(off, n))
	case 3:
		must(t, f.Reserve(off, n))
	case 4:
		must(t, f.Truncate(off))
	default:
		write(t, f, off, fill(byte(r.IntN(255)+1), int(n)))
	}
}

func (m *model) check(t *testing.T, seed uint64, s *crashfile.State, i int) {
	got := content(t, s.Files[i])
	from, to := m.synced[s.Instant][i], s.Instant
	for at := 0; at < len(got); at += 512 {
		end := min(at+512, len(got))
		legal := slices.ContainsFunc(m.past[from:to+1], func(c [2][]byte) bool {
			return bytes.Equal(got[at:end], zeroFilled(c[i], at, end))
		})
		if !legal && !m.cutSector(got, at, i, from, to) {
			t.Fatalf("seed %d: file %d of %d bytes: the sector at %#x never held that\n%v", seed, i, len(got), at, s)
		}
	}
	longest, shortest := 0, 1<<30
	for _, c := range m.past[from : to+1] {
		longest, shortest = max(longest, len(c[i])), min(shortest, len(c[i]))
	}
	if len(got) > longest || len(got) < shortest {
		t.Fatalf("seed %d: file %d has %d bytes, want %d to %d\n%v", seed, i, len(got), shortest, longest, s)
	}
}

// cutSector allows for a version of the sector that was cut short, at one of
// the lengths that the file had, before the file became longer again.
func (m *model) cutSector(got []byte, at, i, from, to int) bool {
	sector := got[at:min(at+512, len(got))]
	for _, cut := range m.past[from : to+1] {
		n := len(cut[i]) - at
		if n <= 0 || n >= len(sector) {
			continue
		}
		for _, c := range m.past[from : to+1] {
			want := zeroFilled(c[i], at, at+len(sector))
			clear(want[n:])
			if bytes.Equal(sector, want) {
				return true
			}
		}
	}
	return false
}

// zeroFilled returns [from, to) of p, with zeros behind its end.
func zeroFilled(p []byte, from, to int) []byte {
	out := make([]byte, to-from)
	if from < len(p) {
		copy(out, p[from:])
	}
	return out
}

// journal is a program that keeps a record and a commit block for each
// transaction. Where it does not sync it is broken.
type journal struct {
	f                    *crashfile.File
	syncData, syncCommit bool
}

const recordSize = 2048

func (j journal) commit(t testing.TB, n int) {
	write(t, j.f, int64(512+n*recordSize), fill(byte(n+1), recordSize))
	if j.syncData {
		must(t, j.f.Sync())
	}
	write(t, j.f, 0, binary.BigEndian.AppendUint64(nil, uint64(n+1)))
	if j.syncCommit {
		must(t, j.f.Sync())
	}
	j.f.Mark(n + 1)
}

// recover returns what is wrong with a journal after a crash.
func recoverJournal(t testing.TB, s *crashfile.State) error {
	p := content(t, s.Files[0])
	committed := 0
	if len(p) >= 8 {
		committed = int(binary.BigEndian.Uint64(p))
	}
	if n := len(s.Marks); n > 0 && committed < s.Marks[n-1].(int) {
		return fmt.Errorf("%d were acknowledged, %d are there", s.Marks[n-1], committed)
	}
	for n := range committed {
		at := 512 + n*recordSize
		if len(p) < at+recordSize || !bytes.Equal(p[at:at+recordSize], fill(byte(n+1), recordSize)) {
			return fmt.Errorf("record %d is committed and not there", n)
		}
	}
	return nil
}

// The enumerator finds each missing sync, and nothing where none is missing.
func TestJournal(t *testing.T) {
	for _, test := range []struct{ syncData, syncCommit, ok bool }{
		{true, true, true}, {false, true, false}, {true, false, false}, {false, false, false},
	} {
		for _, o := range []crashfile.Options{{}, {Exhaustive: -1}, {Seed: 5, Instants: 15}} {
			f := crashfile.New()
			for n := range 6 {
				journal{f, test.syncData, test.syncCommit}.commit(t, n)
			}
			found := error(nil)
			states := 0
			for s := range f.Group().States(o) {
				states++
				if err := recoverJournal(t, s); err != nil {
					found = errors.Join(err, errors.New(s.String()))
					break
				}
			}
			if (found == nil) != test.ok {
				t.Errorf("%+v, %+v: after %d states: %v", test, o, states, found)
			}
		}
	}
}

// States can crash again while they are being used.
func TestCrashAgain(t *testing.T) {
	f := crashfile.New()
	write(t, f, 0, fill(1, 512))
	must(t, f.Sync())
	f.Group().Checkpoint()
	write(t, f, 512, fill(2, 512))
	for s := range f.Group().States(crashfile.Options{}) {
		first := content(t, s.Files[0])
		write(t, s.Files[0], 0, fill(9, 512))
		old, changed := false, false
		for again := range s.Group().States(crashfile.Options{}) {
			got := content(t, again.Files[0])
			old = old || bytes.Equal(got, first)
			changed = changed || got[0] == 9 && bytes.Equal(got[512:], first[512:])
		}
		if !old || !changed {
			t.Errorf("after the second crash: as after the first %v, changed %v", old, changed)
		}
	}
	if got := content(t, f); got[0] != 1 || got[512] != 2 {
		t.Error("using the states has changed the file")
	}
}

func TestSameSeedSameStates(t *testing.T) {
	f := crashfile.New()
	for i := range 20 {
		write(t, f, int64(i*700), fill(byte(i+1), 3000))
	}
	list := func(seed uint64) (l []string) {
		for s := range f.Group().States(crashfile.Options{Seed: seed}) {
			l = append(l, s.String())
		}
		return l
	}
	if a, b := list(1), list(1); !slices.Equal(a, b) {
		t.Errorf("%d and %d states, not the same", len(a), len(b))
	}
	if slices.Equal(list(1), list(2)) {
		t.Error("the seed changes nothing")
	}
}

func TestLog(t *testing.T) {
	f := crashfile.New()
	write(t, f, 1000, []byte("some data"))
	must(t, f.Truncate(5000))
	must(t, f.Sync())
	f.Mark("x")
	log := f.Group().Log()
	if len(log) != 3 || string(log[0].Data()) != "some data" || log[0].Off != 1000 || log[0].Size != 1009 {
		t.Errorf("log %v", log)
	}
	if want := "0: write file 0 [0x3e8, 0x3f1) 1: truncate file 0 to 0x1388 2: sync file 0"; fmt.Sprint(log) != "["+want+"]" {
		t.Errorf("log %v, want %s", log, want)
	}
	var last *crashfile.State
	for last = range f.Group().States(crashfile.Options{}) {
	}
	if last.Instant != 3 || last.Durable != 3 || len(last.Marks) != 1 || last.Marks[0] != "x" {
		t.Errorf("last state %+v", last)
	}
}

// 100,000 states a minute are the least that is wanted, of an image of 4 MiB.
func BenchmarkStates(b *testing.B) {
	f := crashfile.New()
	r := rand.New(rand.NewPCG(1, 1))
	write(b, f, 0, fill(1, 4<<20))
	must(b, f.Sync())
	f.Group().Checkpoint()
	for i := range 200 {
		write(b, f, r.Int64N(4<<20), fill(byte(i), 1+r.IntN(1<<16)))
		if i%20 == 19 {
			must(b, f.Sync())
		}
	}
	b.ResetTimer()
	states := 0
	p := make([]byte, 4096)
	for states < b.N {
		for s := range f.Group().States(crashfile.Options{Seed: uint64(states)}) {
			s.Files[0].ReadAt(p, 0)
			if states++; states == b.N {
				break
			}
		}
	}
}
