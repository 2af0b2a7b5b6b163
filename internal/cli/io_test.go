package cli

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/internal/qemu"
)

// These tests run sessions of qemu-io with this program and with the real one,
// side by side, and compare what both print, how they end, and the disks that
// they leave. Times and rates are made alike first.

const ioWorld = `
qemu-img create -q -f qcow2 a 1M
qemu-img create -q -f raw r 1M
qemu-img create -q -f qcow2 base 2M
qemu-io -f qcow2 -c 'write -q -P 17 0 1M' base
qemu-img create -q -f qcow2 -b base -F qcow2 over
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k ext 4M
qemu-img create -q -f qcow2 empty 0
qemu-img create -q -f qcow2 -o compat=0.10 old 1M
qemu-img create -q -f qed e 1M
qemu-img create -q -f raw holes 1M
qemu-io -f raw -c 'write -q 100000 500k' holes
printf abc > pattern
: > nothing
printf '[foo]\n' > group.conf
printf '[inject-error]\nevent = "foo"\n' > event.conf
printf '[inject-error]\nevent = "read_aio"\nonce = "on"\n' > once.conf
printf '[inject-error]\nevent = "l2_load"\nerrno = "28"\n[inject-error "two"]\nevent = "read_aio"\n' > always.conf
printf '[inject-error]\nevent = "l2_update"\nonce = "on"\n' > update.conf
printf '[inject-error]\nevent = "l2_update"\n' > updates.conf
printf '[set-state]\nevent = "cluster_alloc"\nstate = "1"\nnew_state = "2"\n[inject-error]\nevent = "write_aio"\nstate = "2"\nonce = "on"\n' > states.conf
printf '[inject-error]\nevent = "read_aio"\nsector = "2"\nerrno = "999"\n' > sector.conf
`

// ioSessionCase is the arguments of a session, or what is typed in one.
type ioSessionCase struct {
	name  string
	args  []string // after them, -c for each of the lines
	lines string   // one command a line
	typed bool     // the lines come on standard input
}

