package qcow2_test

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
	{"links before data and counts", "flush.go",
		"if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {", "if false {"},
	{"links before data, counts in order", "flush.go",
		"if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {", "if len(b.counts) > 0 || len(b.reftable) > 0 {"},
	{"links before counts, data in order", "flush.go",
		"if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {", "if b.newData {"},
	{"counts never written before links", "flush.go",
		"if err := d.writePieces(b.counts); err != nil {", "if err := d.writePieces(nil); err != nil {"},
	{"refcount table before its blocks", "flush.go",
		"if err := d.syncTables(); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := d.writePieces(b.reftable)", "if err := d.writePieces(b.reftable)"},
	{"a flush that does not wait for the disk", "flush.go",
		"used again, they must be on disk.\n\treturn d.sync()", "used again, they must be on disk.\n\treturn nil"},
	{"counts fall before links are on disk", "refcount.go",
		"func (d *disk) release(c, n int64) {", "func (d *disk) release(c, n int64) {\n\tfor i := range n {\n\t\t_ = d.addRef(c+i, -1)\n\t}\n\tif true {\n\t\treturn\n\t}"},
	{"space used again before links are on disk", "flush.go",
		"err = d.writeBatch(b)\n\td.mu.Lock()\n\tdefer d.mu.Unlock()", "d.mu.Lock()\n\tdefer d.mu.Unlock()\n\t_ = d.retire(b.unlinked)\n\tb.unlinked = nil\n\tb.counts = cachePieces(metaRefblock, d.refs.TakeDirty())\n\terr = d.writeBatch(b)"},
	{"external data not synced", "flush.go",
		"if err := d.data.Sync(); err != nil {\n\t\t\treturn err\n\t\t}", ""},
	{"published before it is written", "write.go",
		"err = d.fill(&a, p[:n], off)\n\tif err == nil {\n\t\terr = d.publish(&a)\n\t}", "err = d.publish(&a)\n\tif err == nil {\n\t\t_ = d.Flush()\n\t\terr = d.fill(&a, p[:n], off)\n\t}"},
	{"a new table not written when it is allocated", "tables.go",
		"if _, err := d.file.WriteAt(data, int64(off)); err != nil {\n\t\td.unalloc(run)\n\t\treturn 0, err\n\t}\n\td.l2.Forget", "d.l2.Forget"},
	{"header names a refcount table that is not on disk", "refcount.go",
		"if err := d.syncTables(); err != nil {\n\t\treturn d.poison(err)\n\t}", ""},
	{"header names an L1 table that is not on disk", "resize.go",
		"if err := d.writeCounts(); err != nil {\n\t\treturn err\n\t}\n\tvar field", "var field"},
	{"header names shared tables that are not on disk", "swap.go",
		"must\n\t\t// be on disk.\n\t\terr = d.sync()", "must\n\t\t// be on disk."},
	{"header names a snapshot table that is not on disk", "snapshot_change.go",
		"if err := d.writeCounts(); err != nil {\n\t\treturn err\n\t}\n\tfield", "field"},
	{"shared counts fall in place", "swap.go",
		"c.reftable, d.reftable = d.reftable, table", "c.reftable = d.reftable"},
	{"a snapshot's space is given up before its record is gone", "snapshot_change.go",
		"if err := d.writeSnapshots(append(records[:at:at], records[at+1:]...), oldSize); err != nil {\n\t\treturn nil, err\n\t}", "for i := range records {\n\t\tif i == at {\n\t\t\td.mu.Unlock()\n\t\t\t_ = d.dropTree(decodeTable(b))\n\t\t\td.mu.Lock()\n\t\t}\n\t}\n\tif err := d.writeSnapshots(append(records[:at:at], records[at+1:]...), oldSize); err != nil {\n\t\treturn nil, err\n\t}\n\tclear(b)"},
	{"a longer disk shows before what makes it zero is on disk", "resize.go",
		"must be on disk.\n\treturn d.finish()", "must be on disk.\n\treturn nil"},
	{"data linked as if it were on disk", "tables.go",
		"d.newData = true", ""},
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
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(src), m.from) != 1 {
		t.Fatalf("%s does not have this once:\n%s", m.file, m.from)
	}
	edited := strings.Replace(string(src), m.from, m.to, 1)
	dir := t.TempDir()
	copied, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	original, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(map[string]any{"Replace": map[string]string{original: copied}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{copied: []byte(edited), overlay: spec} {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "test", "-overlay", overlay, "-run", "^TestCrash$", "-count=1", ".",
		"-crash.states=100000").CombinedOutput()
	return string(out), err
}
