package layers

import (
	"cmp"
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	files, err := tree(root(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found", len(files))
	}
	for _, f := range files {
		for _, v := range violations(f) {
			t.Error(v)
		}
	}
}

// violations returns one sentence for each rule that a file breaks.
func violations(f file) []string {
	l, ok := layerOf(f.dir)
	if !ok {
		return []string{fmt.Sprintf("%s: the folder %q belongs to no layer: name it in internal/layers", f.name, f.dir)}
	}
	found := append(badName(f), banned(f)...)
	if f.test {
		return found
	}
	found = append(found, wrongImports(f, l)...)
	if !l.program && !l.testing {
		found = append(found, misconduct(f)...)
	}
	return found
}

func badName(f file) []string {
	if name := f.ast.Name.Name; slices.Contains(badNames, name) {
		return []string{fmt.Sprintf("%s: a package called %s says nothing of what it does", f.at(f.ast.Name.Pos()), name)}
	}
	return nil
}

func banned(f file) (found []string) {
	for p, pos := range f.imports {
		if why, bad := badImports[p]; bad {
			found = append(found, fmt.Sprintf("%s: imports %q: %s", f.at(pos), p, why))
		}
	}
	return found
}

func wrongImports(f file, l layer) (found []string) {
	for p, pos := range f.imports {
		if !allowed(l, f.dir, p) {
			found = append(found, fmt.Sprintf("%s: %s code may not import %s", f.at(pos), l.name, p))
		}
	}
	return found
}

// allowed reports whether non-test code of layer l in dir may import a path.
func allowed(l layer, dir, importPath string) bool {
	to, ours := strings.CutPrefix(importPath+"/", module+"/")
	to = strings.TrimSuffix(to, "/")
	if !ours {
		first, _, _ := strings.Cut(importPath, "/")
		standard := !strings.Contains(first, ".")
		return standard && (first != "testing" || l.testing) || slices.ContainsFunc(l.others, func(m string) bool {
			return strings.HasPrefix(importPath+"/", m+"/")
		})
	}
	target, ok := layerOf(to)
	// A folder belongs to one thing with the folders below it.
	below := target.name == l.name && (strings.HasPrefix(to, dir+"/") || strings.HasPrefix(dir, to+"/"))
	return ok && (below || slices.Contains(l.may, target.name))
}

// misconduct finds what library code does not do.
func misconduct(f file) (found []string) {
	names := packageNames(f)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				found = append(found, f.at(n.Pos())+": a library has no init function")
			}
		case *ast.CallExpr:
			if called := callee(n, names); whyNot(called) != "" {
				found = append(found, fmt.Sprintf("%s: calls %s: %s", f.at(n.Pos()), strings.TrimPrefix(called, "."), whyNot(called)))
			}
		}
		return true
	})
	return found
}

func whyNot(called string) string {
	pack, _, _ := strings.Cut(called, ".")
	return cmp.Or(badCalls[called], badCalls[pack+".*"])
}

// packageNames maps the names that f gives to imported packages to their paths.
func packageNames(f file) map[string]string {
	names := map[string]string{}
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = p
	}
	return names
}

// callee names what is called as "import/path.Func", or ".func" for what needs
// no package.
func callee(c *ast.CallExpr, names map[string]string) string {
	switch fun := c.Fun.(type) {
	case *ast.Ident:
		return "." + fun.Name
	case *ast.SelectorExpr:
		if x, ok := fun.X.(*ast.Ident); ok && names[x.Name] != "" {
			return names[x.Name] + "." + fun.Sel.Name
		}
	}
	return ""
}

