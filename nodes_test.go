package diskimg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// A target is known by the shortest name that says all of it.
func TestTargetName(t *testing.T) {
	for name, want := range map[string]string{
		"disk":                  "disk",
		"file:disk":             "disk",
		"null-co://":            "null-co://",
		"blkdebug::disk":        "blkdebug::disk",
		"blkverify:raw:disk":    "blkverify:raw:disk",
		"blkdebug::blkdebug::x": "blkdebug::blkdebug::x",
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"x"}}`:                            "x",
		`json:{"driver":"qcow2","file":{"driver":"blkdebug","image.filename":"x"}}`:                  "blkdebug::x",
		`json:{"driver":"raw","offset":512,"file.filename":"x"}`:                                     `json:{"offset": 512, "driver": "raw", "file": {"driver": "file", "filename": "x"}}`,
		`json:{"driver":"raw","size":"1k","read-only":true,"file.filename":"x"}`:                     `json:{"driver": "raw", "size": "1k", "file": {"driver": "file", "filename": "x"}}`,
		`json:{"driver":"null-co","size":1024}`:                                                      `json:{"driver": "null-co", "size": 1024}`,
		`json:{"driver":"compress","file":{"driver":"qcow2","file.filename":"x"}}`:                   `json:{"driver": "compress", "file": {"driver": "qcow2", "file": {"driver": "file", "filename": "x"}}}`,
		`json:{"file":{"driver":"blkdebug","image.filename":"x","set-state":[{"event":"l2_load"}]}}`: `json:{"file": {"set-state.0.event": "l2_load", "image": {"driver": "file", "filename": "x"}, "driver": "blkdebug"}}`,
	} {
		got, err := ParseTarget(name)
		if err != nil || got.Name() != want {
			t.Errorf("%s is called %s, %v; want %s", name, got.Name(), err, want)
		}
	}
}

// Options count more than those in a name; a name goes to the file of the tree.
func TestParseTargetWith(t *testing.T) {
	options := func(list ...string) map[string]string {
		m := map[string]string{}
		for _, pair := range list {
			key, value, _ := strings.Cut(pair, "=")
			m[key] = value
		}
		return m
	}
	for _, c := range []struct {
		name    string
		options map[string]string
		ok      func(Target) bool
	}{
		{"x", options("driver=raw"), func(t Target) bool { return t.Path == "x" && t.Format == "raw" }},
		{`json:{"driver":"raw","file.filename":"x"}`, options("driver=qcow2"), func(t Target) bool { return t.Path == "x" && t.Format == "qcow2" }},
		{"x", options("driver=blkdebug", "image.driver=qcow2"), func(t Target) bool {
			return t.Faults != nil && t.File.Format == "qcow2" && t.File.Path == "x" && t.Driver() == "blkdebug"
		}},
		{"x", options("driver=copy-on-read", "file.driver=qcow2"), func(t Target) bool { return t.CopyOnRead && t.Format == "qcow2" && t.Path == "x" }},
		{"blkdebug::x", options("file.align=4k"), func(t Target) bool { return t.Path == "x" && t.Faults.Limits.Align == 4096 }},
		{"x", options("backing="), func(t Target) bool { return t.NoBacking }},
		{"x", options("backing.driver=raw"), func(t Target) bool { return t.Backing.Format == "raw" && t.Backing.Path == "" }},
		{"x", options("data-file.driver=null-co"), func(t Target) bool { return t.Data.Null != nil }},
		{"x", options("driver=qcow2", "l2-cache-size=1M"), func(t Target) bool { return t.Settings["l2-cache-size"] == "1M" }},
	} {
		if got, err := ParseTargetWith(c.name, c.options); err != nil || !c.ok(got) {
			t.Errorf("%s with %v: %+v, %v", c.name, c.options, got, err)
		}
	}
}

// A disk with nothing below it keeps zeros, too.
func TestCopyOnReadOfZeros(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := Create(path, &CreateOptions{Format: "qcow2", Size: 1024}); err != nil {
		t.Fatal(err)
	}
	img, err := Open(path, &OpenOptions{Writable: true, CopyOnRead: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := img.ReadAt(make([]byte, 1024), 0); err != nil {
		t.Fatal(err)
	}
	if e, err := img.Locate(0, 1024); err != nil || !e.Allocated || e.Kind != block.Zero || e.Length != 1024 {
		t.Errorf("%+v, %v", e, err)
	}
}

// newDisk makes a qcow2 image of 1 MiB.
func newDisk(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := Create(path, &CreateOptions{Format: "qcow2", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return path
}

// The disk of an image can be the file of another: an image within an image.
func TestImageInImage(t *testing.T) {
	outer := newDisk(t, "outer")
	inner := newDisk(t, "inner")
	content, err := os.ReadFile(inner)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(outer, &OpenOptions{Format: "qcow2", Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	target, err := ParseTarget(`json:{"driver":"qcow2","file":{"driver":"qcow2","file.filename":"` + outer + `"}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("abc"), 100_000)
	for _, writable := range []bool{true, false} {
		img, err := target.Open(&OpenOptions{Writable: writable})
		if err != nil {
			t.Fatal(err)
		}
		if writable {
			_, err = img.WriteAt(want, 5000)
		}
		got := make([]byte, len(want))
		if _, rerr := img.ReadAt(got, 5000); err != nil || rerr != nil || !bytes.Equal(got, want) {
			t.Errorf("writable %v: the content differs, %v, %v", writable, err, rerr)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Files that are named besides the image are locked as its own are.
func TestNamedFilesAreLocked(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target, err := ParseTargetWith("", map[string]string{"driver": "blkverify", "raw.filename": filepath.Join(dir, "a"),
		"test.driver": "raw", "test.file.filename": filepath.Join(dir, "b")})
	if err != nil {
		t.Fatal(err)
	}
	img, err := target.Open(&OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := target.Open(&OpenOptions{Writable: true}); !errors.Is(err, block.ErrLocked) {
		t.Errorf("opened for writing twice: %v", err)
	}
	f, err := storage.OpenFile(filepath.Join(dir, "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Lock(storage.LockReader.Use, storage.LockReader.Share); !errors.Is(err, block.ErrLocked) {
		t.Errorf("the copy can be locked: %v", err)
	}
}

// What is said of a backing file counts more than what the image says, also if
// it says that there is none.
func TestNamedBacking(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name[:1]), 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range []CreateOptions{{Size: 1 << 20}, {BackingFile: "one", BackingFormat: "raw"}} {
		path := filepath.Join(dir, "over")
		o.Format = "qcow2"
		if err := Create(path, &o); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]byte{
			`"backing":{"driver":"raw","file.filename":"` + filepath.Join(dir, "two") + `"}`: 't',
			`"backing":null`:                      0,
			`"backing.read-only":true`:            [...]byte{0, 'o'}[i],
			`"backing":{"driver":"raw","size":0}`: [...]byte{0, 'o'}[i],
		} {
			target, err := ParseTarget(`json:{"driver":"qcow2","file.filename":"` + path + `",` + name + "}")
			if err != nil {
				t.Fatal(err)
			}
			img, err := target.Open(nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			p := []byte{1}
			if _, err := img.ReadAt(p, 1000); err != nil || p[0] != want {
				t.Errorf("%s: image %d reads as %q, %v; want %q", name, i, p, err, want)
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		}
		// Nothing is no replacement for a file: who commits would lose all.
		img, err := mustParse(t, `json:{"driver":"qcow2","file.filename":"`+path+`","backing":{"driver":"null-co"}}`).Open(nil)
		if err == nil {
			err = img.Close()
		}
		if (err != nil) != (i == 1) {
			t.Errorf("image %d above nothing: %v", i, err)
		}
	}
}

func mustParse(t *testing.T, name string) Target {
	t.Helper()
	target, err := ParseTarget(name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// A read of an image whose copy differs says where.
func TestTwins(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target, err := ParseTargetWith("", map[string]string{"driver": "blkverify", "raw.filename": filepath.Join(dir, "a"),
		"test.driver": "raw", "test.file.filename": filepath.Join(dir, "b")})
	if err != nil {
		t.Fatal(err)
	}
	img, err := target.Open(&OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	p := []byte("hello")
	if _, err := img.WriteAt(p, 10_000); err != nil {
		t.Fatal(err)
	}
	if _, err := img.ReadAt(make([]byte, 20_000), 0); err != nil {
		t.Errorf("alike: %v", err)
	}
	f, err := storage.OpenFile(filepath.Join(dir, "a"), &storage.FileOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 10_002); err != nil {
		t.Fatal(err)
	}
	_, err = img.ReadAt(make([]byte, 20_000), 0)
	if want := "blkverify: read offset=0 bytes=20000 contents mismatch at offset 10002"; err == nil || !strings.HasSuffix(err.Error(), want) ||
		!errors.Is(err, block.ErrCorrupt) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// What is read through copy on read is in the image afterwards, by whole
// clusters, and reads and writes at the same time do not harm each other.
func TestCopyOnRead(t *testing.T) {
	dir := t.TempDir()
	base := bytes.Repeat([]byte{7}, 1<<20)
	clear(base[512<<10:])
	if err := os.WriteFile(filepath.Join(dir, "base"), base, 0o600); err != nil {
		t.Fatal(err)
	}
	over := filepath.Join(dir, "over")
	if err := Create(over, &CreateOptions{Format: "qcow2", BackingFile: "base", BackingFormat: "raw"}); err != nil {
		t.Fatal(err)
	}
	img, err := Open(over, &OpenOptions{Writable: true, CopyOnRead: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := img.WriteAt([]byte("new"), 100)
		done <- err
	}()
	p := make([]byte, 1000)
	for _, off := range []int64{200, 300 << 10, 600 << 10, 1<<20 - 100} {
		if _, err := img.ReadAt(p, off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	kept := int64(0)
	for e, err := range img.Extents(0, 1<<20) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Allocated && e.Depth == 0 {
			kept += e.Length
		}
	}
	if kept != 4*64<<10 {
		t.Errorf("%d bytes are kept, want four clusters", kept)
	}
	copy(base[100:], "new")
	got := make([]byte, 1<<20)
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, base) {
		t.Errorf("the disk is another, %v", err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
}

// Another program writes the innermost file of a tree, and the image below it:
// each layer of the tree reads anew.
func TestInvalidateTree(t *testing.T) {
	inner, base := filepath.Join(t.TempDir(), "inner"), filepath.Join(t.TempDir(), "base")
	for path, format := range map[string]string{inner: "qcow2", base: "qed"} {
		if err := Create(path, &CreateOptions{Format: format, Size: 8 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(inner, &OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	o := &qcow2.CreateOptions{Size: 8 << 20, BackingFile: base, BackingFormat: "qed"}
	if err := errors.Join(qcow2.Create(&imageFile{Image: f}, o), f.Close()); err != nil {
		t.Fatal(err)
	}
	tree := fmt.Sprintf(`json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"raw","file":{"driver":"qcow2","file.filename":%q}}}}`, inner)
	img := openTree(t, tree, &OpenOptions{ForceShare: true})
	defer img.Close()
	got := make([]byte, 4<<20)
	if _, err := img.ReadAt(got, 0); err != nil || !zero.Is(got) {
		t.Fatalf("a new disk: %v", err)
	}
	for i, path := range []string{base, tree} {
		other := openTree(t, path, &OpenOptions{Writable: true})
		want := bytes.Repeat([]byte{byte(i + 1)}, 3<<20)
		_, err := other.WriteAt(want, 0)
		if err := errors.Join(err, other.Close(), img.Invalidate()); err != nil {
			t.Fatal(err)
		}
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got[:len(want)], want) || !zero.Is(got[len(want):]) {
			t.Errorf("what was written to %s is not there: %v", path, err)
		}
	}
}

func openTree(t *testing.T, name string, o *OpenOptions) *Image {
	t.Helper()
	target, err := ParseTarget(name)
	if err != nil {
		t.Fatal(err)
	}
	o.Policy = Permissive{}
	img, err := target.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// What is discarded goes out of the file if the disk and the file are to do so.
func TestIgnoreDiscards(t *testing.T) {
	const size = 1 << 20
	for _, format := range []string{"qcow2", "raw"} {
		for _, c := range []struct {
			options        string
			ignore         bool
			zero, out, zap bool // it reads as zero; a discard, zeroing gives space back
		}{
			{"", false, true, true, true},
			{"", true, false, false, format == "raw"},
			{`,"discard":"ignore"`, false, false, false, format == "raw"},
			{`,"discard":"unmap"`, true, true, true, true},
			{`,"file":{"discard":"off"}`, false, format == "qcow2", false, false},
		} {
			for _, zeroes := range []bool{false, true} {
				path := filepath.Join(t.TempDir(), "disk")
				if err := Create(path, &CreateOptions{Format: format, Size: size}); err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf(`json:{"driver":%q,"file.filename":%q%s}`, format, path, c.options)
				img := openTree(t, name, &OpenOptions{Writable: true, IgnoreDiscards: c.ignore})
				p := bytes.Repeat([]byte{1}, size)
				_, err := img.WriteAt(p, 0)
				err = errors.Join(err, img.Flush())
				if zeroes {
					err = errors.Join(err, img.WriteZeroes(0, size, block.MayUnmap))
				} else {
					err = errors.Join(err, img.Discard(0, size))
				}
				_, rerr := img.ReadAt(p, 0)
				if err := errors.Join(err, rerr, img.Close()); err != nil {
					t.Fatal(err)
				}
				f, err := storage.OpenFile(path, nil)
				if err != nil {
					t.Fatal(err)
				}
				n, err := f.AllocatedSize()
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				if wantZero := c.zero || zeroes; zero.Is(p) != wantZero {
					t.Errorf("%s, %v, zeroes %v: reads as zero: %v", name, c.ignore, zeroes, zero.Is(p))
				}
				if out := map[bool]bool{false: c.out, true: c.zap}[zeroes]; n < size == !out {
					t.Errorf("%s, %v, zeroes %v: the file takes up %d bytes", name, c.ignore, zeroes, n)
				}
			}
		}
	}
}
