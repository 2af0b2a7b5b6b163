package vhd_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
)

// libvhdi is another implementation, which knows differencing disks too.

// python is the one that the distribution's package of libvhdi is for.
const python = "/usr/bin/python3"

// readVHD opens a chain of disks, the lowest first, prints what the last one is
// and then all of it.
const readVHD = `
import pyvhdi, sys
chain = []
for path in sys.argv[1:]:
    disk = pyvhdi.file()
    disk.open(path)
    if chain:
        disk.set_parent(chain[-1])
    chain.append(disk)
print(disk.disk_type, disk.media_size, disk.identifier, disk.parent_identifier, disk.parent_filename, flush=True)
left = disk.media_size
while left > 0:
    data = disk.read_buffer(min(left, 1 << 20))
    sys.stdout.buffer.write(data)
    left -= len(data)
`

// libvhdi reads a chain, the lowest disk first, and returns what it says of the
// last and its content.
func libvhdi(t *testing.T, paths ...string) (info string, data []byte) {
	t.Helper()
	out, err := exec.Command(python, append([]string{"-c", readVHD}, paths...)...).Output()
	if err != nil {
		if e, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w\n%s", err, e.Stderr)
		}
		t.Fatalf("%q: %v", paths, err)
	}
	info, rest, _ := strings.Cut(string(out), "\n")
	return info, []byte(rest)
}

func needLibvhdi(t *testing.T) {
	if exec.Command(python, "-c", "import pyvhdi").Run() != nil {
		qemu.Need(t, "pyvhdi")
	}
}

func TestLibvhdi(t *testing.T) {
	needLibvhdi(t)
	base, middle, top := chain(t)
	fixed := filepath.Join(filepath.Dir(base), "fixed")
	create(t, fixed, 3<<20+512, "subformat=fixed")
	for _, c := range []struct {
		kind   int
		parent string
		paths  []string
	}{
		{2, "None", []string{fixed}}, {3, "None", []string{base}},
		{4, "base", []string{base, middle}}, {4, "middle", []string{base, middle, top}},
	} {
		path := c.paths[len(c.paths)-1]
		img := vpc(t, path, diskimg.OpenOptions{Writable: true})
		r, _ := block.As[block.Resizer](img)
		must(t, r.Resize(context.Background(), img.Size()+5<<20, block.ResizeOptions{}))
		_, err := img.WriteAt(bytes.Repeat([]byte{5}, 3000), img.Size()-3000)
		must(t, err)
		must(t, img.Close())
		want := contents(t, path)
		info, data := libvhdi(t, c.paths...)
		if !strings.HasPrefix(info, fmt.Sprintf("%d %d ", c.kind, len(want))) || !strings.HasSuffix(info, c.parent) {
			t.Errorf("%s: %s", path, info)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s: libvhdi reads something else", path)
		}
	}
}

// libvhdi finds what was changed of a child: nothing of the old parent is left.
func TestLibvhdiRebased(t *testing.T) {
	needLibvhdi(t)
	base, _, top := chain(t)
	img := vpc(t, top, diskimg.OpenOptions{Writable: true})
	b, _ := block.As[block.BackingChanger](img)
	must(t, b.ChangeBacking("base", "vpc"))
	must(t, img.Close())
	info, data := libvhdi(t, base, top)
	if !bytes.Equal(data, contents(t, top)) || !strings.HasSuffix(info, " base") {
		t.Errorf("libvhdi reads something else: %s", info)
	}
}
