package diskimg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// quorumOf names a quorum of files.
func quorumOf(threshold int, pattern string, paths ...string) Target {
	o := map[string]string{"driver": "quorum", "vote-threshold": strconv.Itoa(threshold), "read-pattern": pattern}
	for i, path := range paths {
		o["children."+strconv.Itoa(i)+".driver"] = "file"
		o["children."+strconv.Itoa(i)+".filename"] = path
	}
	t, err := TargetFromOptions(o)
	if err != nil {
		panic(err)
	}
	return t
}

// A read believes what enough children agree on, and nothing if too few do.
func TestQuorum(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int, b byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte{b}, size), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, same, b, c := file("a", 4096, 'a'), file("same", 4096, 'a'), file("b", 4096, 'b'), file("c", 4096, 'c')
	short := file("short", 2048, 'a')
	for _, x := range []struct {
		name   string
		target Target
		want   byte // 0: an error
	}{
		{"one child", quorumOf(1, "", a), 'a'},
		{"all agree", quorumOf(2, "", a, same), 'a'},
		{"most agree", quorumOf(2, "", b, a, same), 'a'},
		{"the last ones agree", quorumOf(2, "quorum", b, c, a, same), 'a'},
		{"not enough agree", quorumOf(3, "", b, a, same), 0},
		{"none agree", quorumOf(2, "", a, b, c), 0},
		{"the first will do", quorumOf(2, "fifo", b, a, same), 'b'},
		{"sizes differ", quorumOf(1, "", a, short), 0},
		{"one is missing", quorumOf(1, "", a, filepath.Join(dir, "missing")), 0},
	} {
		got := make([]byte, 4096)
		img, err := x.target.Open(nil)
		if err == nil {
			_, err = img.ReadAt(got, 0)
			img.Close()
		}
		if (err != nil) != (x.want == 0) || err == nil && !bytes.Equal(got, bytes.Repeat([]byte{x.want}, 4096)) {
			t.Errorf("%s: %q…, %v", x.name, got[:1], err)
		}
	}
	if _, err := quorumOf(1, "", a, same).Open(&OpenOptions{Writable: true}); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("for writing: %v", err)
	}
}

// An image on a quorum finds what it refers to only by a whole path.
func TestQuorumHasNoDirectory(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	makeImage(t, path("base"), CreateOptions{Format: "qcow2"}, 'b')
	makeImage(t, path("near"), CreateOptions{Format: "qcow2", BackingFile: "base", BackingFormat: "qcow2"}, 0)
	makeImage(t, path("whole"), CreateOptions{Format: "qcow2", BackingFile: path("base"), BackingFormat: "qcow2"}, 0)
	on := func(name string) Target {
		q := quorumOf(1, "", path(name))
		return Target{Format: "qcow2", Quorum: q.Quorum}
	}
	if info, err := on("near").Inspect(nil); err != nil || info.BackingName != "base" || info.BackingPath != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := on("near").Open(&OpenOptions{Policy: Permissive{}}); err == nil || !strings.Contains(err.Error(), "base directory") {
		t.Errorf("a relative name: %v", err)
	}
	if info, err := on("whole").Inspect(nil); err != nil || info.BackingPath != path("base") {
		t.Errorf("%+v, %v", info, err)
	}
	img, err := on("whole").Open(&OpenOptions{Policy: Permissive{}})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if firstByte(t, img) != 'b' {
		t.Error("the image below is not read")
	}
}
