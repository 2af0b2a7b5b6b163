package accept

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// options are the creation options of qcow2 with the values that are not the
// default.
var options = []struct {
	name   string
	values []string
}{
	{"compat", []string{"0.10"}},
	{"cluster_size", []string{"512", "4k", "16k", "2M"}},
	{"refcount_bits", []string{"1", "2", "4", "8", "32", "64"}},
	{"preallocation", []string{"metadata", "falloc", "full"}},
	{"lazy_refcounts", []string{"on"}},
	{"extended_l2", []string{"on"}},
	{"compression_type", []string{"zstd"}},
	{"data_file", []string{"data"}},
	{"data_file_raw", []string{"on"}},
	{"backing_file", []string{"base.raw", "base.qcow2"}},
}

// choices returns every way to set at most two options.
func choices() []map[string]string {
	all := []map[string]string{{}}
	for i, a := range options {
		for _, v := range a.values {
			all = append(all, map[string]string{a.name: v})
			for _, b := range options[:i] {
				for _, w := range b.values {
					all = append(all, map[string]string{a.name: v, b.name: w})
				}
			}
		}
	}
	return all
}

// TestPairs has each program make an image with each choice of options and
// qemu-io write to it. What one program refuses the other refuses too; what is
// made reads the same with both, and both say the same of it. Unless the disk is
// large, it takes every eighth choice only.
func TestPairs(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for i, choice := range choices() {
		if i%8 != 0 && os.Getenv(sizeVariable) == "" {
			continue
		}
		name := qemu.Options(choice)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := map[string]bool{}
			for _, maker := range []tool{theirs, ours} {
				dir := t.TempDir()
				made[maker.name] = create(t, maker, dir, maps.Clone(choice))
				if made[maker.name] {
					use(t, filepath.Join(dir, "disk.qcow2"), choice)
				} else if exists(filepath.Join(dir, "disk.qcow2")) && maker == ours {
					t.Error("diskimg refused the options and left a file")
				}
			}
			if made[theirs.name] != made[ours.name] {
				t.Errorf("made by qemu-img: %v, by diskimg: %v", made[theirs.name], made[ours.name])
			}
		})
	}
}

// pairsDisk is how large the images are: their last cluster is not whole.
const pairsDisk = 6<<20 + 512

// create makes an image, and what it is to lie above. It reports whether the
// options were taken.
func create(t *testing.T, maker tool, dir string, choice map[string]string) bool {
	t.Helper()
	if data := choice["data_file"]; data != "" {
		choice["data_file"] = filepath.Join(dir, data)
	}
	if base := choice["backing_file"]; base != "" {
		format := strings.TrimPrefix(filepath.Ext(base), ".")
		qemu.Create(t, filepath.Join(dir, base), format, 4<<20, nil)
		qemu.IO(t, filepath.Join(dir, base), format, write(7, 0, 3<<20))
		choice["backing_fmt"] = format
	}
	image := filepath.Join(dir, "disk.qcow2")
	_, err := maker.try("create", "-q", "-f", "qcow2", "-o", qemu.Options(choice), image, strconv.Itoa(pairsDisk))
	return err == nil
}

// use writes to an image and has both programs read it.
func use(t *testing.T, image string, choice map[string]string) {
	t.Helper()
	commands := []string{
		write(1, 0, 64<<10), write(2, 100<<10, 300<<10), write(3, 1<<20+512, 1024),
		zero(150<<10, 70<<10), "write -q -z -u 1536k 64k", "discard -q 256k 64k",
		"close", qemu.Open(image, "qcow2"),
		write(5, 511<<10, 2048), write(6, pairsDisk-512, 512),
	}
	// Only what is not allocated can be written compressed.
	if choice["data_file"] == "" && choice["preallocation"] == "" {
		commands = append(commands, "write -q -c -P 4 2M 2M", write(8, 2<<20+5000, 3000))
	}
	qemu.IO(t, image, "qcow2", commands...)
	qemu.Check(t, image, "qcow2")
	for _, verb := range []string{"check", "info", "map"} {
		args := []string{verb, "--output=json", "-f", "qcow2", image}
		if a, b := theirs.run(t, args...), ours.run(t, args...); a != b {
			t.Errorf("%s: qemu-img says\n%sand diskimg\n%s", verb, a, b)
		}
	}
	var sums []digest
	for _, p := range []tool{theirs, ours} {
		raw := image + "." + p.name
		p.convert(t, "-f qcow2 -O raw", image, raw)
		sums = append(sums, digestOf(t, raw))
	}
	if sums[0] != sums[1] {
		t.Errorf("diskimg reads another disk than qemu-img, made with %v", choice)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
