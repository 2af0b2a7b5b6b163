package diskimg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// makeImage makes an image of 1 MiB with a byte pattern at its beginning.
func makeImage(t *testing.T, path string, o CreateOptions, pattern byte) {
	t.Helper()
	if o.Size == 0 && o.BackingFile == "" {
		o.Size = 1 << 20
	}
	o.Unchecked = o.BackingFile != ""
	if o.Unchecked && o.Size == 0 {
		o.Size = 1 << 20
	}
	if err := Create(path, &o); err != nil {
		t.Fatal(err)
	}
	if pattern == 0 {
		return
	}
	img, err := Open(path, &OpenOptions{Format: o.Format, Writable: true, Policy: Permissive{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.WriteAt(bytes.Repeat([]byte{pattern}, 512), 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
}

func firstByte(t *testing.T, img *Image) byte {
	t.Helper()
	var b [1]byte
	if _, err := img.ReadAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func TestOpenGuessesTheFormat(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"raw", "qcow2"} {
		path := filepath.Join(dir, format)
		makeImage(t, path, CreateOptions{Format: format}, 7)
		img, err := Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if img.Format() != format || img.Size() != 1<<20 || firstByte(t, img) != 7 {
			t.Errorf("%s opened as %s, %d bytes", format, img.Format(), img.Size())
		}
		if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("writing what is open for reading: %v", err)
		}
		img.Close()
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	raw, empty := filepath.Join(dir, "raw"), filepath.Join(dir, "empty")
	makeImage(t, raw, CreateOptions{}, 0)
	if err := os.WriteFile(empty, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		o    OpenOptions
		is   error
		text string
	}{
		{filepath.Join(dir, "missing"), OpenOptions{}, fs.ErrNotExist, "No such file or directory"},
		{dir, OpenOptions{}, nil, "requires '" + dir + "' to be a regular file"},
		{"", OpenOptions{}, block.ErrInvalid, "requires a file name"},
		{raw, OpenOptions{Format: "nosuch"}, block.ErrUnsupported, "Unknown driver 'nosuch'"},
		{raw, OpenOptions{Format: "qcow2"}, block.ErrFormat, "not in qcow2 format"},
		{empty, OpenOptions{Format: "qcow2"}, block.ErrFormat, "not in qcow2 format"},
		{raw, OpenOptions{Writable: true, ForceShare: true}, block.ErrInvalid, "force-share"},
	} {
		img, err := Open(c.path, &c.o)
		if err == nil {
			img.Close()
		}
		var typed *block.Error
		if !errors.As(err, &typed) || typed.Path != c.path || typed.Op != "open" || c.is != nil && !errors.Is(err, c.is) ||
			!strings.Contains(err.Error(), c.text) {
			t.Errorf("Open(%q, %+v): %v", c.path, c.o, err)
		}
	}
}

// The strict policy lets an image refer to what lies beside it and below, and
// to nothing else; the permissive one to anything.
func TestPolicies(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "images")
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"images/base", "images/below/base", "outside"} {
		makeImage(t, filepath.Join(top, name), CreateOptions{}, byte(i+1))
	}
	for link, to := range map[string]string{"out": "../outside", "in": "below/base"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skip(err)
		}
	}
	absolute := filepath.Join(top, "outside")
	for i, c := range []struct {
		backing, format string
		strict          string // what the strict policy says; empty: it opens it
		first           byte   // what the permissive policy reads there; 0: an error
	}{
		{"base", "raw", "", 1},
		{"below/base", "raw", "", 2},
		{"below/../base", "raw", "", 1},
		{"in", "raw", "", 2},
		{"base", "", "does not state the format", 1},
		{"out", "raw", "leads out of the directory", 3},
		{"../outside", "raw", "only files in the directory", 3},
		{"below/../../outside", "raw", "only files in the directory", 3},
		{absolute, "raw", "only files in the directory", 3},
		{"file:" + absolute, "raw", "names that begin with \"file:\"", 3},
		{`json:{"driver":"raw","file.filename":"` + absolute + `"}`, "", "names that begin with \"json:\"", 3},
		{"nbd:localhost:10809", "raw", "names that begin with \"nbd:\"", 0},
		{"http://localhost/disk", "raw", "names that begin with \"http:\"", 0},
		{"missing", "raw", "No such file or directory", 0},
		{"/dev/zero", "raw", "only files in the directory", 0},
	} {
		path := filepath.Join(dir, fmt.Sprintf("overlay%d", i))
		writeOverlay(t, path, c.backing, c.format)
		img, err := Open(path, nil)
		switch {
		case c.strict == "" && err != nil:
			t.Errorf("strict, %q: %v", c.backing, err)
		case c.strict != "" && (err == nil || !strings.Contains(err.Error(), c.strict)):
			t.Errorf("strict, %q: %v, want %q", c.backing, err, c.strict)
		case c.strict != "" && c.strict[0] != 'N' && !errors.Is(err, block.ErrRefused):
			t.Errorf("strict, %q: %v is no ErrRefused", c.backing, err)
		}
		if err == nil {
			img.Close()
		}
		img, err = Open(path, &OpenOptions{Policy: Permissive{}})
		if (c.first != 0) != (err == nil) {
			t.Errorf("permissive, %q: %v", c.backing, err)
		}
		if err == nil {
			if got := firstByte(t, img); got != c.first {
				t.Errorf("permissive, %q: read %d, want %d", c.backing, got, c.first)
			}
			img.Close()
		}
	}
}

// writeOverlay makes an overlay whose backing format may be missing.
func writeOverlay(t *testing.T, path, backing, format string) {
	t.Helper()
	f, err := FindFormat("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	s := f.Settings()
	for name, value := range map[string]string{"size": "1M", "backing_file": backing, "backing_fmt": format} {
		if value == "" {
			continue
		}
		if err := s.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	p := &Plan{Path: path, Settings: s, o: PlanOptions{Policy: block.Deny{}}}
	if err := p.Create(); err != nil {
		t.Fatal(err)
	}
}

func TestDataFilePolicy(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "images")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	inside, outside := filepath.Join(dir, "inside"), filepath.Join(dir, "outside")
	makeImage(t, inside, CreateOptions{Format: "qcow2", Options: map[string]string{"data_file": "data"}}, 5)
	makeImage(t, outside, CreateOptions{Format: "qcow2", Options: map[string]string{"data_file": "../data"}}, 6)
	img, err := Open(inside, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := firstByte(t, img); got != 5 {
		t.Errorf("read %d from the data file", got)
	}
	img.Close()
	if _, err := Open(outside, nil); !errors.Is(err, block.ErrRefused) {
		t.Errorf("a data file outside of the directory: %v", err)
	}
	for _, path := range []string{inside, outside} {
		data := filepath.Join(filepath.Dir(path), map[string]string{inside: "data", outside: "../data"}[path])
		if err := os.Remove(data); err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(path, nil); err != nil {
			t.Errorf("to inspect an image needs no data file: %v", err)
		}
	}
	// The QEMU tools look for data files in the current directory, we then
	// look beside the image as well.
	for _, d := range []string{dir, top} {
		t.Chdir(d)
		makeImage(t, filepath.Join(dir, "there"), CreateOptions{
			Format: "qcow2", Options: map[string]string{"data_file": "tools"}, PlanOptions: PlanOptions{Policy: Permissive{}},
		}, 0)
		img, err := Open(filepath.Join(dir, "there"), &OpenOptions{Policy: Permissive{}})
		if err != nil {
			t.Fatalf("made and opened in %s: %v", d, err)
		}
		img.Close()
		if err := os.Remove("tools"); err != nil {
			t.Errorf("the data file is not in the current directory: %v", err)
		}
		if _, err := Open(filepath.Join(dir, "there"), &OpenOptions{Policy: Permissive{}}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without its data file: %v", err)
		}
	}
	err = Create(filepath.Join(dir, "same"), &CreateOptions{Format: "qcow2", Size: 1 << 20, Options: map[string]string{"data_file": "./same"}})
	if err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("an image that is its own data file: %v", err)
	}
}

func TestChainsEnd(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	self := CreateOptions{Format: "qcow2", BackingFile: "self", BackingFormat: "qcow2"}
	makeImage(t, path("self2"), self, 0)
	if err := os.Rename(path("self2"), path("self")); err != nil {
		t.Fatal(err)
	}
	makeImage(t, path("a"), CreateOptions{Format: "qcow2", BackingFile: "b", BackingFormat: "qcow2"}, 0)
	makeImage(t, path("b"), CreateOptions{Format: "qcow2", BackingFile: "c", BackingFormat: "qcow2"}, 0)
	if err := os.Link(path("a"), path("c")); err != nil {
		t.Skip(err)
	}
	makeImage(t, path("0"), CreateOptions{Format: "qcow2"}, 0)
	for i := 1; i < 12; i++ {
		makeImage(t, path(fmt.Sprint(i)), CreateOptions{Format: "qcow2", BackingFile: fmt.Sprint(i - 1), BackingFormat: "qcow2"}, 0)
	}
	for _, policy := range []block.Policy{nil, Permissive{}} {
		for _, name := range []string{"self", "a", "b"} {
			if _, err := Open(path(name), &OpenOptions{Policy: policy}); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), "infinite loop") {
				t.Errorf("%T, %s: %v", policy, name, err)
			}
		}
	}
	for _, policy := range []block.Policy{Strict{MaxDepth: 11}, Permissive{MaxDepth: 11}} {
		if img, err := Open(path("10"), &OpenOptions{Policy: policy}); err != nil {
			t.Errorf("11 images: %v", err)
		} else {
			img.Close()
		}
		if _, err := Open(path("11"), &OpenOptions{Policy: policy}); !errors.Is(err, block.ErrRefused) {
			t.Errorf("12 images: %v", err)
		}
	}
}