var ioSessions = []ioSessionCase{
	{"write and read", nil, "write 0 64k\nread -P 0xcd 0 64k\nread -P 1 0 64k\nread -v 0 20\nread -v 65530 32\nwrite -P 0x41 3 2\nread -v 0 16", false},
	{"beyond the end", nil, "read 0 2M\nwrite 1M 512\nwrite 1048575 1\nwrite 0 0\nread 1M 0\nread 3M 0\nwrite 3M 0\ndiscard 1M 512\nread 9223372036854775807 1", false},
	{"zeros", nil, "write 0 1M\nwrite -z 0 64k\nwrite -zu 64k 64k\nwrite -zn 128k 64k\nread -P 0 0 192k\nmap\nwrite -u 0 1\nwrite -n 0 1\nwrite -zP 1 0 1\nwrite -zs pattern 0 1\nwrite -bz 0 512", false},
	{"VM state", nil, "write -b -P 3 0 1k\nread -b -P 3 512 512\nread -b 1 512\nread -b 0 100\nread -b -P 1 -s 600 3 512\nread -b 64k 512\nwrite -b 512 1", false},
	{"zeros in parts of clusters", nil, "write -z 1k 100k\nwrite -z 600k 2k\nmap\nwrite 128k 64k\nwrite -z 130k 100k\nmap\nclose\nopen over\nwrite -z 1M 100k\nmap\ntruncate 1000k\ntruncate 2M\nmap\nwrite -z 1100k 8k\nmap\nclose\nopen ext\nwrite -z 5k 9k\nwrite 64k 4k\nwrite -z 65k 9k\nmap", false},
	{"zeros above the end of the data below", nil, "close\nopen -o driver=qcow2,backing.driver=raw,backing.file.filename=holes over\nwrite -z 50000 60000\nwrite -z 10k 1k\nwrite -z 620k 1k\nmap", false},
	{"zeros and not as data", nil, "write -zn 1k 100k\nwrite 256k 64k\nwrite -zn 250k 10k\nwrite -zn 200k 60k\nwrite -znu 256k 64k\nmap\nclose\nopen -o driver=raw r\nwrite -zn 3k 5k\nclose\nopen old\nwrite -zn 0 64k\nclose\nopen e\nwrite -zn 0 64k", false},
	{"longer than before, above a longer one", nil, "close\nopen over\ntruncate 512k\ntruncate 4M\nmap\ntruncate 1M\ntruncate -m metadata 3M\nmap\ntruncate -m full 512k\nclose\nopen -o driver=raw r\ntruncate -m full 512k", false},
	{"numbers", nil, "write 0x200 0x400\nwrite 1.5k 512\nwrite 1e3 512\nwrite 0 1K\nwrite 0 1b\nwrite 010 1\nwrite +5 1\nwrite a 1\nwrite 0 b\nwrite 0 1z\nwrite 0 9E\nwrite 0 3G\nwrite -z 0 3G\nread 0 3G\nwrite -1 512\nwrite 0 -1\ndiscard 0 3G\nwritev 0 3G\nwritev 0 1G 1500M", false},
	{"patterns", nil, "write -P 256 0 1k\nwrite -P xx 0 1k\nwrite -P 0x1ff 0 1\nwrite -P -1 0 1\nwrite -P 010 0 4\nread -v 0 4\nwrite -s pattern 0 1k\nread -v 0 20\nwrite -s nofile 0 1k\nwrite -s nothing 0 1k\nwrite -s pattern -P 1 0 1k", false},
	{"part of a pattern", nil, "read -P 1 -s 10 -l 20 0 1k\nread -s 1 0 1k\nread -l 5 0 1k\nread -P 0 -s 1020 -l 20 0 1k\nread -P 0 -s 2000 0 1k\nread -P 0 -s x 0 1k\nread -P 0 -l x 0 1k\nread -a 0 1k\nread -p 0 1000\nread -P 5 -s 512 0 1k\nread -P 0 -l 100 0 1k", false},
	{"letters in dumps", nil, "write -q -P 0x20 0 1\nwrite -q -P 0x7e 1 1\nwrite -q -P 0x5f 2 1\nwrite -q -P 0xe9 3 1\nwrite -q -P 0x5a 4 1\nwrite -q -P 0x7a 5 1\nwrite -q -P 0x39 6 1\nread -v 0 7", false},
	{"vectors", nil, "readv 0 512 512\nwritev -P 3 0 512 1k\nwritev 0\nwritev 0 a\nwritev b 1\nwritev 0 0\nwritev 0 511\nwritev 1M 1\nreadv 1M 1\nreadv -P 3 0 512\nreadv -v 508 4 4\nreadv -x 0 1\nwritev -f 0 16\nwritev -q 0 16", false},
	{"asynchronous", nil, "aio_write -P 1 0 512 512\naio_flush\naio_read -P 1 0 512\naio_flush\naio_read -P 2 0 512\naio_flush\naio_write 1M 512\naio_flush\naio_read 1M 512\naio_flush\naio_write -u 0 64k\naio_write -z 0 1 1\naio_write -i 0 1k\naio_read -i 0 1k\naio_write 0\naio_write 0 a\naio_write -x 0 1\naio_read -P 300 0 16\naio_read -v 0 16\naio_flush\naio_write -q 0 16\naio_flush 1", false},
	{"statistics", nil, "write -C 0 64k\nread -C 0 1k\nreadv -C 0 16\nwritev -C 0 16\ndiscard -C 0 64k\naio_write -C 0 16\naio_flush", false},
	{"discards", nil, "write 0 1M\ndiscard 0 64k\nread -P 0 0 64k\nmap\ndiscard 100 100\nread -P 0xcd 64k 64k\ndiscard a 1\ndiscard 0 b\ndiscard 0\ndiscard -x 0 1\ndiscard -q 0 64k", false},
	{"discards of nodes", nil, "close\nopen -o discard=ignore a\nwrite -P 7 0 64k\ndiscard 0 64k\nread -P 7 0 64k\nreopen -o discard=unmap\ndiscard 0 64k\nread -P 7 0 64k\nclose\nopen -d ignore -o discard=unmap a\nwrite -P 7 0 64k\ndiscard 0 64k\nread -P 7 0 64k\nclose\nopen -d ignore -o file.discard=unmap a\nwrite -P 7 0 64k\ndiscard 0 64k\nread -P 7 0 64k\nwrite -zu 0 64k\nread -P 7 0 64k\nclose\nopen -o driver=raw,file.discard=off r\nwrite -P 7 0 64k\ndiscard 0 64k\nread -P 7 0 64k\nwrite -zu 0 64k\nread -P 7 0 64k", false},
	{"ignored discards", []string{"-d", "ignore"}, "write 0 64k\ndiscard 0 64k\nread -P 0xcd 0 64k", false},
	{"flags that exclude each other", nil, "write -bzf 0 512\nwrite -fnb 0 512\nwrite -fcn 0 512\nwrite -fcu 0 1\nwrite -fcz 0 64k\nwrite -nu 0 1\nwrite -czP 1 0 64k\nwrite -bc 0 1\nquit 1\nlength", false},
	{"resumed before what is done is told", nil, "close\nopen blkdebug::a\nwrite -P 1 0 128k\nbreak write_aio A\naio_write -q -P 2 0 512\nwait_break A\naio_write -P 3 64k 512\nresume A\naio_flush\n", true},
	{"compressed", nil, "write -c 0 64k\nwrite -c -P 3 64k 64k\nread -P 3 64k 64k\nwrite -c 0 100\nwrite -c 1 512\nwrite -cz 128k 512", false},
	{"info", nil, "length\ninfo\nmap\nalloc 0\nalloc 0 1M\nalloc 2M\nalloc 0 -1\nalloc a\nalloc\nlength 1", false},
	{"sizes", nil, "write 0 64k\ntruncate 2M\nlength\ntruncate\ntruncate x\ntruncate -m foo 3M\ntruncate -m off 3M\ntruncate -x 3M\nlength\nread -P 0 1M 2M\nmap", false},
	{"flush and sleep", nil, "flush\nflush 1\nsleep\nsleep 10\nsleep -1\nsleep x\nsleep 1.5\nsleep 0x1", false},
	{"no such command", nil, "foo\nquit\nlength", false},
	{"no such option", nil, "read --q 0 1\nopen --foo\ntruncate --x 1\n--", false},
	{"opened by nothing", nil, "open a b\nclose\nopen -r\nopen --\nopen a b", false},
	{"quit", nil, "quit\nfoo", false},
	{"aliases", nil, "r 0 1k\nw 0 1k\ni\nl\nt 1M\nd 0 1k\nf\nc\no\nq", false},
	{"close and open", nil, "close\nlength\nopen a\nlength\nopen a\nclose\nopen -r a\nwrite 0 1k\nclose\nopen -x\nopen nofile\nopen -t foo a\nopen -d foo a\nopen -i foo a\nopen -U a\nopen -rU a\nlength", false},
	{"reopen", nil, "reopen -r\nwrite 0 1k\nread 0 1k\nreopen -w\nwrite 0 1k\nreopen -x\nreopen -r -w\nreopen -c foo\nreopen foo\nreopen -c none\nreopen", false},
	{"read-only", []string{"-r"}, "truncate 512k\nwrite 0 1k\nwrite -x\nwrite a b\ntruncate\ndiscard 0 1k\nflush\naio_write 0 1k\nread 0 1k\nmap", false},
	{"no breakpoints", nil, "break\nbreak foo bar\nresume A\nremove_break A", false},
	{"signals", nil, "sigraise\nsigraise x\nsigraise 100\nsigraise -1", false},
	{"help", nil, "help foo\nhelp quit\n? q\nhelp a b\nhelp close\nhelp map", false},
	{"typed", nil, "write 0 64k\nfoo\n\n  \n  length\nread -q 0 64k\nquit\nlength", true},
	{"typed to the end", nil, "length\n#x\nread 0", true},
	{"options", nil, "close\nopen -o node-name=1x a\nopen -o discard=x a\nopen -o detect-zeroes=x a\nopen -o read-only=x a\nopen -o auto-read-only=x a\nopen -o cache.direct=x a\nopen -o file.foo=x a\nopen -o file.locking=x a\nopen -o l2-cache-size=x a\nopen -o l2-cache-size=1M,cache-size=1k a\nopen -o overlap-check=x a\nopen -o overlap-check=none,overlap-check.template=all a\nopen -o lazy-refcounts=x a\nopen -o cache-clean-interval=x a\nopen -o backing=foo a\nopen -o driver=raw,offset=x r\nopen -o driver=raw,size=1000 r\nopen -o driver=raw,offset=2M r\nopen -o driver=foo r\nopen -o file.driver=foo r\nopen -o driver=raw\nopen -o filename=r\nopen -o driver=raw,filename=r\nopen -o read-only=on a\nopen -o driver=file,filename=r,foo=1\nopen -o foo=1 nofile", false},
	{"options that work", nil, "close\nopen -o overlap-check.inactive-l2=on,l2-cache-size=64k,file.locking=off,detect-zeroes=unmap a\nlength\nclose\nopen -o driver=raw,offset=512 r\nlength\nclose\nopen -o driver=file r\ninfo\nlength\nclose\nopen -o driver=null-co\nlength\ninfo\nwrite 0 1k\ntruncate 1M\nclose\nopen -r -o read-only=off a\nwrite 0 1k\nclose\nopen -o backing.driver=qcow2 over\nread -P 17 0 1k\nclose\nopen -o driver=raw,file.driver=qcow2,file.file.filename=over\nread -P 17 0 1k\nlength\nclose\nopen -o driver=qcow2 json:{\"driver\":\"raw\",\"file.filename\":\"a\"}\nlength\ninfo", false},
	{"reopen with options", nil, "reopen -o foo=1\nreopen -o lazy-refcounts=on\nreopen -o l2-cache-size=x\nreopen -o file.filename=r\nreopen -o file.filename=a\nreopen -o backing=x\nreopen -o cache.direct=on\nreopen -o file.locking=off\nreopen -o overlap-check=x\nreopen -o force-share=on\nreopen -o node-name=foo -o driver=raw\nreopen -o driver=qcow2\nreopen -o driver=raw\nreopen -o file.driver=file\nreopen -o file.driver=raw\nreopen -o backing.driver=qcow2\nreopen -r -o read-only=on\nreopen -c none -o cache.direct=on\nreopen -o read-only=x\nreopen -o\nlength\nwrite 0 1k\nreopen -r\nreopen -o read-only=off\nwrite 0 1k", false},
	{"reopen another", nil, "close\nopen -o node-name=foo over\nreopen -o node-name=foo\nreopen -o node-name=bar\nreopen -o backing.node-name=x\nreopen -o backing.file.driver=raw\nreopen -o backing.driver=qcow2\nreopen\nread -P 17 0 1k\nclose\nopen -o driver=raw r\nreopen -o size=512\nlength", false},
	{"snapshot", []string{"-s"}, "write -P 9 0 512\nread -P 9 0 512", false},
}

