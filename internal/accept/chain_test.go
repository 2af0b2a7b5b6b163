package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// TestChain puts overlays above the real disk, writes to them with qemu-io and
// takes the chain apart again: into one image, and into another overlay.
func TestChain(t *testing.T) {
	base, _ := disk(t)
	for _, maker := range []tool{theirs, ours} {
		t.Run(maker.name, func(t *testing.T) {
			atOnce(t)
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			chain(t, maker, base, path("mid.qcow2"), path("top.qcow2"))

			raw := path("flat.raw")
			theirs.convert(t, "-f qcow2 -O raw", path("top.qcow2"), raw)
			sum := digestOf(t, raw)
			holds(t, "qcow2", path("top.qcow2"), raw, sum)

			maker.convert(t, "-f qcow2 -O qcow2", path("top.qcow2"), path("flat.qcow2"))
			maker.convert(t, "-f qcow2 -O qcow2 -B mid.qcow2 -F qcow2", path("top.qcow2"), path("again.qcow2"))
			maker.convert(t, "-f raw -O qcow2 -B "+base+" -F raw", raw, path("above.qcow2"))
			for _, name := range []string{"flat.qcow2", "again.qcow2", "above.qcow2"} {
				sound(t, path(name))
				holds(t, "qcow2", path(name), raw, sum)
			}
			smaller(t, path("again.qcow2"), path("flat.qcow2"))
		})
	}
}

// chain makes top above mid above base and writes to both. The overlays are
// longer than what is below them.
func chain(t *testing.T, maker tool, base, mid, top string) {
	t.Helper()
	n := diskSize(t)
	maker.run(t, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", mid, strconv.FormatInt(n+1<<20, 10))
	qemu.IO(t, mid, "qcow2", write(1, 0, 5000), write(2, n/2, 3<<20), write(3, n-4096, 8192), zero(n/4, 1<<20))
	maker.run(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "-b", filepath.Base(mid), "-F", "qcow2",
		top, strconv.FormatInt(n+3<<20, 10))
	qemu.IO(t, top, "qcow2", write(4, n/2+12345, 100000), write(5, n+2<<20, 512), zero(n/2+1<<20, 1<<20),
		"discard -q 0 4k", write(6, n/4+512, 512))
	sound(t, mid)
	sound(t, top)
}

// write and zero are commands of qemu-io.
func write(pattern byte, off, n int64) string {
	return fmt.Sprintf("write -q -P %d %d %d", pattern, off, n)
}

func zero(off, n int64) string { return fmt.Sprintf("write -q -z %d %d", off, n) }

func smaller(t *testing.T, a, b string) {
	t.Helper()
	infoA, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	infoB, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	if infoA.Size() >= infoB.Size()/2 {
		t.Errorf("%s has %d bytes, not much less than the %d of %s", a, infoA.Size(), infoB.Size(), b)
	}
}
