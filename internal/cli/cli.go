// Package cli is the command lines of diskimg: the verbs, a file each, and what
// they share. Called as qemu-img it takes that program's options and prints
// what that program prints, to the letter.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"golang.org/x/term"
)

// Version is that of this program; Emulated is the version of QEMU whose
// command lines it follows.
const (
	Version  = "0.1.0"
	Emulated = "7.2.0"
)

const qemuImg = "qemu-img"

// shell is what a command runs in.
type shell struct {
	ctx      context.Context
	name     string // the program, as messages and the help call it
	emulate  bool   // keep to what qemu-img does even where we could do better
	in       io.Reader
	out, err io.Writer
	terminal *os.File      // out, if it is a terminal
	held     *bufio.Writer // what is held back of out, nil if nothing is
	failed   error         // the first error of writing to out
	damaged  bool          // an image is, and that has been told
	verb     *verb         // that runs, nil before it is known
}

// command is one run of a verb. Its options write into it.
type command interface {
	options() []option
	// run does the work; args are those that are no options. The error is
	// printed and makes the exit code 1 unless it is an exit.
	run(sh *shell, args []string) error
}

// exitInterrupted is the exit code of a command that was cancelled, that which
// a shell reports for a program that SIGINT has ended.
const exitInterrupted = 130

// exit is an error that asks for an exit code.
type exit struct {
	code int
	err  error // nil if there is nothing to print
}

// interrupted makes the error of a command that was cancelled and has changed
// something.
func interrupted(format string, args ...any) error {
	return exit{exitInterrupted, failf("interrupted; "+format, args...)}
}

// isInterruption reports whether nothing has happened but that the command was
// cancelled.
func isInterruption(err error) bool {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(several.Unwrap(), func(e error) bool { return !isInterruption(e) })
	}
	if next := errors.Unwrap(err); next != nil {
		return isInterruption(next)
	}
	return errors.Is(err, context.Canceled) // as a signal says that it is
}

// failf makes an error that is worded for the user, in QEMU's words where it
// has some.
func failf(format string, args ...any) error {
	return &sentence.Error{Text: fmt.Sprintf(format, args...)}
}

// messages is an error that takes several, each a line with the program's name.
type messages []string

func (m messages) Error() string { return strings.Join(m, "\n") }

func (e exit) Error() string { return fmt.Sprint(e.err) }
func (e exit) Unwrap() error { return e.err }

// Run runs a command line, args[0] being the name that the program was called
// by, and returns the exit code. When ctx ends, what runs is cancelled and
// leaves no partial output.
func Run(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	sh := &shell{ctx: ctx, name: "diskimg", in: in, err: err}
	sh.setOutput(out)
	if len(args) == 0 {
		args = []string{sh.name}
	}
	name, args := strings.TrimSuffix(filepath.Base(args[0]), ".exe"), args[1:]
	if name != qemuImg && name != qemuIO && len(args) > 0 && (args[0] == qemuImg || args[0] == qemuIO) {
		name, args = args[0], args[1:]
	}
	run := sh.main
	if name == qemuImg && sh.terminal == nil {
		sh.hold()
	}
	if name == qemuImg || name == qemuIO {
		sh.name, sh.emulate = name, true
	}
	if name == qemuIO {
		run = sh.ioMain
	}
	code := sh.report(run(args))
	sh.flush()
	if sh.failed != nil && code == 0 {
		sh.complain("could not write the output: %s", sentence.Of(sh.failed))
		code = 1
	}
	return code
}

// setOutput has all that is printed go to w, and the first failure be noticed.
func (sh *shell) setOutput(w io.Writer) {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		sh.terminal = f
	}
	sh.out = writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		if err != nil && sh.failed == nil {
			sh.failed = err
		}
		return n, err
	})
}

// stdioBuffer is as much as the C library holds back of what goes to a pipe or a
// file: the order of standard output and standard error in one of these depends
// on it.
const stdioBuffer = 4096

func (sh *shell) hold() {
	sh.held = bufio.NewWriterSize(sh.out, stdioBuffer)
	sh.out = sh.held
}

