//go:build unix

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests run the program itself: the test binary is it, if asked to be.

func TestMain(m *testing.M) {
	if os.Getenv("DISKIMG_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// program returns a command that runs the program under a name.
func program(t *testing.T, name string, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Args = append([]string{name}, args...)
	cmd.Env = append(os.Environ(), "DISKIMG_TEST_MAIN=1")
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"diskimg": "diskimg version ", "/usr/bin/qemu-img": "qemu-img version 7.2"} {
		cmd, stdout, _ := program(t, name, "--version")
		if err := cmd.Run(); err != nil || !strings.HasPrefix(stdout.String(), want) {
			t.Errorf("%s: %q, %v", name, stdout, err)
		}
	}
	cmd, _, stderr := program(t, "diskimg", "info", "/nosuch")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || stderr.String() != "diskimg: Could not open '/nosuch': No such file or directory\n" {
		t.Errorf("%q, %v", stderr, err)
	}
}

// source makes a file of data that takes a while to convert at 1 MiB a second.
func source(t *testing.T) (dir, in, out string) {
	t.Helper()
	dir = t.TempDir()
	in, out = filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, bytes.Repeat([]byte("data"), 5<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir, in, out
}

func onlyTheSource(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// awaitOutput returns when the output is being written, under whatever name.
func awaitOutput(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		files, err := os.ReadDir(dir)
		if err != nil || time.Now().After(end) {
			t.Fatalf("no output is being made: %v", err)
		}
		if len(files) > 1 {
			time.Sleep(200 * time.Millisecond)
			return
		}
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		dir, in, out := source(t)
		cmd, stdout, stderr := program(t, "diskimg", "convert", "-r", "1M", "-O", "qcow2", in, out)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitOutput(t, dir)
		for _, s := range []os.Signal{syscall.SIGUSR1, sig} {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		start := time.Now()
		err := cmd.Wait()
		if cmd.ProcessState.ExitCode() != 130 || time.Since(start) > 10*time.Second {
			t.Errorf("%v: %v after %v", sig, err, time.Since(start))
		}
		text := regexp.MustCompile(`^    \(\d+\.\d\d/100%\)\ndiskimg: interrupted; nothing has been made\n$`)
		if stdout.Len() > 0 || !text.MatchString(stderr.String()) {
			t.Errorf("%v: printed %q and %q", sig, stdout, stderr)
		}
		onlyTheSource(t, dir)
	}
}

// A disk that is full, played by a limit on the length of files.
func TestFullDisk(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		dir, in, out := source(t)
		cmd, _, stderr := program(t, "diskimg", "convert", "-O", format, in, out)
		limited := exec.Command("sh", "-c", `ulimit -f 4096; exec "$0" "$@"`, cmd.Path)
		limited.Args = append(limited.Args, cmd.Args[1:]...)
		limited.Env, limited.Stderr = cmd.Env, cmd.Stderr
		err := limited.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v", format, err)
		}
		if !strings.Contains(stderr.String(), "File too large") || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: printed %q", format, stderr)
		}
		onlyTheSource(t, dir)
	}
}

func TestUnwritableDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("nothing is unwritable for root")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	cmd, _, stderr := program(t, "diskimg", "create", "-q", filepath.Join(dir, "new"), "1M")
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "Permission denied") {
		t.Errorf("%q, %v", stderr, err)
	}
}

// What is written to a pipe that nobody reads, or to /dev/full, is missed.
func TestLostOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd, _, stderr := program(t, "diskimg", "--help")
	cmd.Stdout = full
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "could not write the output") {
		t.Errorf("%q, %v", stderr, err)
	}
}