// ioArguments are whole command lines.
var ioArguments = []string{
	"", "-c length", "-c alloc -c 'length 1' -c read -c info -c map -c aio_flush -c reopen -c 'truncate 1'", "a b", "-c length nofile",
	"-f foo -c length a", "-f qcow2 --image-opts -c length a", "--image-opts -c length driver=qcow2,file.filename=a",
	"--image-opts -c length filename=a", "-t foo -c length a", "-d foo -c length a", "-i foo -c length a", "-k -c length a",
	"-k -n -c length a", "-i io_uring -c length a", "-U -c length a", "-U -r -c length a", "-rsnCk -c length a", "--cmd=length --format=qcow2 a",
	"-f raw -r -c 'read 0 4' -c length a", "-c 'open -o driver=qcow2 a' -c length", "-c 'open -o driver=qcow2,file.filename=a' -c length",
	"-c 'open -o foo=bar a'",
	"-c length json:{\"driver\":\"qcow2\",\"file.filename\":\"a\"}",
	"-c map -c 'alloc 0 2M' -c 'read -P 17 0 1M' -c 'write 1M 64k' -c map over", "-c map -c 'alloc 0' -c info empty",
	"-f raw -c map -c info -c 'alloc 0 1M' -c 'alloc 512k' -c 'write -P 2 512k 1k' -c 'write -c 0 64k' -c 'truncate 512k' -c length r",
	"-f raw -c 'write -b 0 512' -c 'read -b 0 512' r", "-c 'write 2k 1k' -c map -c info -c 'discard 0 128k' -c map ext",
	"-c 'write 512 1k' -c 'read 0 2k' r", "-c 'help foo' a",
}

