package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// The shells themselves complete with the scripts (apt-get install zsh fish).

func TestCompletion(t *testing.T) {
	const bash = `complete -p qemu-img diskimg >/dev/null || exit 1; f() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _diskimg 2>/dev/null; echo ${COMPREPLY[@]}; }; f `
	const zsh = `compdef() { print -- compdef $@; }; _arguments() { [[ $1 == -C ]] && state=rest || print -rl -- $@; }; source $SCRIPT; words=(convert); _diskimg`
	for _, c := range []struct{ shell, line, want string }{
		{"bash", bash + `diskimg conv`, "convert\n"},
		{"bash", bash + `qemu-img -T x info --outp`, "--output\n"},
		{"bash", bash + `diskimg info --output = j`, "json\n"},
		{"bash", bash + `diskimg convert -O qc`, "qcow2\n"},
		{"bash", bash + `diskimg convert a.ra`, "\n"}, // left to bash's completion of files
		{"bash", bash + `diskimg man ma`, "map man\n"},
		{"fish", `complete -C "diskimg conv"`, "convert\tcopy images into a new one, of any format\n"},
		{"fish", `complete -C "qemu-img completi"`, ""},
		{"fish", `complete -C "diskimg completion b"`, "bash\n"},
		{"fish", `complete -C "diskimg info --output "`, "human\thow to print the result\njson\thow to print the result\n"},
		{"zsh", zsh, "*-O+[format of the output (default  raw)]:FMT:(" + strings.Join(formatNames(), " ") + ")\n"},
		{"zsh", zsh, "compdef _diskimg diskimg qemu-img\n"},
	} {
		if out := complete(t, c.shell, c.line); !strings.Contains(out, c.want) || c.want == "" && out != "" {
			t.Errorf("%s: %s: %q, want %q", c.shell, c.line, out, c.want)
		}
	}
}

// complete runs a line in a shell that has loaded its script.
func complete(t *testing.T, shell, line string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	var out, errs bytes.Buffer
	if code := Run(t.Context(), []string{"diskimg", "completion", shell}, nil, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	if err := os.WriteFile(script, out.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	if shell != "zsh" {
		line = "source $SCRIPT; " + line
	}
	flags := map[string]string{"bash": "--norc", "zsh": "-f", "fish": "--no-config"}
	cmd := exec.Command(program(t, shell), flags[shell], "-c", line)
	cmd.Env = append(os.Environ(), "SCRIPT="+script, "HOME="+filepath.Dir(script))
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("%s: %v\n%s", shell, err, errs.String())
	}
	return string(text)
}

// Each page is without fault, and is about each option of its verb.
func TestManualPages(t *testing.T) {
	for _, name := range append(verbNames(), "") {
		args := []string{"diskimg", "man", name}
		if name == "" {
			args = args[:2]
		}
		var page, errs bytes.Buffer
		if code := Run(t.Context(), args, nil, &page, &errs); code != 0 {
			t.Fatal(errs.String())
		}
		cmd := exec.Command(program(t, "mandoc"), "-T", "ascii", "-W", "error")
		cmd.Stdin = &page
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("man %s: %v\n%s", name, err, text)
		}
		for _, word := range wordsOf(name) {
			if !strings.Contains(strings.ReplaceAll(string(text), "\b", ""), bold(word)) {
				t.Errorf("man %s: no word of %s", name, word)
			}
		}
	}
}

// wordsOf returns what a page must have an item for.
func wordsOf(name string) []string {
	if name == "" {
		return verbNames()
	}
	var words []string
	for _, o := range findVerb(name).allOptions() {
		words = append(words, o.spellings()...)
	}
	return words
}

// bold is how a terminal that overstrikes shows a word, without the backspaces.
func bold(word string) string {
	var b strings.Builder
	for _, c := range word {
		b.WriteString(string(c) + string(c))
	}
	return b.String()
}

func program(t *testing.T, name string) string {
	t.Helper()
	qemu.Need(t, name)
	return name
}
