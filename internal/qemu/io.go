package qemu

import (
	"fmt"
	"strings"
	"testing"
)

const prompt = "qemu-io> "

// IO opens an image with qemu-io and has it run the commands, all in one
// process. It returns what was printed. A command that fails, or finds another
// pattern than it was told, ends the test.
func IO(t testing.TB, image, format string, commands ...string) string {
	t.Helper()
	out, err := TryIO(append([]string{Open(image, format)}, commands...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryIO runs commands in one qemu-io process that has nothing open yet, so that
// a script can close an image and open it again, or another one. The error
// holds what was printed if any command has failed.
func TryIO(commands ...string) (string, error) {
	script := strings.Join(commands, "\n") + "\n"
	stdout, stderr, code := run(script, "qemu-io", Secret...)
	out := strings.ReplaceAll(stdout, prompt, "") + stderr
	if code != 0 {
		return out, fmt.Errorf("qemu-io: exit code %d\n%s\nof the script:\n%s", code, out, script)
	}
	return out, nil
}

// Open is the qemu-io command that opens an image for writing, with discards
// passed on.
func Open(image, format string) string {
	return fmt.Sprintf("open -d unmap -o driver=%s%s %s", format, keys(image, format), image)
}
