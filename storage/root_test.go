package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenInStaysInside(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "inside")
	if err := os.MkdirAll(filepath.Join(inside, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "secret"), filepath.Join(inside, "disk"), filepath.Join(inside, "below", "disk")} {
		if err := os.WriteFile(name, []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out": "../secret", "absolute": filepath.Join(dir, "secret"), "fine": "below/disk"} {
		if err := os.Symlink(to, filepath.Join(inside, link)); err != nil {
			t.Skip(err)
		}
	}
	root, err := os.OpenRoot(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, ok := range map[string]bool{
		"disk": true, "below/disk": true, "below/../disk": true, "fine": true,
		"../secret": false, "below/../../secret": false, filepath.Join(dir, "secret"): false,
		"out": false, "absolute": false, "missing": false, "below": false, "": false,
	} {
		f, err := OpenIn(root, name, false)
		if ok != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if _, err := f.WriteAt(b, 0); err == nil {
				t.Errorf("%q: written although opened for reading", name)
			}
			f.Close()
		}
	}
	if _, err := OpenIn(root, "missing", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenIn(root, "below", false); !errors.Is(err, ErrNotRegular) {
		t.Errorf("directory: %v", err)
	}
	f, err := OpenIn(root, "disk", true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
}
