package blkdebug_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/storage/blkdebug"
)

// play comes past events and does requests, and returns how the requests end: a
// letter for each that succeeds and a digit, of the error, for each that fails.
// Requests are r, w, z, d, f for a read, write … and s for a look where data is,
// all of the first sector; R and W are of the second.
func play(t *testing.T, r *blkdebug.Rules, script string) string {
	t.Helper()
	f := r.Wrap(storage.NewMemory())
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	var out strings.Builder
	for word := range strings.FieldsSeq(script) {
		var err error
		switch word {
		case "r":
			_, err = f.ReadAt(p, 0)
		case "R":
			_, err = f.ReadAt(p, 512)
		case "w":
			_, err = f.WriteAt(p, 0)
		case "W":
			_, err = f.WriteAt(p, 512)
		case "z":
			err = f.WriteZeroes(0, 512)
		case "d":
			err = f.PunchHole(0, 512)
		case "f":
			err = f.Sync()
		case "s":
			_, _, err = f.NextData(0)
		default:
			f.Event(block.Event(word))
			continue
		}
		var errno syscall.Errno
		switch {
		case errors.As(err, &errno):
			out.WriteByte('0' + byte(errno))
		case err != nil:
			t.Fatal(err)
		default:
			out.WriteString(word)
		}
	}
	return out.String()
}

func TestRules(t *testing.T) {
	for _, c := range []struct{ name, rules, script, want string }{
		{"none", "", "r w z d f s l2_load r", "rwzdfsr"},
		{"from the beginning", "inject none", "r w z d f s", "55555s"},
		{"once", "inject none once=on", "r r w", "5rw"},
		{"at an event", "inject l2_load errno=7", "r l2_load r w", "r77"},
		{"an event of no rule ends nothing", "inject l2_load", "l2_load r l1_update r", "55"},
		{"another rule's event", "inject l2_load errno=3, inject l1_update errno=4", "l2_load r l1_update r l2_load r", "343"},
		{"two at one event", "inject l2_load errno=3 once=on, inject l2_load errno=4", "l2_load r r r", "344"},
		{"a kind", "inject none iotype=read", "r w z d f s", "5wzdfs"},
		{"zeros", "inject none iotype=write-zeroes", "r w z d f s", "rw5dfs"},
		{"discard", "inject none iotype=discard", "r w z d f s", "rwz5fs"},
		{"status", "inject none iotype=block-status", "r w z d f s", "rwzdf5"},
		{"a sector", "inject none sector=1", "r R w W f", "r5w5f"},
		{"a flush has no sector", "inject none sector=0", "f r", "f5"},
		{"states", "inject write_aio state=2 errno=6, set l2_load state=1 new_state=2", "write_aio w l2_load write_aio w", "w6"},
		{"back again", "inject write_aio state=2 errno=6, set l2_load state=1 new_state=2, set l2_load state=2 new_state=1",
			"l2_load write_aio w l2_load write_aio w", "66"},
		{"once for each rule", "inject l2_load once=on", "l2_load r l2_load r", "5r"},
	} {
		var config strings.Builder
		for rule := range strings.SplitSeq(c.rules, ", ") {
			writeRule(&config, strings.Fields(rule))
		}
		rules, _, err := blkdebug.Parse([]byte(config.String()), nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := play(t, rules, c.script); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// writeRule writes "inject l2_load errno=7" as a section.
func writeRule(config *strings.Builder, words []string) {
	if len(words) == 0 {
		return
	}
	config.WriteString(map[string]string{"inject": "[inject-error]\n", "set": "[set-state]\n"}[words[0]])
	config.WriteString("event = \"" + words[1] + "\"\n")
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		config.WriteString(key + " = \"" + value + "\"\n")
	}
}

// Rules made in Go: the zero value is EIO for everything.
func TestRulesFromGo(t *testing.T) {
	r := blkdebug.New([]blkdebug.Error{
		{Event: block.EventL2Load, Sector: new(int64(1)), Kinds: blkdebug.Write, Errno: 8},
		{Event: block.EventL1Update},
	}, nil)
	if got := play(t, r, "r l2_load r W R l1_update f"); got != "rr8R5" {
		t.Errorf("requests end with %s", got)
	}
}

// A request that comes past a breakpoint waits until it is told to go on.
func TestBreak(t *testing.T) {
	var mu sync.Mutex
	var said []string
	r := blkdebug.New(nil, nil)
	r.Say = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	}
	f := r.Wrap(storage.NewMemory())
	if err := r.Break("no_such_event", "A"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a breakpoint at no event: %v", err)
	}
	for what, err := range map[string]error{"Resume": r.Resume("A"), "RemoveBreak": r.RemoveBreak("A")} {
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s of nothing: %v", what, err)
		}
	}
	for _, tag := range []string{"A", "B"} {
		if err := r.Break(block.EventWriteAIO, tag); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan bool)
	go func() { f.Event(block.EventWriteAIO); close(done) }()
	r.Wait("A", func() bool { return false })
	f.Event(block.EventWriteAIO) // a breakpoint stops one request only
	if err := r.Resume("A"); err != nil {
		t.Error(err)
	}
	select {
	case <-done:
		t.Error("it went on with one of two breakpoints")
	default:
	}
	if err := r.Resume("B"); err != nil {
		t.Error(err)
	}
	<-done
	if want := []string{"blkdebug: Suspended request 'A'", "blkdebug: Suspended request 'B'", "blkdebug: Resuming request 'A'",
		"blkdebug: Resuming request 'B'"}; !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}

