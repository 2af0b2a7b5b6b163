package qcow2_test

import (
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
)

// options are the creation options of qcow2, with the values that matter.
var options = map[string][]string{
	"compat":           {"0.10", "1.1"},
	"cluster_size":     {"512", "4k", "16k", "64k", "2M"},
	"refcount_bits":    {"1", "2", "4", "8", "16", "32", "64"},
	"compression_type": {"zlib", "zstd"},
	"extended_l2":      {"off", "on"},
	"lazy_refcounts":   {"off", "on"},
	"data_file":        {"", "{path}.data"},
	"data_file_raw":    {"off", "on"},
	"preallocation":    {"off", "metadata", "falloc", "full"},
	"encrypt.format":   {"", "aes", "luks"},
}

// possible reports whether qemu-img create takes a row of options.
func possible(row map[string]string) bool {
	v2 := row["compat"] == "0.10"
	small := row["cluster_size"] == "512" || row["cluster_size"] == "4k"
	switch {
	case v2 && (row["refcount_bits"] != "16" || row["compression_type"] == "zstd" || row["lazy_refcounts"] == "on"):
		return false
	case v2 && (row["extended_l2"] == "on" || row["data_file"] != ""):
		return false
	case row["extended_l2"] == "on" && small:
		return false
	case row["data_file"] == "" && row["data_file_raw"] == "on":
		return false
	}
	return true
}

// eachRow runs f with creation options such that each two values that can go
// together do so in one of the runs.
func eachRow(t *testing.T, f func(testing.TB, blocktest.Format, model.Options)) {
	for _, row := range model.Pairs(options, possible) {
		setKey(row)
		name := []string{row["compat"], row["cluster_size"], row["refcount_bits"], row["compression_type"], row["preallocation"]}
		for _, option := range []string{"extended_l2", "lazy_refcounts", "data_file", "data_file_raw", "encrypt.format"} {
			switch row[option] {
			case "":
				delete(row, option)
			case "off":
			default:
				name = append(name, option)
			}
		}
		t.Run(strings.Join(name, ","), func(t *testing.T) {
			t.Parallel()
			if model.Race && row["cluster_size"] == "2M" {
				t.Skip("with other clusters the races are the same and found sooner")
			}
			format := formats.Get(t, "qcow2", nil)
			format.Backing = mayHaveBacking(row)
			f(t, format, model.Options{Create: row, Runs: 1})
		})
	}
}

// setKey completes the options of an encrypted image: cheap ones.
func setKey(row map[string]string) {
	switch row["encrypt.format"] {
	case "luks":
		row["encrypt.iter-time"] = "1"
		fallthrough
	case "aes":
		row["encrypt.key-secret"] = qemu.SecretID
	}
}

// Random operations, compared with a slice of bytes.
func TestModel(t *testing.T) { eachRow(t, model.Run) }

// The same operations done by QEMU on an image of its own; each reads the
// other's.
func TestModelReplay(t *testing.T) { alone(t, model.Replay) }

// One image that QEMU and we work on in turns.
func TestModelRelay(t *testing.T) { alone(t, model.Relay) }

// alone is eachRow for what is no work for the race detector.
func alone(t *testing.T, f func(testing.TB, blocktest.Format, model.Options)) {
	if model.Race {
		t.Skip("no two goroutines")
	}
	eachRow(t, func(t testing.TB, format blocktest.Format, o model.Options) {
		if o.Create["encrypt.format"] != "" {
			// What QEMU preallocates reads as noise then, which is no zeros.
			delete(o.Create, "preallocation")
			delete(o.Create, "data_file_raw")
		}
		f(t, format, o)
	})
}

// Disks that grow and shrink, also over backing images that are longer.
func TestModelResize(t *testing.T) {
	for name, row := range kinds {
		t.Run(name, func(t *testing.T) {
			f := formats.Get(t, "qcow2", nil)
			f.Backing = mayHaveBacking(row) && row["compat"] != "0.10" // which QEMU refuses
			play := model.Replay
			if row["encrypt.format"] != "" {
				play = model.Run // of such a disk QEMU brings back what a shrunk cluster lost
			}
			play(t, f, model.Options{Create: row, Runs: 2, Actions: append(model.Actions(), model.Grow, model.Shrink)})
		})
	}
}

func TestModelConcurrent(t *testing.T) {
	for name, row := range kinds {
		t.Run(name, func(t *testing.T) {
			f := formats.Get(t, "qcow2", nil)
			f.Backing = mayHaveBacking(row)
			model.RunConcurrent(t, f, model.ConcurrentOptions{Create: row, Rounds: 4})
		})
	}
}
