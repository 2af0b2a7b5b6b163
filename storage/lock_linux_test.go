package storage_test

// These tests hold images with QEMU's programs and look at what they say of
// images held here. What excludes what is asked of QEMU, not written down.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/storage"
	"golang.org/x/sys/unix"
)

// held returns which bytes of the file are locked by anybody but f.
func held(t *testing.T, f *storage.File) (bytes []int64) {
	t.Helper()
	probe := openPlain(t, f.Name())
	for off := int64(0); off < 300; off++ {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: 1}
		must(t, unix.FcntlFlock(probe.Fd(), unix.F_OFD_GETLK, &l))
		if l.Type != unix.F_UNLCK {
			bytes = append(bytes, off)
		}
	}
	return bytes
}

func TestLockBytes(t *testing.T) {
	f := create(t, newPath(t))
	for _, test := range []struct {
		mode storage.LockMode
		want []int64
	}{
		{storage.LockReader, []int64{100, 201, 203}},
		{storage.LockWriter, []int64{100, 101, 103, 201, 203}},
		{storage.LockInfo, []int64{201, 203}},
		{storage.LockForceShared, []int64{100}},
		{storage.LockRawWriter, []int64{100, 101}},
		{storage.LockRawResizer, []int64{100, 101, 103}},
		{storage.LockRawServer, []int64{100, 101, 203}},
		{storage.LockRawReadServer, []int64{100, 203}},
		{storage.LockCreator, []int64{101, 103, 203}},
		{storage.LockMode{Use: storage.AllPerms}, []int64{100, 101, 102, 103, 200, 201, 202, 203}},
		{storage.LockNone, nil},
	} {
		// Each comes after the one before: only the difference is to change.
		must(t, lock(f, test.mode))
		if got := held(t, f); !slices.Equal(got, test.want) {
			t.Errorf("%+v holds %v, want %v", test.mode, got, test.want)
		}
		if f.Locked() != test.mode {
			t.Errorf("Locked is %+v, want %+v", f.Locked(), test.mode)
		}
	}
}

// A Lock that fails leaves what was held, and nothing of what was tried.
func TestLockFailureUndoes(t *testing.T) {
	path := newPath(t)
	a, b := create(t, path), create(t, path)
	must(t, lock(a, storage.LockForceShared))
	must(t, lock(b, storage.LockReader))
	err := lock(a, storage.LockWriter)
	var le *storage.LockError
	if !errors.As(err, &le) || le.Perm != storage.Write || le.Shared || le.Path != path {
		t.Fatalf("error %#v", err)
	}
	if a.Locked() != storage.LockForceShared {
		t.Errorf("holds %+v", a.Locked())
	}
	must(t, b.Close())
	if got := held(t, a); !slices.Equal(got, []int64{100}) {
		t.Errorf("bytes %v are held, want 100", got)
	}
}

// Another program's write lock on a byte is in the way too.
func TestLockAgainstWriteLock(t *testing.T) {
	f := create(t, newPath(t))
	other := openPlain(t, f.Name())
	must(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 1000}))
	if err := lock(f, storage.LockReader); !errors.Is(err, block.ErrLocked) {
		t.Errorf("Lock: %v", err)
	}
}

// holder is a QEMU program that has an image open.
type holder struct {
	name   string
	args   []string
	format string
}

var holders = []holder{
	{"qcow2 writer", []string{"-f", "qcow2"}, "qcow2"},
	{"qcow2 reader", []string{"-r", "-f", "qcow2"}, "qcow2"},
	{"qcow2 shared reader", []string{"-U", "-r", "-f", "qcow2"}, "qcow2"},
	{"raw writer", []string{"-f", "raw"}, "raw"},
	{"raw reader", []string{"-r", "-f", "raw"}, "raw"},
}

// hold has qemu-io open the image until the test ends.
func hold(t *testing.T, h holder, path string) (release func()) {
	t.Helper()
	cmd := exec.Command("qemu-io", append(slices.Clone(h.args), path)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	release = func() { in.Close(); cmd.Wait() }
	t.Cleanup(release)
	fmt.Fprintln(in, "read 0 512") // it answers when the image is open
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "read 512/512") {
			go io.Copy(io.Discard, out)
			return release
		}
	}
	t.Fatalf("qemu-io %v could not open the image", cmd.Args)
	return nil
}

