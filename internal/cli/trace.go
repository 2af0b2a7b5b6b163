package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is -T of qemu-img and qemu-io, which switches trace events on. There
// are none here: what is asked for by name is said not to exist.

var errTraceHelp = errors.New("list of trace events") // which is empty

// trace reads the argument of -T: [enable=]PATTERN,events=FILE,file=FILE.
func (sh *shell) trace(spec string) error {
	values := map[string]string{}
	for _, p := range splitImplied(spec, "enable") {
		if p.bare {
			sh.warn("short-form boolean option '%s' deprecated\nPlease use %[1]s=on instead", p.key)
		}
		if p.key != "enable" && p.key != "events" && p.key != "file" {
			return failf("Invalid parameter '%s'", p.key)
		}
		values[p.key] = p.value
	}
	pattern, given := values["enable"]
	switch {
	case given && (pattern == "help" || pattern == "?"):
		return errTraceHelp
	case given:
		sh.traceEvent("", pattern)
	}
	if path, given := values["events"]; given {
		return sh.traceEvents(path)
	}
	return nil
}

// traceEvents reads patterns from a file, one a line; # begins a comment.
func (sh *shell) traceEvents(path string) error {
	text, err := os.ReadFile(path)
	var failure *fs.PathError
	if errors.As(err, &failure) && failure.Op == "open" {
		fmt.Fprintf(sh.err, "%s:%s: %s\n", sh.name, path, sentence.Of(failure.Err))
		return exit{code: 1}
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
			sh.traceEvent(fmt.Sprintf("%s:%d:", path, number), line)
		}
	}
	return nil
}

// traceEvent warns of the name of an event; a pattern stands for what there is,
// and a minus switches off.
func (sh *shell) traceEvent(place, name string) {
	if strings.Contains(name, "*") {
		return
	}
	fmt.Fprintf(sh.err, "%s:%s warning: trace event '%s' does not exist\n", sh.name, place, strings.TrimPrefix(name, "-"))
}
