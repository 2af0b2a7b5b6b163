package blocktest_test

import (
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/tiny"
)

// The suite passes a format that is right, with clusters of all kinds of size.
func TestSuitePasses(t *testing.T) {
	for _, size := range []string{"512", "4k", "64k"} {
		f := tiny.Format("")
		create := f.Create
		f.Create = func(path string, o blocktest.CreateOptions) error {
			o.Options = map[string]string{"cluster_size": size}
			return create(path, o)
		}
		t.Run(size, func(t *testing.T) {
			if model.Race && size == "64k" {
				t.Skip("with other clusters the races are the same and found sooner")
			}
			blocktest.TestImage(t, f)
		})
	}
}

// The suite fails a format that has a bug, in the part that is about it.
func TestSuiteFindsBugs(t *testing.T) {
	for bug, part := range map[tiny.Bug]string{
		tiny.LoseHead:       "Compressed",
		tiny.LoseTail:       "Compressed",
		tiny.StaleReuse:     "Reuse",
		tiny.DoubleUse:      "Reuse",
		tiny.DiscardBelow:   "Backing",
		tiny.DiscardWide:    "Discard",
		tiny.ZeroWide:       "WriteZeroes",
		tiny.ZeroLost:       "Backing",
		tiny.ForgetTable:    "Persistence",
		tiny.LongExtent:     "Unaligned",
		tiny.WrongZero:      "WriteZeroes",
		tiny.NoLock:         "Concurrent",
		tiny.NoPin:          "ReadersAndReuse",
		tiny.IgnoreWrite:    "Faults",
		tiny.IgnoreSync:     "Faults",
		tiny.ForgiveSync:    "FailedSync",
		tiny.WriteReadOnly:  "ReadOnly",
		tiny.AllocatingRead: "Allocations",
		tiny.LeakyCheck:     "Size",
		tiny.ShortPacked:    "Compressed",
	} {
		t.Run(string(bug), func(t *testing.T) {
			tries := 1
			if bug == tiny.NoLock || bug == tiny.NoPin {
				if model.Race {
					t.Skip("the race detector finds this one first")
				}
				tries = 50 // it takes two goroutines that meet
			}
			for range tries {
				if tiny.Fails(t, func(t testing.TB) { blocktest.RunPart(t, part, tiny.Format(bug)) }) != "" {
					return
				}
			}
			t.Errorf("part %s of the suite passes a format with the bug %q", part, bug)
		})
	}
}
