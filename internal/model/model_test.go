package model_test

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/tiny"
)

func TestRunPasses(t *testing.T) {
	for _, cluster := range []string{"512", "4k", "64k"} {
		t.Run(cluster, func(t *testing.T) {
			model.Run(t, tiny.Format(""), model.Options{Create: map[string]string{"cluster_size": cluster}, Runs: 8})
		})
	}
}

// needNoRace skips a test that the race detector makes slow and has no interest
// in.
func needNoRace(t *testing.T) {
	t.Helper()
	if model.Race {
		t.Skip("no two goroutines")
	}
}

// A run finds each bug that one goroutine can see, and cuts the sequence down to
// the few operations that show it.
func TestRunFindsBugs(t *testing.T) {
	needNoRace(t)
	for bug, most := range map[tiny.Bug]int{
		tiny.LoseHead:     2,
		tiny.LoseTail:     2,
		tiny.StaleReuse:   3,
		tiny.DoubleUse:    3,
		tiny.DiscardBelow: 2,
		tiny.DiscardWide:  2,
		tiny.ZeroWide:     2,
		tiny.ZeroLost:     1,
		tiny.ForgetTable:  1,
		tiny.LongExtent:   3,
		tiny.WrongZero:    2,
		tiny.LeakyCheck:   1,
		tiny.ShortPacked:  1,
	} {
		t.Run(string(bug), func(t *testing.T) {
			t.Parallel()
			failure := tiny.Fails(t, func(t testing.TB) { model.Run(t, tiny.Format(bug), model.Options{}) })
			m := regexp.MustCompile(`cut down to (\d+)`).FindStringSubmatch(failure)
			if m == nil {
				t.Fatalf("not found; the failure is %q", failure)
			}
			if n, _ := strconv.Atoi(m[1]); n > most {
				t.Errorf("%d operations are left, want at most %d:\n%s", n, most, failure)
			}
		})
	}
}

// What a failed run prints fails when it is run again.
func TestPrintedSequenceFailsAgain(t *testing.T) {
	needNoRace(t)
	format := tiny.Format(tiny.StaleReuse)
	failure := tiny.Fails(t, func(t testing.TB) { model.Run(t, format, model.Options{}) })
	_, text, _ := strings.Cut(failure, "`")
	text, _, ok := strings.Cut(text, "`")
	if !ok {
		t.Fatalf("no sequence in %q", failure)
	}
	if f := tiny.Fails(t, func(t testing.TB) { model.Repeat(t, format, model.Options{}, text) }); !strings.Contains(f, "write") {
		t.Errorf("the sequence fails with %q:\n%s", f, text)
	}
	model.Repeat(t, tiny.Format(""), model.Options{}, text)
	for _, want := range []string{"qemu-img create -f tiny", "write -q -P", "open -d unmap"} {
		if !strings.Contains(failure, want) {
			t.Errorf("no %q in %s", want, failure)
		}
	}
}

func TestSequenceText(t *testing.T) {
	s := model.Sequence{Seed: 7, Size: 1 << 20, Base: -1, Cluster: 512, Options: map[string]string{"a": "1", "b": "x=y"}, Ops: []model.Op{
		{ID: 1, Action: "write", Off: 1, Len: 513, Fill: model.Noise},
		{ID: 2, Action: "zero", Off: 4096, Len: 1, Unmap: true},
		{ID: 9, Action: model.Reopen},
		{ID: 12, Action: "grow", Size: 1024},
	}}
	got, err := model.ParseSequence("# a comment\n\n" + s.String())
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, s)
	}
	for _, bad := range []string{"", "1 write", "image size=x", "image what=1", "image size=1\nx write", "image size=1\n1 write len=x", "image size=1\n1"} {
		if _, err := model.ParseSequence(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestConcurrentPasses(t *testing.T) {
	for _, cluster := range []string{"512", "4k"} {
		model.RunConcurrent(t, tiny.Format(""), model.ConcurrentOptions{Create: map[string]string{"cluster_size": cluster}})
	}
}

// Writers that don't wait for each other, or for readers, are found.
func TestConcurrentFindsBugs(t *testing.T) {
	if model.Race {
		t.Skip("the race detector finds these first")
	}
	slow := blocktest.Hook(func(op blocktest.IO, _, n int64) error {
		if n >= 512 && op == blocktest.Read {
			time.Sleep(50 * time.Microsecond)
		}
		return nil
	})
	for _, bug := range []tiny.Bug{tiny.NoLock, tiny.NoPin} {
		failure := tiny.Fails(t, func(t testing.TB) {
			model.RunConcurrent(t, tiny.Format(bug), model.ConcurrentOptions{Wrap: slow.Wrap, Rounds: 30})
		})
		if failure == "" {
			t.Errorf("bug not found: %s", bug)
		}
		t.Logf("%s:\n%.600s", bug, failure)
	}
}