// What QEMU's programs hold excludes here what it excludes among themselves.
func TestQEMUHolds(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, h := range holders {
		t.Run(h.name, func(t *testing.T) {
			path := newPath(t)
			qemu.Create(t, path, h.format, 1<<20, nil)
			f := open(t, path, &storage.FileOptions{Writable: true})
			release := hold(t, h, path)
			for _, as := range users(h.format) {
				want := as.run(path)
				err := lock(f, as.mode)
				switch {
				case want == "" && err != nil:
					t.Errorf("%s: %v; QEMU is let in", as.name, err)
				case want != "" && !errors.Is(err, block.ErrLocked):
					t.Errorf("%s: error %v; QEMU says %q", as.name, err, want)
				case want != "" && !saysAs(err, want):
					t.Errorf("%s: %q; QEMU says %q", as.name, err, want)
				}
				must(t, f.Unlock())
			}
			release()
			must(t, lock(f, storage.LockWriter))
		})
	}
}

// What is held here excludes QEMU as a QEMU program that holds the same does.
func TestQEMUIsExcluded(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for i, h := range holders {
		t.Run(h.name, func(t *testing.T) {
			path := newPath(t)
			qemu.Create(t, path, h.format, 1<<20, nil)
			f := open(t, path, &storage.FileOptions{Writable: true})
			for _, as := range users(h.format) {
				release := hold(t, h, path)
				want := as.run(path)
				release()
				must(t, lock(f, holderModes[i]))
				if got := as.run(path); got != want {
					t.Errorf("%s: QEMU says %q here, %q to its own", as.name, got, want)
				}
				must(t, f.Unlock())
				if got := as.run(path); got != "" {
					t.Errorf("%s: QEMU says %q after Unlock", as.name, got)
				}
			}
		})
	}
}

// holderModes are what holders hold, in their order.
var holderModes = []storage.LockMode{storage.LockWriter, storage.LockReader, storage.LockForceShared,
	storage.LockRawWriter, storage.LockForceShared}

// user is a way to use an image, here and with a program of QEMU.
type user struct {
	name string
	mode storage.LockMode
	run  func(path string) (complaint string)
}

func users(format string) []user {
	img := func(args ...string) func(string) string {
		return func(path string) string {
			_, stderr, _ := qemu.TryImg(append(slices.Clone(args), path)...)
			return complaint(stderr)
		}
	}
	qio := func(args ...string) func(string) string {
		return func(path string) string {
			out, _ := exec.Command("qemu-io", append(append([]string{"-c", "read 0 512"}, args...), path)...).CombinedOutput()
			return complaint(string(out))
		}
	}
	if format == "raw" {
		return []user{
			{"write raw", storage.LockRawWriter, qio("-f", "raw")},
			{"read raw", storage.LockForceShared, qio("-r", "-f", "raw")},
			{"convert from raw", storage.LockReader, func(path string) string {
				_, stderr, _ := qemu.TryImg("convert", "-f", "raw", "-O", "raw", path, path+".out")
				return complaint(stderr)
			}},
		}
	}
	return []user{
		{"info", storage.LockInfo, img("info", "-f", format)},
		{"check", storage.LockReader, img("check", "-f", format)},
		{"read", storage.LockReader, qio("-r", "-f", format)},
		{"shared read", storage.LockForceShared, qio("-U", "-r", "-f", format)},
		{"write", storage.LockWriter, qio("-f", format)},
	}
}

// complaint is what stderr says of locks: two lines, or nothing.
func complaint(stderr string) string {
	_, after, found := strings.Cut(stderr, "Failed to get ")
	if !found {
		return ""
	}
	return strings.TrimSpace("Failed to get " + after)
}

// saysAs reports whether err is in QEMU's words.
func saysAs(err error, want string) bool {
	var le *storage.LockError
	return errors.As(err, &le) && le.Sentence()+"\n"+le.Hint() == want
}

// A file that is closed is free at once, also while this program starts others,
// which hold all its files until they execute.
func TestCloseUnlocksWhileProcessesStart(t *testing.T) {
	path := newPath(t)
	create(t, path).Close()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	defer wg.Wait()
	defer close(done)
	for i := range 2000 {
		f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Lock(storage.Write|storage.Resize, 0); err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
