package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
)

// run runs a command line of our own, args[0] being the program.
func run(t *testing.T, args ...string) result {
	t.Helper()
	return runUnder(t.Context(), args...)
}

func runUnder(ctx context.Context, args ...string) result {
	var out, err bytes.Buffer
	code := Run(ctx, args, strings.NewReader(""), &out, &err)
	return result{out.String(), err.String(), code}
}

func TestGetopt(t *testing.T) {
	for _, c := range []struct {
		line    string
		want    string // options given, then the rest
		err     string
		inOrder bool
	}{
		{line: "", want: "|"},
		{line: "a b", want: "|a b"},
		{line: "-c -f x a", want: "c f=x|a"},
		{line: "a -c b -fx", want: "c f=x|a b"},
		{line: "-cfx a", want: "c f=x|a"},
		{line: "-cf x a", want: "c f=x|a"},
		{line: "-fc a", want: "f=c|a"},
		{line: "--format=x a --format y", want: "f=x f=y|a"},
		{line: "--form x --comp", want: "f=x c|"},
		{line: "--format= a", want: "f=|a"},
		{line: "--format=a=b", want: "f=a=b|"},
		{line: "-c -- -f --zz", want: "c|-f --zz"},
		{line: "- -c", want: "c|-"},
		{line: "-c a -f x", want: "c|a -f x", inOrder: true},
		{line: "-c -c", want: "c c|"},
		{line: "-f", err: "missing argument for option '-f'"},
		{line: "-cf", err: "missing argument for option '-cf'"},
		{line: "--format", err: "missing argument for option '--format'"},
		{line: "--compress=x", err: "unrecognized option '--compress=x'"},
		{line: "--co", err: "unrecognized option '--co'"}, // compress or count
		{line: "--count", want: "count|"},
		{line: "--countx", err: "unrecognized option '--countx'"},
		{line: "-z", err: "unrecognized option '-z'"},
		{line: "-cz", err: "unrecognized option '-cz'"},
		{line: "a -czc b", err: "unrecognized option '-czc'"},
		{line: "--", want: "|"},
		{line: "-\x00", err: "unrecognized option '-\x00'"},
	} {
		var given []string
		note := func(name string) func(string) error {
			return func(v string) error {
				if name == "f" {
					v = "=" + v
				}
				given = append(given, name+v)
				return nil
			}
		}
		options := []option{
			{short: 'c', long: "compress", set: note("c")},
			{long: "count", set: note("count")},
			{short: 'f', long: "format", arg: "FMT", set: note("f")},
		}
		rest, err := getopt(options, strings.Fields(c.line), c.inOrder)
		if c.err != "" {
			var usage usageError
			if !errors.As(err, &usage) || err.Error() != c.err {
				t.Errorf("%q: %v, want %s", c.line, err, c.err)
			}
			continue
		}
		if got := strings.Join(given, " ") + "|" + strings.Join(rest, " "); err != nil || got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.line, got, err, c.want)
		}
	}
}

