package realdisk

import (
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, dir, name string, n int) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, n), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is beyond the limit is left out, and what comes after and still fits is
// taken with the folders that it lies in.
func TestChoose(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from, "a/one", 1)
	write(t, from, "b/huge", 1<<20)
	write(t, from, "c/two", 5000)
	if err := os.Symlink("one", filepath.Join(from, "a", "link")); err != nil {
		t.Skip(err) // not everybody may on Windows
	}
	s, err := choose(from, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if s.all {
		t.Error("all is true although a file was too large")
	}
	if err := s.copyTo(to); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"a/one": 1, "a/link": 1, "c/two": 5000, "b/huge": -1} {
		got := int64(-1)
		if info, err := os.Stat(filepath.Join(to, name)); err == nil {
			got = info.Size()
		}
		if got != size {
			t.Errorf("%s has %d bytes, want %d", name, got, size)
		}
	}
	if s, err := choose(from, 1<<30); err != nil || !s.all {
		t.Errorf("everything fits: all is %v, error %v", s.all, err)
	}
	if _, err := choose(t.TempDir(), 1<<30); err == nil {
		t.Error("an empty folder is no source of files")
	}
}

func TestMake(t *testing.T) {
	if _, err := lookUp("mke2fs"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	from, path := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	write(t, from, "a/one", 1)
	write(t, from, "huge", 20<<20)
	fit, err := SizeFor(from, 1<<20)
	if err != nil || fit < 20<<20 {
		t.Fatalf("the files need %d bytes, error %v", fit, err)
	}
	for _, size := range []int64{fit, 16 << 20} {
		if err := Make(path, from, size); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != size {
			t.Errorf("made %v, error %v, want %d bytes", info, err, size)
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		if err != nil || len(left) != 1 {
			t.Errorf("left behind: %q, error %v", left, err)
		}
	}
}
