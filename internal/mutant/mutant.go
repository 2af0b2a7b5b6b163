// Package mutant breaks the rules of a package on purpose, each by an edit of
// the line that keeps it, and has a test of the package notice.
package mutant

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Edit is one rule broken.
type Edit struct {
	Name string // what is wrong then
	File string // in the folder of the package
	// From stands once in File, and To takes its place.
	From, To string
}

// MustFail runs a test of the package in the current folder once for each edit,
// with arguments for it. An edit with which the test passes, or does not run,
// is an error. The files stay as they are. As many run at once as the go command
// allows.
func MustFail(t *testing.T, edits []Edit, test string, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles the package once for each edit")
	}
	for _, e := range edits {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			out, err := e.run(t, test, args)
			if err == nil {
				t.Errorf("%s did not notice", test)
			} else if !strings.Contains(out, "--- FAIL: "+test) {
				t.Errorf("%s did not run: %v\n%s", test, err, out)
			}
		})
	}
}

// run runs the test with the edited file laid over the original. Nobody vets it:
// that takes as long as all the rest.
func (e *Edit) run(t *testing.T, test string, args []string) (string, error) {
	t.Helper()
	args = append([]string{"test", "-overlay", e.overlay(t), "-vet=off", "-run", "^" + test + "$", "-count=1", "."}, args...)
	out, err := exec.Command("go", args...).CombinedOutput()
	return string(out), err
}

// overlay writes the edited file and what tells the go command of it.
func (e *Edit) overlay(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile(e.File)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(src), e.From) != 1 {
		t.Fatalf("%s does not have this once:\n%s", e.File, e.From)
	}
	original, err := filepath.Abs(e.File)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	edited, overlay := filepath.Join(dir, e.File), filepath.Join(dir, "overlay.json")
	spec, err := json.Marshal(map[string]any{"Replace": map[string]string{original: edited}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]string{edited: strings.Replace(string(src), e.From, e.To, 1), overlay: string(spec)} {
		if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}