// What was guessed to be raw can't be turned into something else.
func TestGuessedRawStaysRaw(t *testing.T) {
	dir := t.TempDir()
	raw, donor := filepath.Join(dir, "raw"), filepath.Join(dir, "donor")
	makeImage(t, raw, CreateOptions{}, 0)
	makeImage(t, donor, CreateOptions{Format: "qcow2"}, 0)
	header, err := os.ReadFile(donor)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"", "raw"} {
		img, err := Open(raw, &OpenOptions{Format: format, Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.WriteAt(header[:512], 0); (format == "") != errors.Is(err, block.ErrRefused) {
			t.Errorf("format %q: writing a qcow2 header: %v", format, err)
		}
		if _, err := img.WriteAt(header[:512], 4096); err != nil {
			t.Errorf("format %q: %v", format, err)
		}
		img.Close()
	}
}

// A fixed VHD is known by its end where nothing else can come of it: by who
// reads the image itself.
func TestFixedVHDByItsEnd(t *testing.T) {
	dir := t.TempDir()
	disk, overlay := filepath.Join(dir, "disk"), filepath.Join(dir, "overlay")
	settings := map[string]string{"subformat": "fixed", "force_size": "on"}
	makeImage(t, disk, CreateOptions{Format: "vpc", Options: settings}, 'v')
	makeImage(t, overlay, CreateOptions{Format: "qcow2", Size: 1<<20 + 512}, 0)
	for _, c := range []struct {
		name   string
		o      OpenOptions
		format string // empty: refused
		size   int64
	}{
		{"read", OpenOptions{}, "vpc", 1 << 20},
		{"read as QEMU does", OpenOptions{HeadOnly: true}, "raw", 1<<20 + 512},
		{"write", OpenOptions{Writable: true}, "", 0},
		{"write as QEMU does", OpenOptions{Writable: true, HeadOnly: true}, "raw", 1<<20 + 512},
		{"write what is named", OpenOptions{Writable: true, Format: "vpc"}, "vpc", 1 << 20},
		{"write what is named raw", OpenOptions{Writable: true, Format: "raw"}, "raw", 1<<20 + 512},
		{"write to memory", OpenOptions{Writable: true, Snapshot: true}, "qcow2", 1 << 20},
	} {
		img, err := Open(disk, &c.o)
		if c.format == "" {
			if !errors.Is(err, block.ErrRefused) || !strings.Contains(err.Error(), "name the format") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(c.name, err)
		}
		if img.Format() != c.format || img.Size() != c.size {
			t.Errorf("%s: %s of %d bytes", c.name, img.Format(), img.Size())
		}
		img.Close()
	}
	for headOnly, want := range map[bool]string{false: "vpc", true: "raw"} {
		info, err := Inspect(disk, &InspectOptions{HeadOnly: headOnly})
		if err != nil || info.Format != want || !info.Guessed {
			t.Errorf("inspect, head only %v: %q, %v", headOnly, info.Format, err)
		}
	}
	img, err := Open(overlay, &OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	change, _ := block.As[block.BackingChanger](img)
	if err := errors.Join(change.ChangeBacking("disk", ""), img.Close()); err != nil {
		t.Fatal(err)
	}
	if img, err = Open(overlay, &OpenOptions{Policy: Permissive{}}); err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if b := img.Backing(); b.Format() != "raw" {
		t.Errorf("as a backing image: %s", b.Format())
	}
}

// A guest can't make a fixed VHD of a disk that was guessed to be raw.
func TestGuessedRawGetsNoFooter(t *testing.T) {
	dir := t.TempDir()
	raw, donor := filepath.Join(dir, "raw"), filepath.Join(dir, "donor")
	makeImage(t, raw, CreateOptions{Size: 1<<20 + 512}, 0)
	makeImage(t, donor, CreateOptions{Format: "vpc", Options: map[string]string{"subformat": "fixed", "force_size": "on"}}, 0)
	b, err := os.ReadFile(donor)
	if err != nil {
		t.Fatal(err)
	}
	footer := b[1<<20:]
	for _, c := range []struct {
		o       OpenOptions
		refused bool
	}{{OpenOptions{}, true}, {OpenOptions{HeadOnly: true}, false}, {OpenOptions{Format: "raw"}, false}} {
		c.o.Writable = true
		img, err := Open(raw, &c.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.WriteAt(footer, 1<<20); errors.Is(err, block.ErrRefused) != c.refused || !c.refused && err != nil {
			t.Errorf("%+v: %v", c.o, err)
		}
		if err := img.WriteZeroes(1<<20, 512, 0); err != nil {
			t.Error(err)
		}
		img.Close()
	}
}

// A disk that holds the header of an image is that image only to who guesses.
func TestDiskOfTwoFormats(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"qcow2", "qed", "vpc", "luks"} {
		path := filepath.Join(dir, format)
		o := CreateOptions{Format: format}
		if format == "luks" {
			o.Passphrase = OnePassphrase([]byte("secret"))
			o.Options = map[string]string{"iter-time": "10"}
		}
		makeImage(t, path, o, 0)
		stat, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := Inspect(path, nil); err != nil || info.Format != format {
			t.Errorf("guessed: %q, %v", info.Format, err)
		}
		img, err := Open(path, &OpenOptions{Format: "raw", Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		if img.Format() != "raw" || img.Size() != (stat.Size()+511)&^511 {
			t.Errorf("%s named raw: %s of %d bytes", format, img.Format(), img.Size())
		}
		img.Close()
	}
}

// Files that are too short for any header are raw, or an error.
func TestShortFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "short")
	for _, magic := range []string{"QFI\xfb\x00\x00\x00\x03", "QED\x00", "conectix", "LUKS\xba\xbe\x00\x01", ""} {
		for _, n := range []int{0, 1, 7, 64, 511} {
			b := append([]byte(magic), make([]byte, 512)...)[:n]
			if err := os.WriteFile(path, b, 0o666); err != nil {
				t.Fatal(err)
			}
			for _, format := range []string{"", "raw", "qcow2", "qed", "vpc", "luks"} {
				info, err := Inspect(path, &InspectOptions{Format: format})
				if err != nil && format == "raw" || err == nil && info.Format != "raw" {
					t.Errorf("%d bytes of %q as %q: %q, %v", n, magic, format, info.Format, err)
				}
				img, err := Open(path, &OpenOptions{Format: format, Writable: true})
				if err == nil && img.Format() != "raw" {
					t.Errorf("%d bytes of %q as %q: opened as %s", n, magic, format, img.Format())
				}
				if err == nil {
					img.Close()
				}
			}
		}
	}
}

func TestLocks(t *testing.T) {
	dir := t.TempDir()
	base, overlay, raw := filepath.Join(dir, "base"), filepath.Join(dir, "overlay"), filepath.Join(dir, "raw")
	makeImage(t, base, CreateOptions{Format: "qcow2"}, 0)
	makeImage(t, overlay, CreateOptions{Format: "qcow2", BackingFile: "base", BackingFormat: "qcow2"}, 0)
	makeImage(t, raw, CreateOptions{}, 0)
	type user struct {
		path string
		o    OpenOptions
	}
	read, write := OpenOptions{}, OpenOptions{Writable: true, Format: "qcow2"}
	writeRaw := OpenOptions{Writable: true, Format: "raw"}
	for _, c := range []struct {
		first, second user
		ok            bool
	}{
		{user{base, read}, user{base, read}, true},
		{user{base, read}, user{overlay, write}, true},
		{user{base, read}, user{base, write}, false},
		{user{base, write}, user{base, read}, false},
		{user{base, write}, user{base, OpenOptions{ForceShare: true}}, true},
		{user{base, write}, user{overlay, read}, false},
		{user{base, write}, user{overlay, OpenOptions{ForceShare: true}}, true},
		{user{overlay, write}, user{base, write}, false},
		{user{raw, writeRaw}, user{raw, read}, false},
		{user{raw, writeRaw}, user{raw, OpenOptions{LiveRaw: true}}, true},
		{user{base, write}, user{base, OpenOptions{LiveRaw: true}}, false},
	} {
		first, err := Open(c.first.path, &c.first.o)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Open(c.second.path, &c.second.o)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, block.ErrLocked) {
			t.Errorf("%+v, then %+v: %v", c.first, c.second, err)
		}
		if err == nil {
			second.Close()
		}
		if err := Create(c.first.path, &CreateOptions{Size: 512}); !errors.Is(err, block.ErrLocked) && !c.first.o.LiveRaw && c.first.path != raw {
			t.Errorf("%+v, then Create: %v", c.first, err)
		}
		first.Close()
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	makeImage(t, base, CreateOptions{Size: 3 << 20}, 1)
	for _, c := range []struct {
		o    CreateOptions
		size int64
		text string // of the error
	}{
		{CreateOptions{Size: 1000}, 1024, ""},
		{CreateOptions{}, 0, ""},
		{CreateOptions{Format: "qcow2", Size: 1 << 20, Options: map[string]string{"cluster_size": "4k", "compat": "0.10"}}, 1 << 20, ""},
		{CreateOptions{Format: "qcow2", BackingFile: "base", BackingFormat: "raw"}, 3 << 20, ""},
		{CreateOptions{Format: "qcow2", BackingFile: "base", BackingFormat: "raw", Size: 1 << 20}, 1 << 20, ""},
		{CreateOptions{Format: "qcow2", BackingFile: "base"}, 0, "Detected format of raw"},
		{CreateOptions{Format: "qcow2", BackingFile: "nosuch", BackingFormat: "raw"}, 0, "Could not open backing image"},
		{CreateOptions{Format: "qcow2", BackingFile: base, BackingFormat: "qcow2"}, 0, "not in qcow2 format"},
		{CreateOptions{Format: "raw", BackingFile: "base", BackingFormat: "raw"}, 0, "Invalid parameter"},
		{CreateOptions{Format: "nosuch"}, 0, "Unknown driver"},
		{CreateOptions{Format: "qcow2", Size: 1, Options: map[string]string{"nosuch": "1"}}, 0, "Invalid parameter 'nosuch'"},
		{CreateOptions{Format: "qcow2", Size: 1, Options: map[string]string{"cluster_size": "3k"}}, 0, "power of two"},
		{CreateOptions{Format: "qcow2", Size: 1, Options: map[string]string{"cluster_size": "0"}}, 0, "power of two"},
		{CreateOptions{Format: "qcow2", Size: 1, Options: map[string]string{"refcount_bits": "0"}}, 0, "Refcount width"},
		{CreateOptions{Format: "qcow2", Size: 1, Options: map[string]string{"compat": "3"}}, 0, "does not accept value '3'"},
		{CreateOptions{Size: 1, Options: map[string]string{"preallocation": "some"}}, 0, "invalid parameter value: some"},
		{CreateOptions{Size: -1}, 0, "expects a non-negative number"},
	} {
		path := filepath.Join(dir, "image")
		os.Remove(path)
		err := Create(path, &c.o)
		if c.text != "" {
			_, left := os.Lstat(path)
			if err == nil || !strings.Contains(err.Error(), c.text) || !errors.Is(left, fs.ErrNotExist) {
				t.Errorf("%+v: %v, file: %v", c.o, err, left)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.o, err)
			continue
		}
		info, err := Inspect(path, nil)
		if err != nil || info.VirtualSize != c.size {
			t.Errorf("%+v: %d bytes, %v", c.o, info.VirtualSize, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What was there stays there until an output is complete.
func TestOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	begin := func() *Output {
		f, err := FindFormat("qcow2")
		if err != nil {
			t.Fatal(err)
		}
		s := f.Settings()
		if err := s.Set("size", "1M"); err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		o, err := p.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Image.WriteAt([]byte{9}, 0); err != nil {
			t.Fatal(err)
		}
		return o
	}
	if err := os.WriteFile(path, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	begin().Discard()
	if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
		t.Errorf("after Discard: %q, %v", b, err)
	}
	o := begin()
	if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
		t.Errorf("before Commit: %q, %v", b, err)
	}
	if !o.ReadsZero() {
		t.Error("a new image does not read as zero")
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	o.Discard()
	img, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got := firstByte(t, img); got != 9 {
		t.Errorf("after Commit: %d", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("permissions: %v, %v", st.Mode(), err)
	}
}

// countingFile counts what is read from it.
type countingFile struct {
	block.File
	n *int64
}

func (c countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.File.ReadAt(p, off)
	*c.n += int64(n)
	return n, err
}

// Inspect opens one file, whatever the image names, and reads little of it.
func TestInspectIsCheap(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	makeImage(t, path, CreateOptions{Format: "qcow2", Size: 1 << 40, BackingFile: "/dev/mem", BackingFormat: "raw",
		Options: map[string]string{"cluster_size": "2M"}}, 0)
	var read int64
	formats := make([]Format, len(Formats))
	for i, f := range Formats {
		inspect := f.Inspect
		f.Inspect = func(file block.File) (block.Description, error) { return inspect(countingFile{file, &read}) }
		formats[i] = f
	}
	info, err := Inspect(path, &InspectOptions{Formats: formats})
	if err != nil {
		t.Fatal(err)
	}
	if info.BackingName != "/dev/mem" || info.BackingPath != "/dev/mem" || info.VirtualSize != 1<<40 || info.Format != "qcow2" || !info.Guessed {
		t.Errorf("got %+v", info)
	}
	if read == 0 || read+probeSize > 1<<20 {
		t.Errorf("read %d bytes", read)
	}
}

func TestParseTarget(t *testing.T) {
	for name, want := range map[string]Target{
		"disk":        {Path: "disk"},
		"./a:b":       {Path: "./a:b"},
		"/a/b:c":      {Path: "/a/b:c"},
		"file:disk":   {Path: "disk"},
		"file:/a:b":   {Path: "/a:b"},
		"file:///etc": {Path: "///etc"},
		"file:a:b":    {Path: "./a:b"},
		`json:{'driver':'qcow2',"file.filename":'it\'s "x"'}`:                {Path: `it's "x"`, Format: "qcow2"},
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"x"}}`:    {Path: "x", Format: "qcow2"},
		`json:{"driver":"qcow2","file.filename":"x","read-only":true}`:       {Path: "x", Format: "qcow2", ReadOnly: true},
		`json:{"driver":"raw","file.filename":"x","offset":512,"size":"1k"}`: {Path: "x", Format: "raw", Offset: 512, Size: 1024},
		`json:{"driver":"file","filename":"x"}`:                              {Path: "x", Format: "raw", driver: "file"},
		`json:{"file.filename":"x","force-share":"on"}`:                      {Path: "x", ForceShare: true},
	} {
		got, err := ParseTarget(name)
		got.title = title{} // see TestTargetName
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseTarget(%q) = %+v, %v; want %+v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"nbd:unix:/s":                        "Protocol 'nbd' is not supported",
		"foo:bar":                            "Unknown protocol 'foo'",
		"json:{":                             "Could not parse the JSON options",
		"json:[]":                            "Invalid JSON object",
		"json:{}":                            "Must specify either driver or file",
		`json:{"driver":"qcow2"}`:            "A block device must be specified",
		`json:{"driver":"qcow2","file":"n"}`: "Cannot find device='n'",
		`json:{"driver":"qcow2","file":{"driver":"nbd","host":"h"}}`:      "Protocol 'nbd'",
		`json:{"driver":"raw","file.filename":"x","offset":"-1"}`:         "'offset' expects a non-negative number",
		`json:{"driver":"raw","file.filename":"x","read-only":"perhaps"}`: "'read-only' expects 'on' or 'off'",
	} {
		if got, err := ParseTarget(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTarget(%q) = %+v, %v; want %q", name, got, err, want)
		}
	}
}

func TestBackingPath(t *testing.T) {
	for _, c := range [][3]string{
		{"disk", "base", "base"}, {"./d/disk", "base", "./d/base"}, {"a/../d/disk", "../base", "a/../d/../base"},
		{"/a/disk", "/b", "/b"}, {"d/disk", "nbd:x", "nbd:x"}, {"d/disk", "", ""}, {"/disk", "base", "/base"},
	} {
		if got := BackingPath(c[0], c[1]); got != c[2] {
			t.Errorf("BackingPath(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestWindow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), 256), 0o666); err != nil {
		t.Fatal(err)
	}
	target := Target{Path: path, Format: "raw", Offset: 1032, Size: 512}
	img, err := target.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b, err := io.ReadAll(io.NewSectionReader(img, 0, 1<<20))
	if err != nil || len(b) != 512 || b[0] != '8' {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if info, err := target.Inspect(nil); err != nil || info.VirtualSize != 512 {
		t.Errorf("inspected %d bytes, %v", info.VirtualSize, err)
	}
}

func TestSettings(t *testing.T) {
	f, err := FindFormat("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	s := f.Settings()
	for _, c := range []struct{ name, value, kept, text string }{
		{"size", "1.5G", "1610612736", ""},
		{"size", "8E", "", "out of range"},
		{"size", "1z", "", "expects a non-negative number"},
		{"cluster_size", "0x10000", "65536", ""},
		{"lazy_refcounts", "yes", "yes", ""},
		{"lazy_refcounts", "1", "", "expects 'on' or 'off'"},
		{"refcount_bits", "010", "8", ""},
		{"refcount_bits", "-1", "-1", ""},
		{"refcount_bits", "1_6", "", "expects a number"},
		{"refcount_bits", "99999999999999999999", "", "too large"},
		{"data_file", "a,b", "a,b", ""},
		{"nosuch", "", "", "Invalid parameter 'nosuch'"},
	} {
		err := s.Set(c.name, c.value)
		if c.text == "" && (err != nil || s.Text(c.name) != c.kept) {
			t.Errorf("%s=%s: %q, %v", c.name, c.value, s.Text(c.name), err)
		}
		if c.text != "" && (err == nil || !errors.Is(err, block.ErrInvalid) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s=%s: %v, want %q", c.name, c.value, err, c.text)
		}
	}
	const want = "cluster_size=65536 extended_l2=off compression_type=zlib size=1610612736 data_file=a,,b lazy_refcounts=yes refcount_bits=-1"
	if s.String() != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if !s.Switch("lazy_refcounts") || s.Number("size") != 1610612736 || s.Has("compat") {
		t.Errorf("values: %v", s)
	}
}
