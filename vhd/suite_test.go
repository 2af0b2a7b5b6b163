package vhd_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
)

// kinds are images in which the suite for all formats takes other ways.
var kinds = map[string]map[string]string{
	"Fixed":   {"force_size": "on", "subformat": "fixed"},
	"Dynamic": {"force_size": "on", "block_size": "16k"},
	"Block2M": {"force_size": "on"},
}

// format returns the row of VHD with options. Overlays are differencing disks.
func format(t testing.TB, options map[string]string) blocktest.Format {
	f := formats.Get(t, "vpc", options)
	f.Backing = options["subformat"] != "fixed"
	return f
}

// The suite for every format. Where QEMU can, it reads what each test leaves.
func TestImage(t *testing.T) {
	qemu.Need(t, "qemu-img")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(name, func(t *testing.T) { blocktest.TestImage(t, format(t, kinds[name])) })
	}
}

// Random operations, compared with a slice of bytes.
func TestModel(t *testing.T) {
	for _, row := range model.Pairs(map[string][]string{
		"subformat": {"fixed", "dynamic"}, "block_size": {"4k", "64k", "2M"}, "force_size": {"on"},
	}, nil) {
		t.Run(row["subformat"]+row["block_size"], func(t *testing.T) {
			t.Parallel()
			model.Run(t, format(t, row), model.Options{Create: row, Runs: 4, Actions: append(model.Actions(), model.Grow, model.Shrink)})
		})
	}
}

// What QEMU can make, without backing files.
var shared = map[string]map[string]string{
	"fixed": {"force_size": "on", "subformat": "fixed"}, "dynamic": {"force_size": "on", "subformat": "dynamic"},
}

func eachShared(t *testing.T, f func(testing.TB, blocktest.Format, model.Options)) {
	if model.Race {
		t.Skip("no two goroutines")
	}
	for name, row := range shared {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alone := format(t, row)
			alone.Backing = false
			f(t, alone, model.Options{Create: row, Runs: 5, MaxSize: 16 << 20})
		})
	}
}

// The same operations done by QEMU on an image of its own; each reads the
// other's.
func TestModelReplay(t *testing.T) { eachShared(t, model.Replay) }

// One image that QEMU and we work on in turns.
func TestModelRelay(t *testing.T) { eachShared(t, model.Relay) }

func TestModelConcurrent(t *testing.T) {
	for name, row := range kinds {
		t.Run(name, func(t *testing.T) {
			model.RunConcurrent(t, format(t, row), model.ConcurrentOptions{Create: row, Rounds: 4})
		})
	}
}