func TestPosixlyCorrect(t *testing.T) {
	t.Setenv("POSIXLY_CORRECT", "1")
	rest, err := getopt([]option{{short: 'c', set: func(string) error { return nil }}}, []string{"-c", "a", "-z"}, false)
	if err != nil || !slices.Equal(rest, []string{"a", "-z"}) {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestSplitOptions(t *testing.T) {
	for s, want := range map[string][]pair{
		"":             nil,
		"a=b":          {{"a", "b", false}},
		"a=b,c=d":      {{"a", "b", false}, {"c", "d", false}},
		"a":            {{"a", "on", true}},
		"a,b=c":        {{"a", "on", true}, {"b", "c", false}},
		"a=b,,c":       {{"a", "b,c", false}},
		"a=b,,,c":      {{"a", "b,", false}, {"c", "on", true}},
		"a=b,,":        {{"a", "b,", false}},
		"a=b=c":        {{"a", "b=c", false}},
		"=b":           {{"", "b", false}},
		"a,,b":         {{"a", "on", true}, {"", "on", true}, {"b", "on", true}},
		"a=":           {{"a", "", false}},
		"a.b=/x, y ,c": {{"a.b", "/x", false}, {" y ", "on", true}, {"c", "on", true}},
	} {
		if got := splitOptions(s); !slices.Equal(got, want) {
			t.Errorf("splitOptions(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestOptionList(t *testing.T) {
	for s, ok := range map[string]bool{"a": true, "a=b,,": true, "": false, ",": false, ",a": false, "a,": false, "a,,,": false, "a,,": true} {
		var l optionList
		if err := l.add(s); ok != (err == nil) {
			t.Errorf("%q: %v", s, err)
		}
	}
	var l optionList
	if err := errors.Join(l.add("a=1"), l.add("help")); err != nil || !l.wantsHelp() || l.text != "a=1,help" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	err := writeJSON(&b, object{
		{"text", "a\"\\\n\x01\x7fé€😀\xff</"}, {"number", int64(5)}, {"flag", true},
		{"list", []any{"x", object{{"y", 1}}}}, {"objects", []object{{{"a", "b"}}, {{"c", "d"}}}},
	})
	const want = `{
    "text": "a\"\\\n\u0001\u007F\u00E9\u20AC\uD83D\uDE00\uFFFD</",
    "number": 5,
    "flag": true,
    "list": [
        "x",
        {
            "y": 1
        }
    ],
    "objects": [
        {
            "a": "b"
        },
        {
            "c": "d"
        }
    ]
}
`
	if err != nil || b.String() != want {
		t.Errorf("got\n%s%v", b.String(), err)
	}
}

// The tables of options are what parser, help and syntax lines are made of.
func TestTables(t *testing.T) {
	for _, v := range verbs() {
		names := map[string]bool{}
		options := append(v.new().options(), helpOption)
		for _, o := range options {
			for _, name := range []string{string(rune(o.short)), o.long} {
				if names[name] && name != "" && name != "\x00" {
					t.Errorf("%s: option %q is there twice", v.name, name)
				}
				names[name] = true
			}
			if o.help == "" || o.set == nil || o.short == 0 && o.long == "" {
				t.Errorf("%s: option %c %s lacks something", v.name, o.short, o.long)
			}
		}
		for _, program := range []string{"diskimg", "qemu-img"} {
			if v.own && program == "qemu-img" {
				continue
			}
			r := run(t, program, v.name, "--help")
			if v.own && program == qemuImg {
				if r.code != 1 || !strings.Contains(r.stderr, "Command not found: "+v.name) {
					t.Errorf("%s %s: %+v", program, v.name, r)
				}
				continue
			}
			if r.code != 0 || r.stderr != "" || !strings.HasPrefix(r.stdout, program+" "+v.name+": ") {
				t.Errorf("%s %s --help: %+v", program, v.name, r)
			}
			for line := range strings.Lines(r.stdout) {
				if len([]rune(line)) > 100 {
					t.Errorf("%s --help: long line %q", v.name, line)
				}
			}
			there := slices.Clone(options)
			if program == qemuImg {
				there = v.asQEMU(there)
			}
			for _, o := range there {
				if !strings.Contains(r.stdout, o.spelling()) {
					t.Errorf("%s %s --help does not show %s", program, v.name, o.spelling())
				}
			}
			for _, o := range options {
				if o.own && program == qemuImg && (strings.Contains(r.stdout, " "+o.spelling()+" ") || strings.Contains(r.stdout, " "+o.spelling()+"=")) {
					t.Errorf("%s %s --help shows %s", program, v.name, o.spelling())
				}
			}
		}
	}
}

func TestTopLevel(t *testing.T) {
	for _, c := range []struct {
		line, stdout, stderr string
		code                 int
	}{
		{"diskimg", "(?s)diskimg reads.*Make and copy\n.*  convert .*Look inside\n.*  info .*", "", 0},
		{"diskimg --help", "(?s)diskimg reads.*", "", 0},
		{"diskimg --version", `diskimg version \S+\n`, "", 0},
		{"/usr/local/bin/diskimg --version", `diskimg version \S+\n`, "", 0},
		{"qemu-img --version", `qemu-img version 7\.2\.\d+ \(diskimg \S+\)\n`, "", 0},
		{"qemu-img -V", `qemu-img version .*\n`, "", 0},
		{"diskimg qemu-img -V", `qemu-img version .*\n`, "", 0},
		{"/bin/qemu-img.exe -V", `qemu-img version .*\n`, "", 0},
		{"qemu-img -h", "(?s)qemu-img version .*\n  convert .*Supported formats: luks qcow2 qed raw vpc\n", "", 0},
		{"qemu-img", "", "qemu-img: Not enough arguments\nTry 'qemu-img --help' for more information\n", 1},
		{"diskimg nosuch", "", "diskimg: Command not found: nosuch\nTry 'diskimg --help' for more information\n", 1},
		{"diskimg --nosuch", "", "diskimg: unrecognized option '--nosuch'\nTry 'diskimg --help' for more information\n", 1},
		{"diskimg info missing", "", "diskimg: Could not open 'missing': No such file or directory\n", 1},
		{"qemu-img -T x info missing", "", "qemu-img: warning: trace event 'x' does not exist\nqemu-img: Could not open 'missing': .*\n", 1},
	} {
		r := run(t, strings.Fields(c.line)...)
		if r.code != c.code || !regexp.MustCompile("^"+c.stdout+"$").MatchString(r.stdout) || r.stderr != c.stderr && !regexp.MustCompile("^"+c.stderr+"$").MatchString(r.stderr) {
			t.Errorf("%s: %+v", c.line, r)
		}
	}
	if code := Run(t.Context(), nil, nil, &bytes.Buffer{}, &bytes.Buffer{}); code != 0 {
		t.Errorf("without even a name: %d", code)
	}
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestLostOutputIsAnError(t *testing.T) {
	var stderr bytes.Buffer
	if code := Run(t.Context(), []string{"diskimg"}, nil, fullWriter{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "could not write the output: full") {
		t.Errorf("%d, %s", code, &stderr)
	}
}

// A job that is cancelled leaves nothing, and what was there before.
func TestCancel(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, bytes.Repeat([]byte("data"), 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{"", "before"} {
		if before != "" {
			if err := os.WriteFile(out, []byte(before), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		cancelled, stop := context.WithCancel(t.Context())
		context.AfterFunc(ctx, stop)
		start := time.Now()
		r := runUnder(cancelled, "diskimg", "convert", "-r", "1M", "-O", "qcow2", in, out)
		cancel()
		if r.code != exitInterrupted || r.stderr != "diskimg: interrupted; nothing has been made\n" || time.Since(start) > 2*time.Second {
			t.Errorf("%+v after %v", r, time.Since(start))
		}
		b, err := os.ReadFile(out)
		if string(b) != before || before == "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left %d bytes, %v; before: %q", len(b), err, before)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	}
}

// People are told what to do next; who calls us qemu-img is not.
func TestAdvice(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("text", []byte("nothing"), 0o666); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"diskimg convrt a b":                     "diskimg: Command not found: convrt; did you mean convert?\nTry 'diskimg --help' for more information\n",
		"diskimg xyz":                            "diskimg: Command not found: xyz\nTry 'diskimg --help' for more information\n",
		"diskimg info":                           "diskimg: Expecting one image file name\nusage: diskimg info [options] FILE\nTry 'diskimg info --help' for more information\n",
		"diskimg dd if=text":                     "diskimg: Must specify both input and output files\nusage: diskimg dd [options] [bs=SIZE] [count=N] [skip=N] if=FILE of=OUTPUT\nTry 'diskimg dd --help' for more information\n",
		"diskimg info -Z text":                   "diskimg: unrecognized option '-Z'\nusage: diskimg info [options] FILE\nTry 'diskimg info --help' for more information\n",
		"diskimg info none":                      "diskimg: Could not open 'none': No such file or directory\n",
		"diskimg info -f qcow2 text":             "diskimg: Could not open 'text': Image is not in qcow2 format\nhint: without -f the format is found out from the image\n",
		"diskimg create -f qcow2 new":            "diskimg: new: Image creation needs a size parameter\nhint: after the name comes the size of the disk, such as 20G\n",
		"diskimg create -f qcow2 -b text new":    "diskimg: new: Backing file specified without backing format\nDetected format of raw.\nhint: say with -F which format text has\n",
		"diskimg create -f qcow2 -o foo=1 new 1": "diskimg: new: Invalid parameter 'foo'\nhint: 'diskimg create -f qcow2 -o help' lists what there is for -o\n",
		"diskimg create -f foo new 1":            "diskimg: new: Unknown file format 'foo'\nhint: formats are " + strings.Join(formatNames(), ", ") + "\n",
		"diskimg info -f foo text":               "diskimg: Could not open 'text': Unknown driver 'foo'\nhint: formats are " + strings.Join(formatNames(), ", ") + "\n",
		"diskimg convert -O foo text new":        "diskimg: Unknown file format 'foo'\nhint: formats are " + strings.Join(formatNames(), ", ") + "\n",
		"diskimg convert -O vmdk text new":       "diskimg: Format driver 'vmdk' does not support image creation\nhint: formats are " + strings.Join(formatNames(), ", ") + "\n",
		"diskimg create -q -f luks new 1M":       "diskimg: new: Parameter 'key-secret' is required for cipher\nhint: give it with --object secret,id=key,file=PATH -o key-secret=key\n",
		"qemu-img create -f foo new 1":           "qemu-img: new: Unknown file format 'foo'\n",
		"qemu-img convrt a b":                    "qemu-img: Command not found: convrt\nTry 'qemu-img --help' for more information\n",
		"qemu-img dd if=text":                    "qemu-img: Must specify both input and output files\n",
		"qemu-img info none":                     "qemu-img: Could not open 'none': Could not open 'none': No such file or directory\n",
	} {
		var out, errs bytes.Buffer
		if code := Run(t.Context(), words(line), nil, &out, &errs); code != 1 || out.Len() > 0 || errs.String() != want {
			t.Errorf("%s: exit code %d, %s\n%s\nwant\n%s", line, code, out.String(), errs.String(), want)
		}
	}
	for _, a := range advices {
		var errs bytes.Buffer
		sh := &shell{name: "diskimg", err: &errs}
		sh.report(openError("disk", block.Errorf(a.err, "something")))
		if want := "diskimg: Could not open 'disk': something\nhint: " + a.advice + "\n"; errs.String() != want {
			t.Errorf("%v: %q, want %q", a.err, errs.String(), want)
		}
	}
}

func TestProgressAsQEMU(t *testing.T) {
	var out, errs bytes.Buffer
	sh := &shell{emulate: true, err: &errs}
	sh.setOutput(&out)
	p := sh.progress(true)
	for n := range int64(1001) {
		p.update(n, 1000)
	}
	p.finish(nil)
	p.end()
	lines := strings.Split(out.String(), "\r")
	if len(lines) != 103 || lines[0] != "    (0.00/100%)" || lines[1] != "    (1.00/100%)" || lines[100] != "    (100.00/100%)" ||
		lines[101] != "    (100.00/100%)" || lines[102] != "\n" {
		t.Errorf("%d lines: %q", len(lines), out.String())
	}
}

func TestProgressBar(t *testing.T) { synctest.Test(t, testProgressBar) }

func testProgressBar(t *testing.T) {
	var out bytes.Buffer
	p := &progress{draw: (*progress).drawBar, bar: true, out: &out, start: time.Now().Add(-2 * time.Second),
		width: func() int { return 100 }, signals: make(chan os.Signal)}
	p.update(1<<20, 4<<20)
	p.update(2<<20, 4<<20) // too soon after the other
	p.finish(nil)
	p.end()
	want := "\r[##########..............................]  25.0%  1 MiB of 4 MiB  512 KiB/s  6s left\x1b[K" +
		"\r[########################################] 100.0%  4 MiB of 4 MiB  2 MiB/s  in 2s\x1b[K\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	if got := bar(6, 50); got != "" {
		t.Errorf("a bar in no room: %q", got)
	}
}

// What QEMU holds, we leave alone, and say so in its words; -U looks anyway.
func TestLockedByQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	t.Chdir(dir)
	qemu.Img(t, "create", "-q", "-f", "qcow2", "q", "1M")
	qemu.Img(t, "create", "-q", "-f", "raw", "raw", "1M")
	qemu.Img(t, "create", "-q", "-f", "qcow2", "other", "1M")
	lines := []string{
		"info q", "info -U q", "map q", "map -U q", "check q", "check -U q", "check -r all q", "compare q other", "compare -U q other", "convert q new",
		"convert -U q new", "convert -n -O qcow2 other q", "convert other q", "convert -O qcow2 other q", "create -f qcow2 q 1M", "create -f raw q 1M",
		"info raw", "map raw", "compare raw other", "convert raw new", "convert -U raw new", "convert other raw", "create -f qcow2 raw 1M",
		"convert -n -O qcow2 other raw",
	}
	allowed := map[string]string{
		// QEMU writes a raw image that another one writes.
		"convert other raw": "qemu-img: raw: error while converting raw: Failed to get shared \"write\" lock\nIs another process using the image [raw]?\n",
	}
	for _, access := range []string{"", "-r "} {
		for _, image := range []string{"q", "raw"} {
			holdWithQEMU(t, access, image, func() {
				for _, line := range lines {
					if !strings.Contains(line+" ", " "+image+" ") {
						continue
					}
					got := runOurs(t, dir, words(line)...)
					os.Remove("new")
					want := runTheirs(t, dir, words(line)...)
					os.Remove("new")
					if text, ok := allowed[line]; ok && access == "" {
						want = result{"", text, 1}
					}
					if got != want {
						t.Errorf("%s while qemu-io %shas %s open:\n%+v\nqemu-img:\n%+v", line, access, image, got, want)
					}
				}
			})
		}
	}
}

// holdWithQEMU calls f while qemu-io has an image open.
func holdWithQEMU(t *testing.T, access, image string, f func()) {
	t.Helper()
	format := map[string]string{"q": "qcow2", "raw": "raw"}[image]
	held, release := holdOpen(t, fmt.Sprintf("open %s-o driver=%s %s", access, format, image))
	defer release()
	<-held
	f()
}

// An output over an image deeper in the chain gets all that lies between.
func TestConvertOverDeeperImage(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	below := ""
	for i, name := range []string{"base", "middle", "upper", "top"} {
		args := []string{"create", "-q", "-f", "qcow2", at(name), "1M"}
		if below != "" {
			args = append(args[:4], "-b", below, "-F", "qcow2", at(name))
		}
		qemu.Img(t, args...)
		qemu.IO(t, at(name), "qcow2", fmt.Sprintf("write -P %d %dk 128k", i+1, 64*i))
		below = at(name)
	}
	over := func(name string, args ...string) (clusters int64) {
		args = append([]string{"diskimg", "convert", "-O", "qcow2", "-B", at(name), "-F", "qcow2", at("top"), at("out")}, args...)
		if r := runUnder(t.Context(), args...); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		qemu.Img(t, "compare", at("top"), at("out"))
		info, err := os.Stat(at("out"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()>>16 - 5 // of tables
	}
	for name, want := range map[string]int64{"base": 4, "middle": 3, "upper": 2} {
		if got := over(name); got != want {
			t.Errorf("over %s: %d clusters of data, want %d", name, got, want)
		}
		qemu.Img(t, "create", "-q", "-f", "qcow2", "-b", at(name), "-F", "qcow2", at("out"))
		if got := over(name, "-n"); got != want {
			t.Errorf("into an empty image over %s: %d clusters of data, want %d", name, got, want)
		}
	}
	qemu.IO(t, at("out"), "qcow2", "write -P 7 0 1M")
	if got := over("base", "-n"); got != 16 {
		t.Errorf("into an image that has all clusters: %d of data", got)
	}
}

// Clusters of which little has been written are data, and what was only given
// a place is not: map shows of an image of ours what QEMU shows of its own.
func TestMapOfBegunClusters(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, mode := range []string{"off", "metadata", "falloc"} {
		qemu.Img(t, "create", "-q", "-f", "qcow2", "-o", "preallocation="+mode, "theirs", "4M")
		runUnder(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation="+mode, "ours", "4M")
		line := []string{"qemu-io", "ours"}
		for i := range 5 {
			write := fmt.Sprintf("write %dk 4k", 100*i)
			qemu.IO(t, "theirs", "qcow2", write)
			line = append(line, "-c", write)
		}
		runUnder(t.Context(), line...)
		want := qemu.Img(t, "map", "--output=json", "theirs")
		if r := runUnder(t.Context(), "qemu-img", "map", "--output=json", "ours"); r.stdout != want {
			t.Errorf("preallocation=%s:\n%s\nqemu-img shows of its own\n%s", mode, r.stdout, want)
		}
	}
}

// Called as diskimg, nothing is done by a name that two snapshots have.
func TestAmbiguousSnapshot(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	for _, args := range [][]string{{"create", "-f", "qcow2", disk, "1M"}, {"snapshot", "-c", "2", disk}, {"snapshot", "-c", "a", disk}, {"snapshot", "-c", "a", disk}} {
		if r := run(t, append([]string{"diskimg"}, args...)...); r.code != 0 {
			t.Fatalf("%v: %s", args, r.stderr)
		}
	}
	for _, c := range []struct {
		args string
		ok   bool
	}{
		{"convert -l a disk new", false}, {"convert -l snapshot.name=a disk new", false}, {"convert -l 2 disk new", true},
		{"convert -l snapshot.name=a,snapshot.id=3 disk new", true}, {"snapshot -a a disk", false}, {"snapshot -d a disk", false},
		{"snapshot -a 3 disk", true}, {"snapshot -d 3 disk", true}, {"snapshot -d a disk", true},
	} {
		args := strings.Fields(c.args)
		for i, a := range args {
			if a == "disk" || a == "new" {
				args[i] = filepath.Join(dir, a)
			}
		}
		if r := run(t, append([]string{"diskimg"}, args...)...); c.ok != (r.code == 0) || !c.ok && !strings.Contains(r.stderr, "have") {
			t.Errorf("%s: %d, %s", c.args, r.code, r.stderr)
		}
	}
}

func TestIsInterruption(t *testing.T) {
	stopped := &block.Error{Op: "amend", Err: context.Canceled}
	for want, list := range map[bool][]error{
		true:  {context.Canceled, stopped, errors.Join(stopped, nil), errors.Join(stopped, context.Canceled)},
		false: {io.EOF, errors.Join(stopped, io.EOF), &block.Error{Err: errors.Join(io.EOF, context.Canceled)}},
	} {
		for _, err := range list {
			if isInterruption(err) != want {
				t.Errorf("%q is an interruption: %v", err, !want)
			}
		}
	}
}