func TestIOSessions(t *testing.T) {
	world := ioTwins(t)
	for _, c := range ioSessions {
		t.Run(c.name, func(t *testing.T) {
			args, stdin := c.args, ""
			if c.typed {
				stdin = c.lines
			} else {
				for line := range strings.SplitSeq(c.lines, "\n") {
					args = append(args, "-c", line)
				}
			}
			sameIO(t, world, append(args, "a"), stdin)
		})
	}
	for _, line := range ioArguments {
		t.Run("qemu-io "+line, func(t *testing.T) { sameIO(t, world, words(line), "length\n") })
	}
}

// ioTwins makes the images that sessions begin with.
func ioTwins(t *testing.T) string {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io", "sh", "cp")
	world := filepath.Join(t.TempDir(), "world")
	cmd := exec.Command("sh", "-e", "-c", "mkdir "+world+"; cd "+world+ioWorld)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return world
}

// sameIO runs a session with both programs.
func sameIO(t *testing.T, world string, args []string, stdin string) {
	t.Helper()
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	copyFiles(t, world, ours)
	copyFiles(t, world, theirs)
	want := theirIO(t, theirs, args, stdin)
	t.Chdir(ours)
	var stdout, stderr bytes.Buffer
	code := Run(context.Background(), append([]string{qemuIO}, args...), strings.NewReader(stdin), &stdout, &stderr)
	got := result{stdout.String(), stderr.String(), code}
	if alike(got) != alike(want) {
		t.Errorf("%q\nwe print\n%s%sand end with %d; qemu-io prints\n%s%sand ends with %d",
			args, got.stdout, got.stderr, got.code, want.stdout, want.stderr, want.code)
	}
	for _, name := range []string{"a", "r", "over", "ext"} {
		if !slices.Contains(args, name) {
			continue
		}
		if p, q := content(t, ours, name), content(t, theirs, name); p != q {
			t.Errorf("%s holds another disk", name)
		}
		if r := runTheirs(t, ours, "check", name); name != "r" && r.code != 0 {
			t.Errorf("qemu-img check %s: %s%s", name, r.stdout, r.stderr)
		}
	}
}

