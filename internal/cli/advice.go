package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
)

// This file tells people what to do next after an error. Called as qemu-img
// there is nothing but that program's hint at its help.

// advised is an error with what to do about it.
type advised struct {
	err    error
	advice string
}

func (a advised) Error() string { return a.err.Error() }
func (a advised) Unwrap() error { return a.err }

// advices are what to do about kinds of errors.
var advices = []advised{
	{block.ErrLocked, "close the program that uses the image; with -U it can be looked at all the same"},
	{block.ErrFormat, "without -f the format is found out from the image"},
	{block.ErrCorrupt, "'diskimg check FILE' lists what is wrong; make a copy before 'diskimg check -r all FILE' mends it"},
	{block.ErrBroken, "nothing more was written; 'diskimg check FILE' tells what state the image is in"},
	{block.ErrPassphrase, "give it with --object secret,id=key,file=PATH --image-opts driver=qcow2,encrypt.key-secret=key,file.filename=FILE, or of a LUKS disk with driver=luks,key-secret=key"},
	{diskimg.ErrUnknownFormat, "formats are " + strings.Join(formatNames(), ", ")},
}

// advise prints what to do about err, if something is known.
func (sh *shell) advise(err error) {
	var usage usageError
	var bare bareUsageError
	var own advised
	switch {
	case sh.emulate:
		if errors.As(err, &usage) {
			fmt.Fprintf(sh.err, "Try '%s --help' for more information\n", sh.name)
		}
	case errors.As(err, &usage) || errors.As(err, &bare):
		sh.adviseUsage()
	case errors.As(err, &own):
		fmt.Fprintf(sh.err, "hint: %s\n", own.advice)
	default:
		i := slices.IndexFunc(advices, func(a advised) bool { return errors.Is(err, a.err) })
		if i >= 0 {
			fmt.Fprintf(sh.err, "hint: %s\n", advices[i].advice)
		}
	}
}

// adviseUsage shows how the command is written that was given wrongly.
func (sh *shell) adviseUsage() {
	command := sh.name
	if sh.verb != nil {
		command += " " + sh.verb.name
		fmt.Fprintf(sh.err, "usage: %s [options] %s\n", command, sh.verb.args)
	}
	fmt.Fprintf(sh.err, "Try '%s --help' for more information\n", command)
}

// unknownCommand names the command that may have been meant.
func (sh *shell) unknownCommand(name string) error {
	text := "Command not found: " + name
	if !sh.emulate {
		best := slices.MinFunc(verbs(), func(a, b verb) int { return distance(name, a.name) - distance(name, b.name) })
		if 2*distance(name, best.name) <= len(name) {
			text += "; did you mean " + best.name + "?"
		}
	}
	return usageError(text)
}

// distance counts the letters that have to be put in, left out or changed to
// make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// once leaves out what a message says twice in a row, as QEMU's do.
func once(text string) string {
	return strings.Join(slices.Compact(strings.Split(text, ": ")), ": ")
}
