//go:build linux

// Command bench measures diskimg against qemu-img. Both convert the same real
// disk in turns, with a warm page cache, and the best run of each counts. As is
// qemu-img's default and not ours, neither waits until the output is on disk; the
// row that says so has both wait. It prints a table and says for each row whether it
// reaches its target; it exits with 1 if one does not.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/diskimg/diskimg/internal/realdisk"
	"github.com/diskimg/diskimg/internal/size"
)

// maxRSS is the memory that a conversion may take at its peak, in bytes.
const maxRSS = 96 << 20

// leastDisk is the size of the disk unless another one is asked for.
const leastDisk = 4 << 30

func main() {
	var b bench
	dir := flag.String("dir", "out/bench", "`folder` for the images; the sources stay in it for the next time")
	from := flag.String("from", "/usr", "`folder` whose files are on the disk")
	disk := flag.String("size", "", "`size` of the disk, as in 256M, with as much on it as fits; default: all of the folder, 4G or more")
	only := flag.String("only", "", "run only the rows whose name matches this `expression`")
	flag.IntVar(&b.runs, "runs", 3, "how often each program runs")
	flag.StringVar(&b.theirs, "theirs", "qemu-img", "the `program` to compare with")
	flag.StringVar(&b.ours, "ours", "bin/qemu-img", "diskimg under a `name` that makes it a drop-in")
	flag.Parse()
	ok, err := b.main(*dir, *from, *disk, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	runs         int
	theirs, ours string // programs
	sources      map[string]string
	output       string // where converted images go
}

// row is one line of the table.
type row struct {
	name   string
	source string  // one of the sources
	args   string  // of qemu-img, before the source
	output bool    // the output file comes after the source
	target float64 // how much faster than qemu-img: its time divided by ours
	repeat int     // how many runs for each one that is asked for
}

var rows = []row{
	{name: "raw to qcow2", source: "raw", args: "convert -t unsafe -f raw -O qcow2", output: true, target: 1, repeat: 1},
	{name: "raw to qcow2, on disk", source: "raw", args: "convert -t writeback -f raw -O qcow2", output: true, target: 1, repeat: 1},
	{name: "qcow2 to raw", source: "qcow2", args: "convert -t unsafe -f qcow2 -O raw", output: true, target: 1, repeat: 1},
	{name: "zlib to raw", source: "zlib", args: "convert -t unsafe -f qcow2 -O raw", output: true, target: 1.2, repeat: 1},
	{name: "raw to zlib", source: "raw", args: "convert -t unsafe -f raw -O qcow2 -c", output: true, target: 5, repeat: 1},
	{name: "zstd to raw", source: "zstd", args: "convert -t unsafe -f qcow2 -O raw", output: true, target: 1.2, repeat: 1},
	{name: "raw to zstd", source: "raw", args: "convert -t unsafe -f raw -O qcow2 -c -o compression_type=zstd", output: true, target: 1.4, repeat: 1},
	{name: "raw to qed", source: "raw", args: "convert -t unsafe -f raw -O qed", output: true, target: 1, repeat: 1},
	{name: "qed to raw", source: "qed", args: "convert -t unsafe -f qed -O raw", output: true, target: 1, repeat: 1},
	{name: "raw to vpc", source: "raw", args: "convert -t unsafe -f raw -O vpc", output: true, target: 1, repeat: 1},
	{name: "vpc to raw", source: "vpc", args: "convert -t unsafe -f vpc -O raw", output: true, target: 1, repeat: 1},
	{name: "info", source: "qcow2", args: "info -f qcow2", target: 1, repeat: 10},
	{name: "map", source: "qcow2", args: "map -f qcow2", target: 1, repeat: 10},
}

// sourceOptions make the sources of the raw one, with qemu-img.
var sourceOptions = map[string]string{
	"qcow2": "-O qcow2", "zlib": "-O qcow2 -c", "zstd": "-O qcow2 -c -o compression_type=zstd", "qed": "-O qed",
	"vpc": "-O vpc",
}

func (b *bench) main(dir, from, disk, only string) (ok bool, err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return false, err
	}
	if err := b.prepare(dir, from, disk); err != nil {
		return false, err
	}
	defer os.Remove(b.output)
	if err := b.heading(); err != nil {
		return false, err
	}
	ok = true
	for _, r := range rows {
		if !wanted.MatchString(r.name) {
			continue
		}
		theirs, ours, err := b.measure(r)
		if err != nil {
			return false, fmt.Errorf("%s: %w", r.name, err)
		}
		ok = printRow(r, theirs, ours) && ok
	}
	return ok, nil
}

