package accept

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// TestOverVPC has overlays in qcow2 above VHDs: above a dynamic one, which both
// programs read, and above a child of that, which ours reads.
func TestOverVPC(t *testing.T) {
	raw, _ := disk(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	n := diskSize(t)
	theirs.convert(t, "-f raw -O vpc -o force_size=on", raw, path("base.vhd"))
	theirs.run(t, "create", "-q", "-f", "qcow2", "-b", "base.vhd", "-F", "vpc", path("over.qcow2"), strconv.FormatInt(n+1<<20, 10))
	qemu.IO(t, path("over.qcow2"), "qcow2", write(1, 0, 5000), write(3, n-4096, 8192), zero(n/4, 1<<20))
	theirs.convert(t, "-f qcow2 -O raw", path("over.qcow2"), path("over.raw"))
	sound(t, path("over.qcow2"))
	holds(t, "qcow2", path("over.qcow2"), path("over.raw"), digestOf(t, path("over.raw")))

	own := tool{"diskimg", filepath.Join(scratch, "diskimg")}
	if err := os.Symlink(ours.path, own.path); err != nil {
		t.Fatal(err)
	}
	own.run(t, "create", "-q", "-f", "vpc", "-b", "base.vhd", "-F", "vpc", path("child.vhd"))
	own.run(t, "create", "-q", "-f", "qcow2", "-b", "child.vhd", "-F", "vpc", path("top.qcow2"))
	own.run(t, "io", "-f", "vpc", "-c", write(7, n/2+12345, 3<<20), "-c", zero(n/4, 100000), path("child.vhd"))
	own.run(t, "io", "-f", "qcow2", "-c", write(8, n/2, 1<<20), path("top.qcow2"))
	flat := path("flat.raw")
	theirs.convert(t, "-f raw -O raw", raw, flat)
	qemu.IO(t, flat, "raw", write(7, n/2+12345, 3<<20), zero(n/4, 100000), write(8, n/2, 1<<20))
	own.run(t, "compare", "-f", "qcow2", "-F", "raw", path("top.qcow2"), flat)
	own.run(t, "commit", "-f", "qcow2", path("top.qcow2"))
	own.run(t, "commit", "-f", "vpc", path("child.vhd"))
	holds(t, "vpc", path("base.vhd"), flat, digestOf(t, flat))
}
