package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file is the table of qemu-io's commands, and those of them that are
// about no image.

// ioWords returns the table, in the order in which help shows it.
func ioWords() []ioWord {
	return slices.Concat(ioTransferWords(), ioImageWords(), ioDebugWords(), []ioWord{
		{name: "help", alias: "?", args: "[command]", summary: "help for one or all commands", max: 1, run: (*ioSession).help},
		{name: "quit", alias: "q", summary: "exit the program", max: -1, run: (*ioSession).leave},
		{name: "sleep", summary: "waits for the given value in milliseconds", min: 1, max: 1, run: (*ioSession).sleep},
		{name: "abort", summary: "simulate a program crash using abort(3)", run: (*ioSession).abort},
		{name: "sigraise", args: "signal", summary: "raises a signal", min: 1, max: 1, run: (*ioSession).raise,
			about: "Sends this program the signal with that number: 9 ends it as a crash would, with\nnothing flushed or closed."},
	})
}

// usage is the line by which a command is known.
func (w *ioWord) usage() string {
	if w.args == "" && w.name != "map" { // which qemu-io shows with a blank more
		return w.name + " -- " + w.summary
	}
	return w.name + " " + w.args + " -- " + w.summary
}

// usageByName is usage for a command that was called by its alias.
func (w *ioWord) usageByName() string {
	for _, row := range ioWords() {
		if w.name == row.name || w.name == row.alias {
			return row.usage()
		}
	}
	return w.usage()
}

func (s *ioSession) help(words []string) error {
	if len(words) == 1 {
		return s.helpAll()
	}
	w := findIOWord(words[1])
	if w == nil {
		return saysf("command %s not found", words[1])
	}
	fmt.Fprintln(s.out, w.usage())
	if w.about != "" {
		fmt.Fprintf(s.out, "\n %s\n\n", strings.ReplaceAll(w.about, "\n", "\n "))
	}
	return nil
}

func (s *ioSession) helpAll() error {
	list := ioWords()
	slices.SortFunc(list, func(a, b ioWord) int { return cmp.Compare(a.name, b.name) })
	for _, w := range list {
		fmt.Fprintln(s.out, w.usage())
	}
	fmt.Fprint(s.out, "\nUse 'help commandname' for extended help.\n")
	return nil
}

func (s *ioSession) leave([]string) error {
	s.quit = true
	return nil
}

func (s *ioSession) sleep(words []string) error {
	ms, err := strconv.ParseUint(words[1], 0, 31)
	if err != nil {
		return saysf("%s is not a valid number", words[1])
	}
	s.wait(time.Duration(ms) * time.Millisecond)
	return nil
}

// maxSignal is the highest number that a signal has on Linux.
const maxSignal = 64

func (s *ioSession) raise(words []string) error {
	n, ok := ioNumber(words[1])
	switch {
	case !ok:
		return saysf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s", words[1])
	case n > maxSignal:
		return saysf("signal argument '%s' is too large to be a valid signal", words[1])
	}
	s.out.Flush()
	return raiseSignal(int(n))
}

// abort ends the program at once. What was printed and not sent is lost.
func (s *ioSession) abort([]string) error {
	if err := raiseSignal(signalAbort); err != nil {
		os.Exit(1)
	}
	return nil
}
