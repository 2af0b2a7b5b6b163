package cli

import (
	"fmt"
	"os"
	"strings"
)

// This file reads a command line by the rules of GNU getopt_long: short flags
// may be bundled and have their argument attached, long ones may be abbreviated
// as long as that is unambiguous, options may follow arguments, and "--" ends
// them. POSIXLY_CORRECT ends them at the first argument.

// option is one option of a command: what the parser accepts and what --help
// shows.
type option struct {
	short byte   // 0 if there is none
	long  string // empty if there is none
	arg   string // what --help calls its argument; empty if it takes none
	own   bool   // qemu-img does not have it
	help  string
	// set is told of each time the option is given.
	set func(value string) error
}

func (o *option) takesArg() bool { return o.arg != "" }

// usageError is a mistake in the command line itself, which earns a hint to
// look at the help.
type usageError string

func (e usageError) Error() string { return string(e) }

// bareUsageError is one for which qemu-img gives no hint.
type bareUsageError string

func (e bareUsageError) Error() string { return string(e) }

// badOption is an option that there is not, or that lacks its argument.
type badOption struct {
	word    string // as it was given
	flag    byte   // the one in question of those in word; 0: a long option
	missing bool   // the argument is
}

func (e *badOption) Error() string { return e.Unwrap().Error() }

func (e *badOption) Unwrap() error {
	if e.missing {
		return usageError("missing argument for option '" + e.word + "'")
	}
	return usageError("unrecognized option '" + e.word + "'")
}

// asGetopt words it as the C library does.
func (e *badOption) asGetopt() string {
	switch {
	case e.missing && e.flag != 0:
		return fmt.Sprintf("option requires an argument -- '%c'", e.flag)
	case e.missing:
		return fmt.Sprintf("option '%s' requires an argument", e.word)
	case e.flag != 0:
		return fmt.Sprintf("invalid option -- '%c'", e.flag)
	}
	return fmt.Sprintf("unrecognized option '%s'", e.word)
}

// getopt hands each option in args to its set function, in the order in which
// they are given, and returns the arguments that are none. With inOrder the
// first argument ends the options.
func getopt(options []option, args []string, inOrder bool) ([]string, error) {
	inOrder = inOrder || os.Getenv("POSIXLY_CORRECT") != ""
	var rest []string
	for len(args) > 0 {
		word := args[0]
		var err error
		switch {
		case word == "--":
			return append(rest, args[1:]...), nil
		case strings.HasPrefix(word, "--"):
			args, err = longOption(options, args)
		case len(word) > 1 && word[0] == '-':
			args, err = shortOptions(options, args)
		case inOrder:
			return args, nil
		default:
			rest, args = append(rest, word), args[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// longOption reads the option in args[0] and returns the words after it.
func longOption(options []option, args []string) ([]string, error) {
	word, args := args[0], args[1:]
	name, value, attached := strings.Cut(word[2:], "=")
	o := findLong(options, name)
	switch {
	case o == nil || attached && !o.takesArg():
		return nil, &badOption{word: word}
	case o.takesArg() && !attached && len(args) == 0:
		return nil, &badOption{word: word, missing: true}
	case o.takesArg() && !attached:
		value, args = args[0], args[1:]
	}
	return args, o.set(value)
}

// findLong returns the option with that name, or else the only one whose name
// begins so.
func findLong(options []option, name string) *option {
	var found *option
	many := false
	for i := range options {
		o := &options[i]
		switch {
		case o.long == "" || !strings.HasPrefix(o.long, name):
		case o.long == name:
			return o
		default:
			many = many || found != nil
			found = o
		}
	}
	if many {
		return nil
	}
	return found
}

// shortOptions reads the flags bundled in args[0] and returns the words after
// them.
func shortOptions(options []option, args []string) ([]string, error) {
	word, args := args[0], args[1:]
	for flags := word[1:]; flags != ""; {
		flag := flags[0]
		o := findShort(options, flag)
		flags = flags[1:]
		value := ""
		switch {
		case o == nil:
			return nil, &badOption{word: word, flag: flag}
		case !o.takesArg():
		case flags != "":
			value, flags = flags, ""
		case len(args) == 0:
			return nil, &badOption{word: word, flag: flag, missing: true}
		default:
			value, args = args[0], args[1:]
		}
		if err := o.set(value); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func findShort(options []option, c byte) *option {
	for i := range options {
		if c != 0 && options[i].short == c {
			return &options[i]
		}
	}
	return nil
}
