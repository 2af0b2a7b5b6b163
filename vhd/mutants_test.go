package vhd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each ordering rule of doc.go is broken on purpose, by an edit of the line that
// keeps it, and the crash test has to notice.

type mutant struct {
	name, file, from, to string
}

var orderMutants = []mutant{
	{"links before data", "flush.go",
		"if err := d.sync(); err != nil || len(links) == 0 {\n\t\treturn err\n\t}", "if len(links) == 0 {\n\t\treturn d.sync()\n\t}"},
	{"a flush that does not wait for the disk", "flush.go",
		"\t\t\treturn err\n\t\t}\n\t}\n\treturn d.sync()", "\t\t\treturn err\n\t\t}\n\t}\n\treturn nil"},
	{"a block linked before it is written", "alloc.go",
		"n := newBlock{index: i, place: d.end}", "n := newBlock{index: i, place: d.end}\n\td.bat[i], d.batDirty[i*4/sectorSize] = uint32(d.end/sectorSize), true\n\td.mu.Unlock()\n\td.end += d.span()\n\t_ = d.Flush()\n\td.end -= d.span()\n\td.mu.Lock()"},
	{"a block without its first bitmap", "write.go",
		"if _, err := d.file.WriteAt(d.firstBitmap(), b.place); err != nil {\n\t\treturn err\n\t}", ""},
	{"bits before data", "write.go",
		"if err := fill(func(at int64) int64 { return data + at }, false); err != nil {\n\t\t\treturn err\n\t\t}", "if err := d.mark(off, n); err != nil {\n\t\t\treturn err\n\t\t}\n\t\t_ = d.Flush()\n\t\tif err := fill(func(at int64) int64 { return data + at }, false); err != nil {\n\t\t\treturn err\n\t\t}"},
	{"the copy of the footer changes while the other is there", "resize.go",
		"if err := d.file.Truncate(d.end); err != nil {\n\t\treturn err\n\t}\n\t// Before the copy at the beginning changes, the footer at the end must be\n\t// gone: where they differ nobody may write.\n\treturn d.syncTables()", "return nil"},
	{"the copy of the footer changes before the other is surely gone", "resize.go",
		"gone: where they differ nobody may write.\n\treturn d.syncTables()", "gone: where they differ nobody may write.\n\treturn nil"},
	{"the header names a table that is not on disk", "resize.go",
		"\tif err := d.syncTables(); err != nil {\n\t\treturn err\n\t}\n\td.bat = bat", "\td.bat = bat"},
	{"the disk is longer before the parent is hidden", "resize.go",
		"if err := d.zeroBeyond(old, size); err != nil {\n\t\treturn err\n\t}", "defer func() { _ = d.zeroBeyond(old, size) }()"},
	{"space given back before the table lets go of it", "empty.go",
		"if err := d.putTables(encodeTable(none), int64(d.hdr.tableOffset)+first*4); err != nil {\n\t\treturn err\n\t}", "defer func() { _ = d.putTables(encodeTable(none), int64(d.hdr.tableOffset)+first*4) }()"},
	{"the footer leads to a header that is not on disk", "backing.go",
		"if err := d.putTables(bytes.Join([][]byte{names, h.encode(), make([]byte, footerSize)}, nil), d.end); err != nil {", "if _, err := d.file.WriteAt(bytes.Join([][]byte{names, h.encode(), make([]byte, footerSize)}, nil), d.end); err != nil {"},
	{"the header changes while the footer leads to it", "backing.go",
		"foot.dataOffset = uint64(end)\n\tif err := d.putTables(foot.encode(), 0); err != nil {\n\t\treturn err\n\t}", ""},
	{"the header changes before the footer surely leads elsewhere", "backing.go",
		"foot.dataOffset = uint64(end)\n\tif err := d.putTables(foot.encode(), 0); err != nil {", "foot.dataOffset = uint64(end)\n\tif _, err := d.file.WriteAt(foot.encode(), 0); err != nil {"},
	{"the footer leads back before the header is on disk", "backing.go",
		"if err := d.putTables(h.encode(), int64(home)); err != nil {", "if _, err := d.file.WriteAt(h.encode(), int64(home)); err != nil {"},
	{"a fixed disk's old footer goes before the new one is on disk", "fixed_resize.go",
		"// Before the old footer goes the new one must be on disk.\n\tif err := d.sync(); err != nil {\n\t\treturn err\n\t}", ""},
}

func TestOrderMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package once for each mutant")
	}
	for _, m := range orderMutants {
		t.Run(m.name, func(t *testing.T) {
			out, err := m.crash(t)
			if err == nil {
				t.Errorf("the crash test did not notice")
			} else if !strings.Contains(out, "--- FAIL: TestCrash") {
				t.Errorf("the crash test did not run: %v\n%s", err, out)
			}
		})
	}
}

// crash runs the crash test on the mutant.
func (m *mutant) crash(t *testing.T) (string, error) {
	src, err := os.ReadFile(m.file)
	must(t, err)
	if strings.Count(string(src), m.from) != 1 {
		t.Fatalf("%s does not have this once:\n%s", m.file, m.from)
	}
	dir := t.TempDir()
	copied, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	original, err := filepath.Abs(m.file)
	must(t, err)
	spec, err := json.Marshal(map[string]any{"Replace": map[string]string{original: copied}})
	must(t, err)
	must(t, os.WriteFile(copied, []byte(strings.Replace(string(src), m.from, m.to, 1)), 0o666))
	must(t, os.WriteFile(overlay, spec, 0o666))
	out, err := exec.Command("go", "test", "-overlay", overlay, "-run", "^TestCrash$", "-count=1", ".",
		"-crash.states=100000").CombinedOutput()
	return string(out), err
}
