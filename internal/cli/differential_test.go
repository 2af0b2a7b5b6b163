package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/internal/qemu"
)

// These tests run command lines with this program and with qemu-img, in twin
// directories, and compare what both print, how they end and what images they
// leave. The tables of command lines are in the files cases_*_test.go.

// difference is where the two differ on purpose, and how.
type difference struct {
	lines string // a pattern for the command lines
	why   string
	// What we print and how we end instead; empty is "as qemu-img". Patterns
	// are regular expressions for the whole of a stream.
	stdout, stderr string
	code           int  // 0 is "as qemu-img", success is 0
	images         bool // the images are not the same either
}

const (
	nothing = "()" // the pattern of an empty stream
	success = -1   // the exit code 0
)

// result is what a run of a program comes to.
type result struct {
	stdout, stderr string
	code           int
}

// worldDir is the directory that cases start from, made when it is needed.
var worldDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if worldDir != "" {
		os.RemoveAll(filepath.Dir(worldDir))
	}
	os.Exit(code)
}

func world(t *testing.T) string {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io", "sh", "cp")
	if worldDir != "" {
		return worldDir
	}
	top, err := os.MkdirTemp("", "diskimg-test")
	if err != nil {
		t.Fatal(err)
	}
	worldDir = filepath.Join(top, "world")
	if err := os.Mkdir(worldDir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-e", "-c", worldScript)
	cmd.Dir = worldDir
	qemu.Prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return worldDir
}

// twin is a copy of the world that is mended after each command line.
type twin struct {
	dir, world string
	was        map[string]os.FileInfo
}

func newTwin(t *testing.T, world string) *twin {
	t.Helper()
	w := &twin{dir: filepath.Join(t.TempDir(), "world"), world: world}
	copyFiles(t, world, w.dir)
	w.was = w.stamps(t)
	return w
}

// copyFiles copies a file or a directory, holes and all.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func (w *twin) stamps(t *testing.T) map[string]os.FileInfo {
	t.Helper()
	m := map[string]os.FileInfo{}
	err := filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			m[strings.TrimPrefix(path, w.dir+"/")] = info
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// touched lists the files that have been made, changed or removed.
func (w *twin) touched(t *testing.T) []string {
	t.Helper()
	now := w.stamps(t)
	names := map[string]bool{}
	for name, is := range now {
		was, there := w.was[name]
		names[name] = !there || !os.SameFile(was, is) || was.Size() != is.Size() || was.ModTime() != is.ModTime()
	}
	for name := range w.was {
		_, there := now[name]
		names[name] = names[name] || !there
	}
	maps.DeleteFunc(names, func(_ string, touched bool) bool { return !touched })
	return slices.Sorted(maps.Keys(names))
}

// mend makes the twin like the world again.
func (w *twin) mend(t *testing.T) {
	t.Helper()
	for _, name := range w.touched(t) {
		os.Remove(filepath.Join(w.dir, name))
		if _, err := os.Lstat(filepath.Join(w.world, name)); err == nil {
			copyFiles(t, filepath.Join(w.world, name), filepath.Join(w.dir, name))
		}
	}
	w.was = w.stamps(t)
}

func runOurs(t *testing.T, dir string, args ...string) result {
	t.Helper()
	t.Chdir(dir)
	var stdout, stderr bytes.Buffer
	code := Run(context.Background(), append([]string{qemuImg}, args...), strings.NewReader(""), &stdout, &stderr)
	return result{stdout.String(), stderr.String(), code}
}

func runTheirs(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, qemuImg, args...)
		cmd.Dir = dir
		qemu.Prepare(cmd)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Error(err)
			return result{code: -1}
		}
		if strings.Contains(stderr.String(), qemu.NoClock) && ctx.Err() == nil {
			continue
		}
		return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

// words splits a command line at blanks; 'single quotes' hold words together.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
			continue
		}
		list = append(list, strings.Fields(part)...)
	}
	return list
}

// differential runs the command lines one by one in twins of the world.
func differential(t *testing.T, lines []string, allowed ...difference) {
	t.Helper()
	world := world(t)
	ours, theirs := newTwin(t, world), newTwin(t, world)
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			defer theirs.mend(t)
			defer ours.mend(t)
			d := find(allowed, line)
			var got, want result
			both(func() { want = runTheirs(t, theirs.dir, words(line)...) }, func() { got = runOurs(t, ours.dir, words(line)...) })
			got.stdout = withSizesOf(want.stdout, got.stdout)
			same(t, "stdout", normalize(got.stdout), normalize(want.stdout), d.stdout)
			same(t, "stderr", normalize(got.stderr), normalize(want.stderr), d.stderr)
			if code := max(0, d.code); got.code != want.code && (d.code == 0 || got.code != code) {
				t.Errorf("exit code %d, qemu-img has %d", got.code, want.code)
			}
			switch touched := ours.touched(t); {
			case got.code != 0 && !d.images && len(touched) > 0:
				t.Errorf("failed and left its traces in %q", touched)
			case got.code == 0 && want.code == 0 && !d.images:
				sameImages(t, ours, theirs)
			}
			if d != (difference{}) && got == want && !d.images {
				t.Errorf("no difference any more, though listed: %s", d.why)
			}
		})
	}
	for _, d := range allowed {
		if !slices.ContainsFunc(lines, d.covers) {
			t.Errorf("a difference is listed that covers no command line: %s", d.why)
		}
	}
}