// flush prints what has been held back.
func (sh *shell) flush() {
	if sh.held != nil {
		sh.held.Flush() // an error is noticed below, see setOutput
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// main reads the options that come before the verb and runs the verb.
func (sh *shell) main(args []string) error {
	top := topOptions{sh}
	rest, err := getopt(top.options(), args, true)
	switch {
	case err == errHelp:
		return sh.overview()
	case err == errVersion:
		return sh.version()
	case err == errTraceHelp:
		return nil
	case err != nil:
		return err
	case len(rest) == 0 && len(args) > 0 && sh.emulate:
		return nil // it has had something to do
	case len(rest) == 0 && !sh.emulate:
		return sh.overview()
	case len(rest) == 0:
		return usageError("Not enough arguments")
	}
	v := findVerb(rest[0])
	if v == nil || v.own && sh.emulate {
		return sh.unknownCommand(rest[0])
	}
	return sh.runVerb(v, rest[1:])
}

func (sh *shell) runVerb(v *verb, args []string) error {
	sh.verb = v
	c := v.new()
	var last []string
	if _, ok := c.(interface{ lastIsValue() }); ok && len(args) > 1 {
		args, last = args[:len(args)-1], args[len(args)-1:]
	}
	if w, ok := c.(interface{ wipe() }); ok {
		defer w.wipe()
	}
	if i, ok := c.(interface{ seeEnds() }); ok && !sh.emulate {
		i.seeEnds()
	}
	args, err := getopt(append(sh.allowed(v, c.options()), helpOption), args, false)
	if err == errHelp {
		return sh.helpVerb(v)
	}
	if err != nil {
		return err
	}
	return c.run(sh, append(args, last...))
}

// errHelp and errVersion end the reading of a command line early.
var (
	errHelp    = errors.New("help")
	errVersion = errors.New("version")
)

var helpOption = option{short: 'h', long: "help", help: "show this help", set: func(string) error { return errHelp }}

var versionOption = option{short: 'V', long: "version", help: "show the version", set: func(string) error { return errVersion }}

// topOptions are the options before the verb.
type topOptions struct{ sh *shell }

func (t topOptions) options() []option {
	return []option{
		helpOption,
		versionOption,
		{short: 'T', long: "trace", arg: "SPEC", help: "accepted, but there are no trace events", set: t.sh.trace},
	}
}

// report prints err, if there is anything to print, and returns the exit code.
func (sh *shell) report(err error) int {
	if err == nil {
		return 0
	}
	var text printed
	if errors.As(err, &text) {
		sh.printf("%s", text)
		return 0
	}
	if isInterruption(err) {
		sh.complain("interrupted; nothing has been made")
		return exitInterrupted
	}
	code := 1
	var e exit
	if errors.As(err, &e) {
		code, err = e.code, e.err
	}
	if err == nil {
		return code
	}
	var list messages
	if !errors.As(err, &list) {
		list = messages{sh.words(err)}
	}
	for _, text := range list {
		if !sh.emulate {
			sh.complain("%s", once(text))
			continue
		}
		fmt.Fprintf(sh.err, "%s: %s%s", sh.name, text, lineEnd(text))
	}
	sh.advise(err)
	return code
}

// lineEnd is what qemu-img ends a message with: after a hint it forgets to.
func lineEnd(text string) string {
	if strings.Contains(text, "\nDetected format of ") {
		return ""
	}
	return "\n"
}

// words is the message of an error.
func (sh *shell) words(err error) string {
	text := sentence.Of(err)
	if sh.emulate {
		text = sh.asDamage(block.Brief(text, err), err)
	}
	if strings.Contains(text, "Too much extra metadata in snapshot table entry ") && !strings.Contains(text, "\n") {
		text += "\nYou can force-remove this extra metadata with qemu-img check -r all"
	}
	return text
}

// complain prints a message to standard error.
func (sh *shell) complain(format string, args ...any) {
	fmt.Fprintf(sh.err, "%s: %s\n", sh.name, fmt.Sprintf(format, args...))
}

func (sh *shell) warn(format string, args ...any) { sh.complain("warning: "+format, args...) }

func (sh *shell) printf(format string, args ...any) { fmt.Fprintf(sh.out, format, args...) }
