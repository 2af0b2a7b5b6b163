package qcow2_test

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
	"V2":          {"compat": "0.10", "cluster_size": "4k"},
	"Cluster512":  {"cluster_size": "512", "refcount_bits": "1"},
	"Subclusters": {"cluster_size": "16k", "extended_l2": "on"},
	"DataFile":    {"cluster_size": "4k", "data_file": "{path}.data"},
	"DataFileRaw": {"cluster_size": "4k", "data_file": "{path}.data", "data_file_raw": "on"},
	"AES":         {"cluster_size": "4k", "encrypt.format": "aes", "encrypt.key-secret": qemu.SecretID},
	"LUKS":        {"cluster_size": "4k", "encrypt.format": "luks", "encrypt.key-secret": qemu.SecretID, "encrypt.iter-time": "1"},
}

// moreKinds are run where DISKIMG_LONG=1.
var moreKinds = map[string]map[string]string{
	"Default":         nil,
	"Refcount64":      {"cluster_size": "1k", "refcount_bits": "64"},
	"Zstd":            {"cluster_size": "8k", "compression_type": "zstd"},
	"Cluster2M":       {"cluster_size": "2M"},
	"Subclusters2M":   {"cluster_size": "2M", "extended_l2": "on", "compression_type": "zstd"},
	"LUKSSubclusters": {"cluster_size": "16k", "extended_l2": "on", "encrypt.format": "luks", "encrypt.key-secret": qemu.SecretID, "encrypt.iter-time": "1"},
	"LazyRefcounts":   {"cluster_size": "4k", "lazy_refcounts": "on"},
}

// The suite for every format. QEMU checks what each test leaves.
func TestImage(t *testing.T) {
	qemu.Need(t, "qemu-img")
	run := maps.Clone(kinds)
	if model.Long() {
		maps.Copy(run, moreKinds)
	}
	for _, name := range slices.Sorted(maps.Keys(run)) {
		t.Run(name, func(t *testing.T) {
			f := formats.Get(t, "qcow2", run[name])
			f.Backing = mayHaveBacking(run[name])
			// The detector has pools lose what they hold.
			f.MayAllocate = model.Race && run[name]["encrypt.format"] != ""
			f.Check = func(path string) error {
				_, err := qemu.TryCheck(path, "qcow2")
				return err
			}
			blocktest.TestImage(t, f)
		})
	}
}

// mayHaveBacking reports whether images with these options can be overlays. A
// raw data file would have to hold what is below; preallocated clusters would
// hide it.
func mayHaveBacking(options map[string]string) bool {
	preallocated := options["preallocation"] != "" && options["preallocation"] != "off"
	return options["data_file_raw"] != "on" && (!preallocated || options["extended_l2"] == "on")
}