func (d difference) covers(line string) bool {
	return regexp.MustCompile(`^(` + d.lines + `)$`).MatchString(line)
}

// sample returns every fourth line and those with a difference, or where there
// is time for it, all: with CI=true or DISKIMG_LONG set.
func sample(lines []string, allowed []difference) []string {
	if os.Getenv("CI") != "" || os.Getenv("DISKIMG_LONG") != "" {
		return lines
	}
	var list []string
	for i, line := range lines {
		if i%4 == 0 || slices.ContainsFunc(allowed, func(d difference) bool { return d.covers(line) }) {
			list = append(list, line)
		}
	}
	return list
}

func find(list []difference, line string) difference {
	if i := slices.IndexFunc(list, func(d difference) bool { return d.covers(line) }); i >= 0 {
		return list[i]
	}
	return difference{}
}

func same(t *testing.T, stream, got, want, pattern string) {
	t.Helper()
	if pattern != "" {
		if !regexp.MustCompile(`^(?s:` + pattern + `)\n?$`).MatchString(got) {
			t.Errorf("%s:\n%s\nwant a match of:\n%s\nqemu-img prints:\n%s", stream, got, pattern, want)
		}
	} else if got != want {
		t.Errorf("%s:\n%s\nqemu-img prints:\n%s", stream, got, want)
	}
}

var steps = regexp.MustCompile(`(    \(\d+\.\d\d/100%\)\r)+`)

// madeUp is a name that QEMU makes up.
var madeUp = regexp.MustCompile(`#block\d{3,}`)

var runTime = regexp.MustCompile(`Run completed in \d+\.\d\d\d seconds\.`)

// normalize takes out how often progress was shown, how long things took, what
// made-up names are, and the newline that qemu-img forgets after some messages.
func normalize(s string) string {
	s = madeUp.ReplaceAllString(s, "#block100")
	s = steps.ReplaceAllString(s, "    (progress)\r")
	s = runTime.ReplaceAllString(s, "Run completed in some time.")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return s
}

// diskSize is how much of the file system a file takes up, as info prints it.
var diskSize = regexp.MustCompile(`(disk size: |"actual-size": )([0-9.]+)( [KMGT]iB)?`)

// withSizesOf returns got with the disk sizes of want where they are 16 KiB apart
// or less: a file system counts blocks of its own in, and does so when it likes.
func withSizesOf(want, got string) string {
	theirs := diskSize.FindAllStringSubmatch(want, -1)
	if len(theirs) != len(diskSize.FindAllString(got, -1)) {
		return got
	}
	i := -1
	return diskSize.ReplaceAllStringFunc(got, func(ours string) string {
		i++
		if math.Abs(sizeIn(theirs[i])-sizeIn(diskSize.FindStringSubmatch(ours))) <= 16<<10 {
			return theirs[i][0]
		}
		return ours
	})
}

// sizeIn returns the bytes that a match of diskSize stands for.
func sizeIn(match []string) float64 {
	n, _ := strconv.ParseFloat(match[2], 64)
	return n * map[string]float64{"": 1, " KiB": 1 << 10, " MiB": 1 << 20, " GiB": 1 << 30, " TiB": 1 << 40}[match[3]]
}

// sameImages demands that two programs have left the same images by the word of
// qemu-img: name, description and content. What qemu-img can't read of its own
// making is not compared further.
func sameImages(t *testing.T, ours, theirs *twin) {
	t.Helper()
	a, b := ours.touched(t), theirs.touched(t)
	if !slices.Equal(a, b) {
		t.Errorf("we have touched %q, qemu-img %q", a, b)
	}
	for _, name := range a {
		name = "./" + name
		var p, q leftover
		both(func() { p = leftoverOf(t, ours.dir, name) }, func() { q = leftoverOf(t, theirs.dir, name) })
		if !reflect.DeepEqual(p.info, q.info) {
			t.Errorf("%s: qemu-img info says\n%v\nof ours, of its own\n%v", name, p.info, q.info)
		}
		switch {
		case !q.readable():
		case !p.readable():
			t.Errorf("%s: qemu-img check: %s%s", name, p.check.stdout, p.check.stderr)
		case p.content != q.content:
			t.Errorf("%s holds another disk than qemu-img's", name)
		}
	}
}

