package model

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
)

var (
	seedFlag = flag.Int64("model.seed", 1, "first seed of the random sequences")
	runsFlag = flag.Int("model.runs", 0, "number of random sequences; 0 leaves it to the test")
	opsFlag  = flag.Int("model.ops", 0, "operations in a random sequence; 0 leaves it to the test")
)

// Long reports whether DISKIMG_LONG=1 asks for large runs.
func Long() bool { return os.Getenv("DISKIMG_LONG") == "1" }

// longFactor is by how much large runs are larger.
const longFactor = 50

// runs returns how many runs there are to be where a test asks for n.
func runs(n int) int {
	switch {
	case *runsFlag > 0:
		return *runsFlag
	case Long():
		return n * longFactor
	}
	return n
}

// Run runs random sequences on images of a format. After each reopening and at
// the end the image must read as the model does, its extents must agree with
// its content, and its check must find nothing.
func Run(t testing.TB, f blocktest.Format, o Options) {
	t.Helper()
	campaign(t, f, o, alone)
}

// alone executes a sequence with our own code.
func alone(s *session) error {
	if err := s.create(); err != nil {
		return err
	}
	for _, ops := range s.segments() {
		if err := s.play(ops); err != nil {
			return err
		}
		if err := s.inspect(); err != nil {
			return err
		}
	}
	return nil
}

// Repeat runs one sequence, as a failed Run has printed it.
func Repeat(t testing.TB, f blocktest.Format, o Options, text string) {
	t.Helper()
	seq, err := ParseSequence(text)
	if err != nil {
		t.Fatal(err)
	}
	o.Create = seq.Options
	p, err := newPlan(f, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.execute(seq, alone); err != nil {
		t.Fatalf("%v\n%s", err, seq)
	}
}

// mode is a way to execute a sequence.
type mode func(*session) error

// campaign executes the sequences of many seeds and reports the first that
// fails.
func campaign(t testing.TB, f blocktest.Format, o Options, m mode) {
	t.Helper()
	p, err := newPlan(f, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.Runs = runs(p.Runs)
	if *opsFlag > 0 {
		p.Ops = *opsFlag
	}
	for i := range int64(p.Runs) {
		seq := p.generate(*seedFlag + i)
		if err := p.execute(seq, m); err != nil {
			t.Fatal(p.report(t, seq, err, m))
		}
	}
}

// execute runs one sequence in a folder that is removed afterwards.
func (p plan) execute(seq Sequence, m mode) error {
	dir, err := os.MkdirTemp(p.dir, "run")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return m(&session{plan: p, dir: dir, seq: seq})
}

// report makes a failed sequence short and says how to see it fail again.
func (p plan) report(t testing.TB, seq Sequence, err error, m mode) string {
	short, shortErr := p.shrink(seq, err, func(s Sequence) error { return p.execute(s, m) })
	return fmt.Sprintf(`%s image: %.500v
The sequence of seed %d (go test -run '%s' -model.seed=%d -model.runs=1) fails.
Its %d operations, cut down to %d, fail with:
%v
As a test:
model.Repeat(t, format, model.Options{}, %s)
For qemu-io, with simpler content:
%s`, p.format.Name, err, seq.Seed, t.Name(), seq.Seed, len(seq.Ops), len(short.Ops), shortErr,
		"`\n"+short.String()+"`", p.script(short))
}