// prepare makes the sources that are not there yet.
func (b *bench) prepare(dir, from, disk string) error {
	bytes, err := diskSize(from, disk)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	path := func(kind string) string { return filepath.Join(dir, fmt.Sprintf("%dM.%s", bytes>>20, kind)) }
	b.output = path("output")
	b.sources = map[string]string{"raw": path("raw")}
	if !exists(path("raw")) {
		fmt.Fprintf(os.Stderr, "making a disk of %d MiB from %s\n", bytes>>20, from)
		if err := realdisk.Make(path("raw"), from, bytes); err != nil {
			return err
		}
	}
	for kind, options := range sourceOptions {
		b.sources[kind] = path(kind)
		if exists(path(kind)) {
			continue
		}
		fmt.Fprintf(os.Stderr, "making the %s source with %s\n", kind, b.theirs)
		args := append(strings.Fields("convert -f raw "+options), path("raw"), b.output)
		if out, err := exec.Command(b.theirs, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", b.theirs, err, out)
		}
		if err := os.Rename(b.output, path(kind)); err != nil {
			return err
		}
	}
	return nil
}

func diskSize(from, disk string) (int64, error) {
	if disk == "" {
		return realdisk.SizeFor(from, leastDisk)
	}
	n, err := size.Parse(disk)
	if err != nil || n < 1<<20 || n > 1<<40 {
		return 0, fmt.Errorf("-size %s: not a size from 1M to 1T", disk)
	}
	return int64(n), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (b *bench) heading() error {
	out, err := exec.Command(b.theirs, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", b.theirs, err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	info, err := os.Stat(b.sources["raw"])
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d processors, a disk of %d MiB that takes up %d MiB, best of %d\n\n",
		version, runtime.NumCPU(), info.Size()>>20, allocated(b.sources["raw"])>>20, b.runs)
	line := "| %-12s | %9s | %9s | %5s | %6s | %5s | %9s | %9s | %5s | %-4s |\n"
	fmt.Printf(line, "", "qemu-img", "diskimg", "speed", "target", "CPU", "qemu RSS", "RSS", "size", "")
	fmt.Print(strings.ReplaceAll(fmt.Sprintf(line, "", "", "", "", "", "", "", "", "", ""), " ", "-"))
	return nil
}

// printRow prints a line and reports whether the targets are reached. Speed and
// CPU are qemu-img's figure divided by ours, size is ours divided by its.
func printRow(r row, theirs, ours sample) bool {
	speed := theirs.wall.Seconds() / ours.wall.Seconds()
	ok := speed >= r.target && ours.rss < maxRSS
	verdict := map[bool]string{true: "PASS", false: "FAIL"}[ok]
	proportion := "-"
	if theirs.output > 0 {
		proportion = fmt.Sprintf("%.3f", float64(ours.output)/float64(theirs.output))
	}
	fmt.Printf("| %-12s | %7.3f s | %7.3f s | %5.2f | %6.1f | %5.2f | %5.1f MiB | %5.1f MiB | %5s | %s |\n",
		r.name, theirs.wall.Seconds(), ours.wall.Seconds(), speed, r.target, theirs.cpu.Seconds()/ours.cpu.Seconds(),
		float64(theirs.rss)/(1<<20), float64(ours.rss)/(1<<20), proportion, verdict)
	return ok
}