// Each rule, broken once, is seen; what is fine passes.
func TestRulesAreEnforced(t *testing.T) {
	const block, q = module + "/block", "\""
	imports := func(pack, path string) string { return "package " + pack + "\nimport _ " + q + path + q + "\n" }
	for _, c := range []struct {
		file, src, want string // want is part of the one violation; "" for none
	}{
		{"block/a.go", imports("block", "io"), ""},
		{"block/a.go", imports("block", "golang.org/x/sys/unix"), "may not import"},
		{"block/a.go", imports("block", module+"/internal/zero"), "may not import"},
		{"qcow2/a.go", imports("qcow2", block), ""},
		{"qcow2/a.go", imports("qcow2", module+"/internal/cache"), ""},
		{"qcow2/a.go", imports("qcow2", module+"/raw"), "may not import"},
		{"qcow2/a.go", imports("qcow2", module+"/storage"), "may not import"},
		{"qcow2/a.go", imports("qcow2", module), "may not import"},
		{"qcow2/a.go", imports("qcow2", module+"/internal/model"), "may not import"},
		{"qcow2/a.go", imports("qcow2", module+"/internal/cli"), "may not import"},
		{"qcow2/a_test.go", imports("qcow2", module+"/storage"), ""},
		{"qcow2/a.go", imports("qcow2", "testing"), "may not import"},
		{"qcow2/a_test.go", imports("qcow2", "unsafe"), "imports"},
		{"qcow2/a.go", imports("qcow2", "github.com/evil/module"), "may not import"},
		{"qcow2/a.go", imports("qcow2", "github.com/klauspost/compress/zstd"), ""},
		{"storage/a.go", imports("storage", module+"/raw"), "may not import"},
		{"storage/http/a.go", imports("http", module+"/storage"), ""},
		{"job/a.go", imports("job", module+"/qcow2"), "may not import"},
		{"job/a.go", imports("job", module), "may not import"},
		{"job/a.go", imports("job", block), ""},
		{"a.go", imports("diskimg", module+"/qcow2"), ""},
		{"a.go", imports("diskimg", module+"/job"), "may not import"},
		{"internal/cli/a.go", imports("cli", module), ""},
		{"internal/cli/a.go", imports("cli", module+"/qcow2"), "may not import"},
		{"internal/zero/a.go", imports("zero", module+"/storage"), "may not import"},
		{"internal/model/a.go", imports("model", module+"/block/blocktest"), ""},
		{"cmd/diskimg/a.go", imports("main", module+"/internal/cli"), ""},
		{"cmd/diskimg/a.go", imports("main", module+"/qcow2"), "may not import"},
		{"raw/a.go", "package raw\nimport \"C\"\n", "imports \"C\""},
		{"raw/a.go", "package util\n", "says nothing"},
		{"lib/a.go", "package lib\n", "belongs to no layer"},
		{"raw/a.go", "package raw\nfunc init() {}\n", "init function"},
		{"raw/a.go", "package raw\nfunc (r R) init() {}\n", ""},
		{"raw/a.go", "package raw\nfunc f() { panic(1) }\n", "calls panic"},
		{"raw/a.go", "package raw\nimport \"log\"\nfunc f() { log.Printf(\"\") }\n", "calls log.Printf"},
		{"raw/a.go", "package raw\nimport l \"log/slog\"\nfunc f() { l.Info(\"\") }\n", "calls log/slog.Info"},
		{"raw/a.go", "package raw\nimport \"fmt\"\nfunc f() { fmt.Println() }\n", "calls fmt.Println"},
		{"raw/a.go", "package raw\nimport \"fmt\"\nfunc f() { fmt.Sprint() }\n", ""},
		{"raw/a_test.go", "package raw\nimport \"fmt\"\nfunc f() { fmt.Println(); panic(1) }\n", ""},
		{"internal/cli/a.go", "package cli\nimport \"os\"\nfunc f() { os.Exit(1) }\n", ""},
	} {
		f, err := parse(c.file, c.src)
		if err != nil {
			t.Fatal(err)
		}
		v := violations(f)
		if ok := c.want == "" && len(v) == 0 || c.want != "" && len(v) == 1 && strings.Contains(v[0], c.want); !ok {
			t.Errorf("%s with %q: violations %q, want %q", c.file, c.src, v, c.want)
		}
	}
}
