package layers

import (
	"cmp"
	"go/ast"
	"maps"
	"path"
	"slices"
	"testing"
)

// function is one function of non-test code and its length in lines.
type function struct {
	name  string
	lines int
}

// TestFunctionLengths prints how long functions are: the median wants to be
// about ten lines and the 90th percentile under forty. It never fails on it.
func TestFunctionLengths(t *testing.T) {
	files, err := tree(root(t))
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string][]function{}
	for _, f := range files {
		if !f.test {
			packages[f.dir] = append(packages[f.dir], functions(f)...)
			packages["all"] = append(packages["all"], functions(f)...)
		}
	}
	if len(packages["all"]) == 0 {
		t.Fatal("no function found")
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		fs := packages[dir]
		if len(fs) == 0 {
			continue
		}
		slices.SortFunc(fs, func(a, b function) int { return cmp.Compare(a.lines, b.lines) })
		longest := fs[len(fs)-1]
		t.Logf("%-20s %4d functions, median %2d lines, p90 %2d, longest %3d (%s)", path.Join("./", dir),
			len(fs), fs[len(fs)/2].lines, fs[len(fs)*9/10].lines, longest.lines, longest.name)
	}
}

func functions(f file) (list []function) {
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			list = append(list, function{fn.Name.Name, lines})
		}
	}
	return list
}