// A file that is closed lets nobody wait, and a breakpoint that is removed lets
// go what it had stopped.
func TestBreakEnds(t *testing.T) {
	for name, end := range map[string]func(*blkdebug.Rules, *blkdebug.File){
		"close":  func(_ *blkdebug.Rules, f *blkdebug.File) { f.Close() },
		"remove": func(r *blkdebug.Rules, _ *blkdebug.File) { r.RemoveBreak("A") },
	} {
		r := blkdebug.New(nil, nil)
		f := r.Wrap(storage.NewMemory())
		if err := r.Break(block.EventFlushToDisk, "A"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- f.Sync() }()
		r.Wait("A", func() bool { return false })
		end(r, f)
		if err := <-done; err != nil && name == "remove" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Wait ends when its caller has had enough.
func TestWaitIsOver(t *testing.T) {
	r := blkdebug.New(nil, nil)
	var over sync.Map
	done := make(chan bool)
	go func() {
		r.Wait("A", func() bool { _, ok := over.Load(0); return ok })
		close(done)
	}()
	over.Store(0, true)
	for {
		r.Wake()
		select {
		case <-done:
			return
		default:
		}
	}
}

// recorded is a file that notes what is asked of it.
type recorded struct {
	*storage.Memory
	list []string
}

func (f *recorded) WriteAt(p []byte, off int64) (int, error) {
	f.list = append(f.list, fmt.Sprintf("write %d+%d", off, len(p)))
	return f.Memory.WriteAt(p, off)
}

func (f *recorded) ReadAt(p []byte, off int64) (int, error) {
	f.list = append(f.list, fmt.Sprintf("read %d+%d", off, len(p)))
	return f.Memory.ReadAt(p, off)
}

func (f *recorded) WriteZeroes(off, n int64) error {
	f.list = append(f.list, fmt.Sprintf("zero %d+%d", off, n))
	return f.Memory.WriteZeroes(off, n)
}

func (f *recorded) PunchHole(off, n int64) error {
	f.list = append(f.list, fmt.Sprintf("punch %d+%d", off, n))
	return f.Memory.PunchHole(off, n)
}

// Limits cut requests, and what is less than a piece is written as zeros.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		limits blkdebug.Limits
		do     func(f *blkdebug.File) error
		want   string
	}{
		{blkdebug.Limits{MaxTransfer: 1024}, func(f *blkdebug.File) error { _, err := f.WriteAt(make([]byte, 2500), 100); return err },
			"write 100+1024, write 1124+1024, write 2148+452"},
		{blkdebug.Limits{MaxTransfer: 2048}, func(f *blkdebug.File) error { _, err := f.ReadAt(make([]byte, 4096), 0); return err },
			"read 0+2048, read 2048+2048"},
		{blkdebug.Limits{WriteZero: 1024, MaxWriteZero: 2048}, func(f *blkdebug.File) error { return f.WriteZeroes(1000, 4200) },
			"write 1000+24, zero 1024+2048, zero 3072+2048, write 5120+80"},
		{blkdebug.Limits{Discard: 4096, MaxDiscard: 4096}, func(f *blkdebug.File) error { return f.PunchHole(4095, 8194) },
			"write 4095+1, punch 4096+4096, punch 8192+4096, write 12288+1"},
		{blkdebug.Limits{Align: 4096}, func(f *blkdebug.File) error { _, err := f.WriteAt(make([]byte, 10), 100); return err }, "write 100+10"},
	} {
		below := &recorded{Memory: storage.NewMemory()}
		if err := below.Truncate(16 << 10); err != nil {
			t.Fatal(err)
		}
		r := blkdebug.New(nil, nil)
		r.Limits = c.limits
		if err := r.Limits.Check(); err != nil {
			t.Fatal(err)
		}
		if err := c.do(r.Wrap(below)); err != nil {
			t.Error(err)
		}
		if got := strings.Join(below.list, ", "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.limits, got, c.want)
		}
	}
}

// A request for less than Align reads and writes all of it, as rules see it.
func TestAlign(t *testing.T) {
	for script, want := range map[string]bool{"none": true, "pwritev_rmw_head": true, "pwritev_rmw_after_tail": true, "pwritev": true} {
		r, _, err := blkdebug.Parse([]byte("[inject-error]\nevent = \""+script+"\"\nsector = \"7\"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Limits.Align = 4096
		_, err = r.Wrap(storage.NewMemory()).WriteAt(make([]byte, 512), 512)
		if (err != nil) != want {
			t.Errorf("rule at %s: %v", script, err)
		}
	}
	r := blkdebug.New([]blkdebug.Error{{Event: block.EventNone, Sector: new(int64(7))}}, nil)
	if _, err := r.Wrap(storage.NewMemory()).WriteAt(make([]byte, 512), 512); err != nil {
		t.Errorf("another sector, with no alignment: %v", err)
	}
}

func TestLimitsThatCannotBe(t *testing.T) {
	for want, l := range map[string]blkdebug.Limits{
		"align 511":              {Align: 511},
		"align 2147483648":       {Align: 1 << 31},
		"max-transfer 1024":      {Align: 4096, MaxTransfer: 1024},
		"opt-write-zero 100":     {Align: 512, WriteZero: 100},
		"max-write-zero 6000":    {WriteZero: 4096, MaxWriteZero: 6000},
		"max-discard 4294967296": {MaxDiscard: 1 << 32},
		"opt-discard -1":         {Discard: -1},
	} {
		if err := l.Check(); err == nil || err.Error() != "Cannot meet constraints with "+want {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
