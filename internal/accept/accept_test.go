// Package accept is the main job on a real disk, done with the built program as
// a user does it: an ext4 file system of this machine's own files goes from raw
// to qcow2 in every shape and back, in company with qemu-img. Each program must
// find the other's images clean and equal to the source.
//
// The disk has 32 MiB; the environment variable DISKIMG_ACCEPT_SIZE makes it
// larger: 256M for each change, 4G for make accept.
package accept

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/realdisk"
	"github.com/diskimg/diskimg/internal/size"
)

const sizeVariable = "DISKIMG_ACCEPT_SIZE"

// tool is a program with qemu-img's command line.
type tool struct{ name, path string }

// The programs under test, set by TestMain.
var theirs, ours = tool{"qemu-img", "qemu-img"}, tool{name: "diskimg"}

// scratch is the folder of what all tests share.
var scratch string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if scratch, err = os.MkdirTemp("", "accept-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(scratch)
	// Under this name it is a drop-in.
	ours.path = filepath.Join(scratch, "qemu-img")
	if out, err := exec.Command("go", "build", "-o", ours.path, "../../cmd/diskimg").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// try runs the program.
func (p tool) try(args ...string) (stdout string, err error) {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", p.name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// run runs the program, which must succeed.
func (p tool) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// convert copies a disk; options are separated by blanks.
func (p tool) convert(t *testing.T, options, src, dst string) {
	t.Helper()
	p.run(t, append(append([]string{"convert"}, strings.Fields(options)...), src, dst)...)
}

// disk returns the path of the real disk, which is made when it is first asked
// for, and its digest.
func disk(t *testing.T) (path string, sum digest) {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io")
	path = filepath.Join(scratch, "disk.raw")
	if _, err := os.Stat(path); err != nil {
		if err := realdisk.Make(path, "/usr", diskSize(t)); err != nil {
			t.Fatal(err)
		}
	}
	return path, digestOf(t, path)
}

func diskSize(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv(sizeVariable)
	if text == "" {
		return 32 << 20
	}
	n, err := size.Parse(text)
	if err != nil || n < 1<<20 || n > 1<<40 {
		t.Fatalf("%s=%s is not a size from 1M to 1T", sizeVariable, text)
	}
	return int64(n)
}

// atOnce has a test run at the same time as others, unless the disk is so large
// that there may be no room for the images of several.
func atOnce(t *testing.T) {
	t.Helper()
	if diskSize(t) <= 512<<20 {
		t.Parallel()
	}
}

type digest [sha256.Size]byte

func digestOf(t *testing.T, path string) (d digest) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	h.Sum(d[:0])
	return d
}

// sound demands that both programs find the image clean.
func sound(t *testing.T, image string) {
	t.Helper()
	qemu.Check(t, image, "qcow2")
	ours.run(t, "check", "-f", "qcow2", image)
}

// holds demands that both programs find on the image what is on a raw disk,
// and that the image converted to raw has that disk's digest.
func holds(t *testing.T, format, image, raw string, sum digest) {
	t.Helper()
	for _, p := range []tool{theirs, ours} {
		p.run(t, "compare", "-f", format, "-F", "raw", image, raw)
	}
	back := image + ".raw"
	ours.convert(t, "-f "+format+" -O raw", image, back)
	defer os.Remove(back)
	if digestOf(t, back) != sum {
		t.Errorf("%s: converted back to raw it is another disk", image)
	}
}