func theirIO(t *testing.T, dir string, args []string, stdin string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemuIO, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

var (
	ioRates   = regexp.MustCompile(`ops; [^\n]*\)`)
	ioCounts  = regexp.MustCompile(`,1,[0-9:.,]+\n`)
	ioUsageOf = regexp.MustCompile(`(?s)Usage: qemu-io.*`)
)

// alike takes out of a result what no two runs have in common, and the text of
// the help, which is our own.
func alike(r result) result {
	for _, s := range []*string{&r.stdout, &r.stderr} {
		*s = ioRates.ReplaceAllString(*s, "ops; TIME")
		*s = ioCounts.ReplaceAllString(*s, ",1,TIME\n")
		*s = ioUsageOf.ReplaceAllString(*s, "USAGE")
	}
	return r
}

// Rates and times are written as qemu-io writes them.
func TestIOFigures(t *testing.T) {
	for n, want := range map[float64]string{0: "0 bytes", 1: "1 bytes", 1000: "1000 bytes", 1024: "1 KiB", 1536: "1.500 KiB", 1 << 20: "1 MiB",
		879.750432: "879.750432 bytes", 1992294400: "1.855 GiB", 1 << 62: "4 EiB"} {
		if got := ioAmount(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "00.00 sec", 990 * time.Millisecond: "00.99 sec", 1100 * time.Millisecond: "0:00:01.10",
		61170 * time.Millisecond: "0:01:01.17"} {
		if got := ioTime(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// ioFaultSessions are of images under rules.
var ioFaultSessions = []ioSessionCase{
	{"breakpoints", nil, "break write_aio A\nbreak no_event B\naio_write -P 1 0 512\nwait_break A\nresume A\naio_flush\nresume A\nremove_break A\nbreak read_aio C\nremove_break C\nread -P 1 0 512", false},
	{"two at once", nil, "break write_aio A\naio_write -P 1 0 64k\nwait_break A\nbreak write_aio B\naio_write -P 2 128k 64k\nwait_break B\nresume B\nsleep 100\nresume A\naio_flush\nread -P 1 0 64k\nread -P 2 128k 64k", false},
	{"the same cluster", nil, "break write_aio A\naio_write -P 1 0 1k\nwait_break A\nwrite -P 2 64k 64k\naio_write -P 3 4k 1k\nresume A\naio_flush\nread -P 1 0 1k\nread -P 3 4k 1k\nread -P 0 1k 3k", false},
	{"no result before one waits", nil, "aio_write -P 1 0 64k\nlength\nhelp close\naio_flush\naio_read -P 1 0 64k\nlength\naio_flush", false},
	{"removed while stopped", nil, "break write_aio A\naio_write -P 1 0 512\nwait_break A\nremove_break A\naio_flush", false},
	{"copy on write", nil, "write -P 9 0 64k\ndiscard 0 64k\nbreak cow_write A\nwrite -P 1 1k 1k", false},
}

func TestIOFaults(t *testing.T) {
	world := ioTwins(t)
	for _, c := range ioFaultSessions {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for line := range strings.SplitSeq(c.lines, "\n") {
				args = append(args, "-c", line)
			}
			sameIO(t, world, append(args, "blkdebug::a"), "")
		})
	}
	for _, line := range ioFaultArguments {
		t.Run("qemu-io "+line, func(t *testing.T) { sameIO(t, world, words(line), "") })
	}
}

// ioFaultArguments are whole command lines, with images under rules.
var ioFaultArguments = []string{
	"-c length blkdebug:", "-c length blkdebug:a", "-c length blkdebug::", "-c length blkdebug::nofile", "-c length blkdebug:nofile:a",
	"-c length blkdebug:/:a", "-c length blkdebug::blkdebug::a",
	"-c length blkdebug:pattern:a", "-c length blkdebug:group.conf:a", "-c length blkdebug:event.conf:a",
	"-c 'read 0 1k' -c 'read 0 1k' blkdebug:once.conf:a", "-c 'read 0 1k' -c 'read 0 1k' blkdebug:always.conf:a",
	"-c 'write 0 128k' blkdebug:update.conf:a", "-c 'write 0 128k' blkdebug:updates.conf:a", "-c 'write -b 0 64k' blkdebug:updates.conf:a", "-c 'write 0 64k' -c close -c 'open a' -c 'read 0 64k' blkdebug:updates.conf:a",
	"-c 'write 0 1k' -c 'write 0 1k' blkdebug:states.conf:a", "-f raw -c 'read 0 1k' -c 'read 1k 1k' -c 'read 4k 512' blkdebug:sector.conf:r",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image\":{\"driver\":\"file\",\"filename\":\"a\"}}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\"}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image\":\"a\"}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"a\",\"foo\":1}}",
	"-c 'read 0 1k' json:{\"driver\":\"raw\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"r\",\"inject-error\":[{\"event\":\"none\",\"errno\":28}]}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"a\",\"inject-error\":[{\"event\":\"x\"}]}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"a\",\"inject-error\":[{\"event\":\"l2_load\",\"foo\":1}]}}",
	"-c length json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image.filename\":\"a\",\"inject-error\":[{\"event\":\"l2_load\",\"errno\":true}]}}",
	"--image-opts -c 'read 0 1k' driver=raw,file.driver=blkdebug,file.image.filename=r,file.inject-error.0.event=read_aio",
	"--image-opts -c length driver=raw,file.driver=blkdebug,file.image.filename=r,file.inject-error.1.event=read_aio",
	"--image-opts -c info driver=null-co", "--image-opts -c info driver=blkdebug,image.filename=r", "--image-opts -c info driver=raw,file.driver=null-co",
	"--image-opts -c info driver=copy-on-read,file.driver=raw,file.file.filename=r",
	"-C -c 'read 1M 64k' -c map over", "-C -c 'read 64k 64k' -c 'read 128k 1' -c map over", "-C -r -c length over",
	"--image-opts -c 'read 1k 1k' -c map driver=copy-on-read,file.driver=qcow2,file.file.filename=over",
	"--image-opts -r -c length driver=copy-on-read,file.driver=qcow2,file.file.filename=over",
	"--image-opts -c length driver=copy-on-read,foo=1,file.driver=raw,file.file.filename=r", "--image-opts -c length driver=copy-on-read",
	"--image-opts -c info driver=compress,file.driver=raw,file.file.filename=r",
	"--image-opts -c 'write -P 3 0 224k' -c 'write -P 4 272k 224k' -c 'read -P 3 0 224k' -c 'read -P 0 224k 48k' driver=compress,file.driver=qcow2,file.file.filename=a",
	"-c length blkverify:r", "-c length blkverify:", "-c length blkverify:nofile:a", "-c length blkverify:r:nofile",
	"-c 'write 0 1k' -c 'read 0 4k' -c flush -c 'discard 0 64k' -c 'read 64k 1k' blkverify:r:a",
	"--image-opts -c length driver=blkverify,raw.filename=r,test.driver=qcow2,test.file.filename=a,foo=1",
	"--image-opts -c length driver=blkverify,test.driver=qcow2,test.file.filename=a", "--image-opts -c length driver=raw,file.driver=blkverify,file.raw.filename=r",
	"-c length host_device:a", "--image-opts -c length driver=host_device,filename=a", "-c length null-co:", "-c length null-co://foo", "-c length copy-on-read:a",
	"-c 'open -o file.align=4k blkdebug::a' -c 'write 0 512' -c 'read 0 4k'", "-c 'open -o file.align=511 blkdebug::a'", "-c 'open -o file.align=4k,file.max-transfer=1k blkdebug::a'",
	"-c 'open -o file.align=x blkdebug::a'", "-c 'open -o file.opt-write-zero=4k,file.max-write-zero=6000 blkdebug::a'", "-c 'open -o file.max-discard=4G blkdebug::a'",
	"-f raw -c 'open -o driver=raw,file.max-transfer=64k,file.opt-write-zero=64k,file.max-write-zero=128k,file.opt-discard=64k blkdebug::r' -c 'write 1k 300k' -c 'write -z 3k 200k' -c 'discard 5k 200k' -c 'read -P 0 5k 195k'",
	"-c length null-co://", "-c length -c 'read 0 1k' -c 'write 0 1k' null-aio://", "-c length json:{\"driver\":\"null-co\",\"size\":1024}",
	"--image-opts -c length driver=null-co,size=64M,read-zeroes=on",
	"--image-opts -c length driver=null-aio,foo=x", "--image-opts -c length driver=raw,file.driver=null-co,file.size=3k",
}
