package accept

import (
	"path/filepath"
	"strings"
	"testing"
)

// shapes are the kinds of qcow2 images, as options of convert. DATA stands for
// the name of a file.
var shapes = map[string]string{
	"v2":             "-o compat=0.10",
	"v3":             "-o compat=1.1",
	"zlib":           "-c",
	"zlib v2":        "-c -o compat=0.10",
	"zstd":           "-c -o compression_type=zstd",
	"cluster 4k":     "-o cluster_size=4k",
	"cluster 64k":    "-o cluster_size=64k",
	"cluster 2M":     "-o cluster_size=2M",
	"zstd 4k":        "-c -o compression_type=zstd,cluster_size=4k",
	"zstd 2M":        "-c -o compression_type=zstd,cluster_size=2M",
	"extended_l2":    "-o extended_l2=on",
	"extended_l2 2M": "-o extended_l2=on,cluster_size=2M",
	"data_file":      "-o data_file=DATA",
	"data_file_raw":  "-o data_file=DATA,data_file_raw=on",
	"refcount 1":     "-o refcount_bits=1",
	"refcount 64":    "-o refcount_bits=64",
	"lazy_refcounts": "-o lazy_refcounts=on",
	"metadata":       "-o preallocation=metadata",
	"full":           "-o preallocation=full",
}

// TestShapes makes each shape with each program.
func TestShapes(t *testing.T) {
	raw, sum := disk(t)
	for name, options := range shapes {
		for _, maker := range []tool{theirs, ours} {
			t.Run(name+" by "+maker.name, func(t *testing.T) {
				atOnce(t)
				image := filepath.Join(t.TempDir(), "disk.qcow2")
				data := image + ".data"
				maker.convert(t, "-f raw -O qcow2 "+strings.ReplaceAll(options, "DATA", data), raw, image)
				sound(t, image)
				holds(t, "qcow2", image, raw, sum)
				if strings.Contains(options, "data_file_raw=on") && digestOf(t, data) != sum {
					t.Error("the data file is not the raw disk")
				}
			})
		}
	}
}
