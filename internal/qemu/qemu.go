// Package qemu runs the real programs, qemu-img and qemu-io, in tests. What it
// guarantees: a missing program is a skip on a developer's machine and a failure
// where CI=true; a program that fails ends the test with its command line and
// all it printed; none runs longer than Timeout.
package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Timeout is how long one program may run.
const Timeout = 5 * time.Minute

// Install is the command that installs what Need asks for.
const Install = "make deps"

// Need ends the test unless all programs are in the path: it skips, or fails
// where the environment has CI=true.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed; install it with: %s", p, Install)
		}
		t.Skipf("%s is not installed; install it with: %s", p, Install)
	}
}

// Img runs qemu-img and returns its standard output.
func Img(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, code := TryImg(args...)
	if code != 0 {
		t.Fatalf("qemu-img %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// TryImg runs qemu-img, which may fail. The code is -1 if it could not be run
// or did not exit by itself; stderr then says why.
func TryImg(args ...string) (stdout, stderr string, code int) {
	return run("", "qemu-img", args...)
}

func run(input, program string, args ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	Prepare(cmd)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		errs.WriteString(err.Error() + "\n")
	}
	if ctx.Err() != nil {
		errs.WriteString(program + " was killed after " + Timeout.String() + "\n")
	}
	if cmd.ProcessState == nil {
		return out.String(), errs.String(), -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
