package qed_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
)

// kinds are images in which the suite for all formats takes other ways.
var kinds = map[string]map[string]string{
	"Cluster4k":  {"cluster_size": "4k", "table_size": "2"},
	"Cluster16k": {"cluster_size": "16k", "table_size": "16"},
	"Table1":     {"cluster_size": "4k", "table_size": "1"},
}

// moreKinds are run where DISKIMG_LONG=1.
var moreKinds = map[string]map[string]string{
	"Default":   nil,
	"Cluster1M": {"cluster_size": "1M"},
	"Cluster8k": {"cluster_size": "8k", "table_size": "8"},
}

// qemuOpens reports whether QEMU 7.2 opens images with these options: it does
// not, if tables have one cluster, though it makes them.
func qemuOpens(options map[string]string) bool { return options["table_size"] != "1" }

// get returns the format; what a test leaves is checked by QEMU too.
func get(t testing.TB, options map[string]string) blocktest.Format {
	f := formats.Get(t, "qed", options)
	if qemuOpens(options) {
		f.Check = func(path string) error {
			_, err := qemu.TryCheck(path, "qed")
			return err
		}
	}
	return f
}

// The suite for every format.
func TestImage(t *testing.T) {
	qemu.Need(t, "qemu-img")
	run := maps.Clone(kinds)
	if model.Long() {
		maps.Copy(run, moreKinds)
	}
	for _, name := range slices.Sorted(maps.Keys(run)) {
		t.Run(name, func(t *testing.T) { blocktest.TestImage(t, get(t, run[name])) })
	}
}

// options are the creation options of QED, with the values that matter.
var options = map[string][]string{
	"cluster_size": {"4k", "16k", "64k", "1M"},
	"table_size":   {"1", "2", "4", "16"},
}

// eachRow runs f with all creation options.
func eachRow(t *testing.T, possible func(map[string]string) bool, f func(testing.TB, blocktest.Format, model.Options)) {
	for _, row := range model.Pairs(options, possible) {
		t.Run(strings.Join([]string{row["cluster_size"], row["table_size"]}, ","), func(t *testing.T) {
			t.Parallel()
			if model.Race && row["cluster_size"] == "1M" {
				t.Skip("with other clusters the races are the same and found sooner")
			}
			format := formats.Get(t, "qed", nil)
			f(t, format, model.Options{Create: row, Runs: 2})
		})
	}
}

func all(map[string]string) bool { return true }

// Random operations, compared with a slice of bytes.
func TestModel(t *testing.T) { eachRow(t, all, model.Run) }

// The same operations done by QEMU on an image of its own; each reads the
// other's.
func TestModelReplay(t *testing.T) { alone(t, model.Replay) }

// One image that QEMU and we work on in turns.
func TestModelRelay(t *testing.T) { alone(t, model.Relay) }

// alone is eachRow for what is no work for the race detector, with what QEMU 7.2
// gets right: a write to a part of a zero cluster brings the rest of the cluster
// back from the backing image there.
func alone(t *testing.T, f func(testing.TB, blocktest.Format, model.Options)) {
	if model.Race {
		t.Skip("no two goroutines")
	}
	eachRow(t, qemuOpens, func(t testing.TB, format blocktest.Format, o model.Options) {
		o.Runs = 1
		o.Actions = slices.DeleteFunc(model.Actions(), func(a model.Action) bool { return a.Name == "zero" })
		f(t, format, o)
		o.Actions, format.Backing = nil, false
		f(t, format, o)
	})
}

// Growing disks, also below the end of a longer backing image.
func TestModelGrow(t *testing.T) {
	for name, row := range kinds {
		t.Run(name, func(t *testing.T) {
			o := model.Options{Create: row, Runs: 4, Actions: append(model.Actions(), model.Grow)}
			f := get(t, row)
			model.Run(t, f, o)
			if f.Backing = false; qemuOpens(row) { // with one, QEMU does not grow images
				model.Replay(t, f, o)
			}
		})
	}
}

func TestModelConcurrent(t *testing.T) {
	for name, row := range kinds {
		t.Run(name, func(t *testing.T) {
			model.RunConcurrent(t, get(t, row), model.ConcurrentOptions{Create: row, Rounds: 4})
		})
	}
}
