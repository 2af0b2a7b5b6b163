package qemu

import (
	"path/filepath"
	"strings"
	"testing"
)

func image(t *testing.T, format string) string {
	t.Helper()
	Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk")
	Create(t, path, format, 1<<20, nil)
	return path
}

func TestImageLife(t *testing.T) {
	path := image(t, "qcow2")
	out := IO(t, path, "qcow2",
		"write -q -P 1 0 64k", "write -q -P 2 512k 1", "write -q -z -u 128k 64k",
		"read -P 1 0 64k", "close", Open(path, "qcow2"), "read -q -P 2 512k 1")
	if !strings.Contains(out, "read 65536/65536 bytes at offset 0") || strings.Contains(out, prompt) {
		t.Errorf("qemu-io printed %q", out)
	}
	if r := Check(t, path, "qcow2"); r.Allocated != 2 || r.TotalClusters != 16 {
		t.Errorf("check says %+v, want 2 of 16 clusters", r)
	}
	if i := Info(t, path, "qcow2"); i.VirtualSize != 1<<20 || i.ClusterSize != 65536 || i.Specific.Data["compat"] != "1.1" {
		t.Errorf("info says %+v", i)
	}
	m := Map(t, path, "qcow2")
	if len(m) < 4 || m[0].Offset == nil || !m[0].Data || m[0].Length != 65536 || m[1].Data {
		t.Errorf("map says %+v", m)
	}
	raw := path + ".raw"
	Img(t, "convert", "-O", "raw", path, raw)
	Compare(t, path, "qcow2", raw, "raw")
	Check(t, raw, "raw")
}

// Everything that must be noticed is noticed.
func TestFailuresAreSeen(t *testing.T) {
	path := image(t, "qcow2")
	for _, command := range []string{"read -P 1 0 512", "write 1M 512", "no such command"} {
		out, err := TryIO(Open(path, "qcow2"), "write -q 0 4k", command, "flush")
		if err == nil {
			t.Errorf("%q went unnoticed: %s", command, out)
		}
	}
	if _, err := TryIO(Open(path+".missing", "qcow2"), "read 0 512"); err == nil {
		t.Error("a missing image went unnoticed")
	}
	if _, stderr, code := TryImg("info", path+".missing"); code != 1 || !strings.Contains(stderr, "No such file") {
		t.Errorf("info of a missing image: code %d, %q", code, stderr)
	}
	// A crash in the middle leaves clusters leaked.
	if out, err := TryIO(Open(path, "qcow2"), "write -q 64k 192k", "abort"); err == nil {
		t.Errorf("abort went unnoticed: %s", out)
	}
	IO(t, path, "qcow2", "write -q -P 1 0 64k")
	Img(t, "snapshot", "-c", "a", path)
	corrupt(t, path)
	if r, err := TryCheck(path, "qcow2"); err == nil {
		t.Errorf("a corrupt image passed the check: %+v", r)
	}
}

// corrupt makes the first entry of the refcount table zero.
func corrupt(t *testing.T, path string) {
	t.Helper()
	if _, err := TryIO("open -o driver=raw "+path, "write -q -z 64k 8"); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	got := Options(map[string]string{"size": "1", "backing_file": "a,b", "compat": "1.1"})
	if want := "backing_file=a,,b,compat=1.1,size=1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
