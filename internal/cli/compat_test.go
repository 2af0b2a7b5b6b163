package cli

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// docs/COMPAT.md tells of each option of each command how it compares with
// qemu-img's. This test makes that part of it, from the tables of options, the
// help of qemu-img, and the notes below; an option that has no note is the same,
// and has to be in a command line that is run with both programs.

var rewrite = flag.Bool("rewrite", false, "write the list of options into docs/COMPAT.md")

const compatFile = "../../docs/COMPAT.md"

// optionNotes say how options differ, by command and option, "*" being all
// commands.
var optionNotes = map[string]string{
	"* --object":                    "`secret` and `throttle-group`",
	"* -t":                          "checked; but for `unsafe`, which does not wait for the disk, all mean the same",
	"* -T":                          "checked; all mean the same",
	"convert --skip-broken-bitmaps": "not in qemu-img's help, but accepted by it",
	"bench --image-opts":            "not in qemu-img's help, but accepted by it",
	"bench -i":                      "checked; all mean the same",
	"bench -n":                      "checked; the same as without",
	"bench -q":                      "accepted by both, and nothing is printed less",
	"commit -p":                     "without a terminal the same; on a terminal `diskimg` draws a bar",
	"measure -U":                    "not in qemu-img's help, but accepted by it",
	"snapshot -d":                   "takes an ID as well; qemu-img 7.2 takes a name only",
	"convert -C":                    "the kernel copies where it can; where it can't, the data is read and written",
	"convert -m":                    "how many chunks are read at a time, not how many coroutines there are",
	"map -s":                        "the short form is not in qemu-img's help, but accepted by it",
	"map -l":                        "the short form is not in qemu-img's help, but accepted by it",
}

// lists are all command lines that are run with both programs.
func lists() []string {
	return slices.Concat(amendLines, benchLines, bitmapLines, checkLines, commitLines, compareLines, convertLines, createLines, ddLines,
		infoLines, mapLines, measureLines, qedLines, rawLines, rebaseLines, repairLines, resizeLines, nameLines, secretLines, snapshotLines, vpcLines)
}

func TestCompat(t *testing.T) {
	theirs := theirOptions(t)
	var b strings.Builder
	used := map[string]bool{}
	for _, v := range verbs() {
		if !v.own {
			v.describe(t, &b, theirs[v.name], used)
			delete(theirs, v.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		fmt.Fprintf(&b, "\n### %s\n\nMissing.\n", name)
	}
	for key := range optionNotes {
		if !used[key] {
			t.Errorf("a note is of use nowhere: %s", key)
		}
	}
	const begin, end = "<!-- options, written by TestCompat -->\n", "<!-- end of options -->\n"
	text, err := os.ReadFile(compatFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	was, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("no place for options in %s", compatFile)
	}
	if was == b.String() {
		return
	}
	if !*rewrite {
		t.Fatalf("%s is out of date: go test ./internal/cli -run TestCompat -rewrite", compatFile)
	}
	if err := os.WriteFile(compatFile, []byte(before+begin+b.String()+end+after), 0o666); err != nil {
		t.Fatal(err)
	}
}

// theirOptions returns the options of each command by the help of qemu-img.
func theirOptions(t *testing.T) map[string][]string {
	t.Helper()
	qemu.Need(t, "qemu-img")
	out, err := exec.Command("qemu-img", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	command, option := regexp.MustCompile(`^  ([a-z]+) .*-.*`), regexp.MustCompile(`[ (\[|](--?[a-zA-Z][a-z-]*)`)
	all := map[string][]string{}
	_, syntax, _ := strings.Cut(string(out), "Command syntax:\n")
	for line := range strings.Lines(syntax) {
		if line == "\n" {
			break
		}
		m := command.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("help of qemu-img: %q", line)
		}
		for _, o := range option.FindAllStringSubmatch(line[len(m[1])+2:], -1) {
			all[m[1]] = append(all[m[1]], o[1])
		}
	}
	return all
}

// describe writes about one command.
func (v *verb) describe(t *testing.T, b *strings.Builder, theirs []string, used map[string]bool) {
	var same, notes []string
	missing := slices.Clone(theirs)
	for _, o := range v.asQEMU(v.new().options()) {
		has := func(s string) bool { return slices.Contains(o.spellings(), s) }
		missing = slices.DeleteFunc(missing, has)
		note, key := noteOf(v, &o)
		used[key] = true
		if note == "" && !slices.ContainsFunc(theirs, has) {
			t.Errorf("%s %s: qemu-img has no such option; it needs a note, or to be marked as our own", v.name, o.spelling())
		}
		if note != "" {
			notes = append(notes, fmt.Sprintf("| `%s` | %s |\n", strings.TrimSpace(o.spelling()), note))
			continue
		}
		same = append(same, "`"+strings.TrimSpace(o.spelling())+"`")
		if !v.tries(&o) {
			t.Errorf("%s %s: no command line with it is run with qemu-img", v.name, o.spelling())
		}
	}
	for _, o := range missing {
		notes = append(notes, fmt.Sprintf("| `%s` | missing |\n", o))
	}
	fmt.Fprintf(b, "\n### %s\n\nThe same: %s.\n", v.name, strings.Join(same, ", "))
	if len(notes) > 0 {
		fmt.Fprintf(b, "\n| option | |\n|---|---|\n%s", strings.Join(notes, ""))
	}
}

// noteOf returns what is to be said of an option, and where that was found.
func noteOf(v *verb, o *option) (note, key string) {
	for _, name := range []string{v.name, "*"} {
		for _, s := range o.spellings() {
			if key := name + " " + s; optionNotes[key] != "" {
				return optionNotes[key], key
			}
		}
	}
	return "", ""
}

// tries reports whether a command line has the option, and is run with both
// programs.
func (v *verb) tries(o *option) bool {
	return slices.ContainsFunc(lists(), func(line string) bool {
		list := words(line)
		return list[0] == v.name && slices.ContainsFunc(list[1:], o.isIn)
	})
}

// isIn reports whether a word of a command line is the option.
func (o *option) isIn(word string) bool {
	name, _, _ := strings.Cut(word, "=")
	return slices.Contains(o.spellings(), name) || o.short != 0 && len(word) > 2 && word[0] == '-' && word[1] != '-' && strings.IndexByte(word[1:], o.short) >= 0
}
