package qcow2_test

import (
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/qemu"
)

// The suite for every format, on each kind of qcow2 image. QEMU checks what
// every test leaves.
func TestImage(t *testing.T) {
	for name, options := range map[string]map[string]string{
		"Default":    nil,
		"V2":         {"compat": "0.10", "cluster_size": "4k"},
		"Cluster512": {"cluster_size": "512", "refcount_bits": "1"},
		"Refcount64": {"cluster_size": "1k", "refcount_bits": "64"},
		"Subcluster": {"cluster_size": "16k", "extended_l2": "on"},
		"DataFile":   {"cluster_size": "4k", "data_file": "{path}.data"},
		"DataRaw":    {"cluster_size": "4k", "data_file": "{path}.data", "data_file_raw": "on"},
		"Zstd":       {"cluster_size": "8k", "compression_type": "zstd"},
		"Cluster2M":  {"cluster_size": "2M"},
	} {
		t.Run(name, func(t *testing.T) {
			qemu.Need(t, "qemu-img")
			f := formats.Get(t, "qcow2", options)
			f.Backing = options["data_file_raw"] == ""
			f.Check = func(path string) error {
				_, err := qemu.TryCheck(path, "qcow2")
				return err
			}
			blocktest.TestImage(t, f)
		})
	}
}
