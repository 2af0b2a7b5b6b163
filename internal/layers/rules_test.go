package layers

// The rules, as data. A folder belongs to the first layer that names it; what a
// layer may import of this module is a list of layers.

import "strings"

// layer is a group of folders that stand at the same height.
type layer struct {
	name string
	// dirs are folders; "x/..." is x with all below it.
	dirs []string
	// may lists the layers whose packages non-test code may import.
	may []string
	// others lists the modules outside of the standard library that it may
	// import; nil for none.
	others []string
	// program is code that runs as a program and may print, log and exit.
	program bool
	// testing is code for tests only. No other layer's non-test code imports it.
	testing bool
}

var anyModule = []string{"github.com/klauspost/compress", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/term"}

var layers = []layer{
	{name: "test support", testing: true,
		dirs: []string{"block/blocktest", "internal/model", "internal/qemu", "internal/stamp", "internal/layers", "internal/tiny",
			"internal/crashfile", "internal/drill", "internal/faultfile", "internal/mutant", "internal/realdisk"},
		may: []string{"block", "internal", "test support"}},
	{name: "formats", dirs: []string{"internal/formats"}, testing: true, may: []string{"diskimg", "storage", "block", "test support"}},
	{name: "bench", dirs: []string{"internal/bench"}, program: true, testing: true, may: []string{"internal", "test support"}},
	{name: "block", dirs: []string{"block"}},
	{name: "cli", dirs: []string{"internal/cli/..."}, program: true,
		may: []string{"diskimg", "job", "block", "internal"}, others: anyModule},
	{name: "internal", dirs: []string{"internal/..."}, may: []string{"block", "internal"}, others: anyModule},
	{name: "storage", dirs: []string{"storage/..."}, may: []string{"block", "internal"}, others: anyModule},
	// A format never imports another format, nor storage: who wants one of them
	// links nothing else.
	{name: "format", dirs: []string{"raw", "qcow2", "luks", "vhd", "qed", "vhdx", "vmdk", "vdi"},
		may: []string{"block", "internal"}, others: anyModule},
	{name: "job", dirs: []string{"job/...", "nbd/..."}, may: []string{"block", "internal"}, others: anyModule},
	{name: "diskimg", dirs: []string{""}, may: []string{"storage", "format", "block", "internal"}},
	{name: "cmd", dirs: []string{"cmd/..."}, program: true, may: []string{"cli"}},
	{name: "examples", dirs: []string{"examples/...", "docs/..."}, program: true,
		may: []string{"diskimg", "job", "block", "format", "storage"}},
}

// badNames say nothing about what a package does.
var badNames = []string{"pkg", "util", "utils", "common", "helper", "helpers", "manager", "types"}

// badImports are never imported, by tests neither.
var badImports = map[string]string{
	"unsafe": "the memory safety of Go is part of what is promised",
	"C":      "the programs are static and built without cgo",
}

// badCalls are not made by library code: package and function, "*" for all.
var badCalls = map[string]string{
	"log.*":       "a library does not log",
	"log/slog.*":  "a library does not log",
	"fmt.Print":   "a library does not print",
	"fmt.Printf":  "a library does not print",
	"fmt.Println": "a library does not print",
	"os.Exit":     "a library does not end the program",
	"flag.*":      "a library has no command line",
	".panic":      "a library returns errors",
	".print":      "a library does not print",
	".println":    "a library does not print",
}

// layerOf returns the layer of a folder.
func layerOf(dir string) (layer, bool) {
	for _, l := range layers {
		for _, d := range l.dirs {
			if base, ok := strings.CutSuffix(d, "/..."); ok && (dir == base || strings.HasPrefix(dir, base+"/")) || d == dir {
				return l, true
			}
		}
	}
	return layer{}, false
}
