// Package docs is the documents of the project. Its tests keep them true: what
// they name must exist.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tests returns the names of all test functions, as package.TestName.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return err
		}
		pack := filepath.Base(dir)
		if filepath.Dir(path) == ".." {
			pack = "diskimg"
		}
		for _, m := range function.FindAllStringSubmatch(read(t, path), -1) {
			names[pack+"."+m[1]] = true
		}
		return nil
	})
	if err != nil || len(names) < 100 {
		t.Fatalf("%d test functions found, error %v", len(names), err)
	}
	return names
}

// Each row of the ledger names tests that exist, or says that it is open.
func TestLedger(t *testing.T) {
	exists, name := tests(t), regexp.MustCompile("`(\\w+\\.Test\\w+)`")
	rows := 0
	for line := range strings.Lines(read(t, "LEDGER.md")) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| ") || cells[0] == "| row" {
			continue
		}
		rows++
		proofs := name.FindAllStringSubmatch(cells[2], -1)
		if len(proofs) == 0 && !strings.Contains(cells[2], "**open**") {
			t.Errorf("no proof: %s", line)
		}
		for _, p := range proofs {
			if !exists[p[1]] {
				t.Errorf("there is no %s: %s", p[1], line)
			}
		}
	}
	if rows < 50 {
		t.Errorf("only %d rows found", rows)
	}
}

// documents are all that a reader is shown.
func documents(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"*.md", "../*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	if len(list) < 7 {
		t.Fatalf("documents found: %q", list)
	}
	return list
}

// Links lead to files that are there, and make targets that are named exist.
func TestReferences(t *testing.T) {
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	link, target := regexp.MustCompile(`\]\(([^)#:]+)\)`), regexp.MustCompile("make ([a-z][a-z-]+)[` \n]")
	makefile := read(t, "../Makefile")
	for _, path := range documents(t) {
		text := read(t, path)
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			}
		}
		for _, c := range code.FindAllString(text, -1) {
			for _, m := range target.FindAllStringSubmatch(c, -1) {
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s: %s: there is no make target %s", path, c, m[1])
				}
			}
		}
	}
}

// The Go that README.md shows is that of the examples, which are compiled and
// run.
func TestReadmeShowsExamples(t *testing.T) {
	squeeze := func(code string) string {
		var lines []string
		for line := range strings.Lines(code) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	examples := squeeze(read(t, "../example_test.go"))
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "../README.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("README.md shows no Go")
	}
	for _, b := range blocks {
		if !strings.Contains(examples, strings.TrimSpace(squeeze(b[1]))) {
			t.Errorf("not in example_test.go:\n%s", b[1])
		}
	}
}