// leftover is an image that a program has left, by the word of qemu-img.
type leftover struct {
	info    map[string]any
	check   result
	content string
}

func leftoverOf(t *testing.T, dir, name string) leftover {
	t.Helper()
	l := leftover{info: infoOf(t, dir, name)}
	if l.check = runTheirs(t, dir, append([]string{"check"}, unlocked(t, dir, name)...)...); l.readable() {
		l.content = content(t, dir, name)
	}
	return l
}

func (l *leftover) readable() bool { return l.check.code == 0 || l.check.code == exitCheckUnsupported }

// both calls two functions at once.
func both(f, g func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	g()
	wg.Wait()
}

// content returns a hash of the disk in an image, or what is known of one too
// large to read.
func content(t *testing.T, dir, name string) string {
	t.Helper()
	if size, _ := infoOf(t, dir, name)["virtual-size"].(float64); size > 64<<20 {
		return runTheirs(t, dir, "map", "--output=json", name).stdout
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if r := runTheirs(t, dir, append(append([]string{"convert", "-O", "raw"}, unlocked(t, dir, name)...), raw)...); r.code != 0 {
		t.Errorf("%s: %s", name, r.stderr)
		return ""
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// infoKey is a file as it was when qemu-img was asked about it.
type infoKey struct {
	path string
	size int64
	time time.Time
}

var infos sync.Map // of maps, by infoKey

// infoOf returns what qemu-img says about an image, without what differs from run
// to run. It asks once for each content of a file.
func infoOf(t *testing.T, dir, name string) map[string]any {
	t.Helper()
	f, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return askInfo(t, dir, name)
	}
	k := infoKey{filepath.Join(dir, name), f.Size(), f.ModTime()}
	m, ok := infos.Load(k)
	if !ok {
		m = askInfo(t, dir, name)
		infos.Store(k, m)
	}
	return m.(map[string]any)
}

func askInfo(t *testing.T, dir, name string) map[string]any {
	t.Helper()
	r := runTheirs(t, dir, "info", "--output=json", name)
	m := map[string]any{}
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		return map[string]any{"failed": fmt.Sprint(r)}
	}
	delete(m, "actual-size")
	forgetKeys(m)
	list, _ := m["snapshots"].([]any)
	for _, s := range list {
		delete(s.(map[string]any), "date-sec")
		delete(s.(map[string]any), "date-nsec")
	}
	return m
}

// holdOpen starts qemu-io with a first command. held is closed when that is done.
func holdOpen(t *testing.T, command string) (held <-chan struct{}, release func()) {
	t.Helper()
	cmd := exec.Command("qemu-io")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The prompt comes when the command before it is done.
		b, seen := make([]byte, 256), ""
		for strings.Count(seen, "qemu-io> ") < 2 {
			n, err := out.Read(b)
			if seen += string(b[:n]); err != nil {
				return
			}
		}
	}()
	if _, err := in.Write([]byte(command + "\n")); err != nil {
		t.Fatal(err)
	}
	return done, func() {
		in.Close()
		cmd.Wait()
	}
}

// unlocked returns the arguments that name an image, with its passphrase and
// that of the image below if they are encrypted.
func unlocked(t *testing.T, dir, name string) []string {
	opts := "driver=qcow2,file.filename=" + name
	plain := true
	for prefix := ""; name != ""; prefix += "backing." {
		info := infoOf(t, dir, name)
		switch {
		case info["encrypted"] == true && info["format"] == "luks":
			opts, plain = strings.Replace(opts, "driver=qcow2", "driver=luks", 1)+","+prefix+"key-secret=s", false
		case info["encrypted"] == true:
			opts, plain = opts+","+prefix+"encrypt.key-secret=s", false
		}
		name, _ = info["full-backing-filename"].(string)
	}
	if plain {
		return []string{strings.Split(strings.TrimPrefix(opts, "driver=qcow2,file.filename="), ",")[0]}
	}
	return []string{"--object", "secret,id=s,data=abc", "--image-opts", opts}
}

// forgetKeys removes what is random in the description of an encrypted image.
func forgetKeys(m map[string]any) {
	for _, key := range []string{"format-specific", "data", "encrypt"} {
		if key == "encrypt" && m["uuid"] != nil {
			break // a LUKS disk
		}
		if m, _ = m[key].(map[string]any); m == nil {
			return
		}
	}
	delete(m, "uuid")
	delete(m, "master-key-iters")
	slots, _ := m["slots"].([]any)
	for _, s := range slots {
		delete(s.(map[string]any), "iters")
	}
}
