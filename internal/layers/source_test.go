package layers

// Reading the source tree: every Go file of the module, parsed, with the folder
// it lies in. Nothing is type-checked or built, so the test needs no network
// and sees the files of all systems.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/diskimg/diskimg"

// file is one Go file.
type file struct {
	dir  string // slash-separated, relative to the root of the module; "" is the root
	name string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// imports yields the import paths of f and where they stand.
func (f file) imports(yield func(string, token.Pos) bool) {
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		if !yield(p, i.Pos()) {
			return
		}
	}
}

func (f file) at(p token.Pos) string {
	return path.Join(f.dir, f.name) + ":" + strconv.Itoa(f.fset.Position(p).Line)
}

// tree parses all Go files below root but those of other modules and of
// folders that the go command ignores.
func tree(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skip(root, p)
		case !strings.HasSuffix(p, ".go"):
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), string(src))
		files = append(files, f)
		return err
	})
	return files, err
}

func skip(root, dir string) error {
	base := filepath.Base(dir)
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	if dir != root && (err == nil || base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_') {
		return fs.SkipDir
	}
	return nil
}

func parse(name, src string) (file, error) {
	fset := token.NewFileSet()
	a, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	dir, base := path.Split(name)
	return file{
		dir: strings.TrimSuffix(dir, "/"), name: base,
		test: strings.HasSuffix(base, "_test.go"), ast: a, fset: fset,
	}, err
}

// root returns the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}
