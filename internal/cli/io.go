package cli

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file is the program qemu-io, which is the verb io as well: its options,
// and where its commands come from. The commands are in the files io_*.go.

const qemuIO = "qemu-io"

var ioVerb = verb{
	name: "io", group: groupLook, args: "[FILE]", own: true,
	summary: "read and write parts of a disk by hand",
	about: "Commands are given with -c or, line by line, on standard input. The command help\n" +
		"lists them; \"help read\" tells more about one. What is read can be dumped and\n" +
		"compared with a pattern. The exit code is 1 if a command has failed.",
	example: "io -c 'write -P 0xaa 1M 64k' -c 'read -v 1M 32' disk.qcow2\nio -r -c map disk.qcow2",
	new:     func() command { return &ioCommand{} },
}

type ioCommand struct {
	input
	openFlags
	commands []string
	traces   []string
}

func (c *ioCommand) options() []option {
	return append(append(c.input.options(), c.openFlags.options()...),
		option{short: 'c', long: "cmd", arg: "COMMAND", help: "run a command, and no others but those given so",
			set: func(s string) error { c.commands = append(c.commands, s); return nil }},
		option{short: 'm', long: "misalign", help: "accepted and ignored: buffers have no alignment", set: accept},
		option{short: 'T', long: "trace", arg: "SPEC", help: "accepted, but there are no trace events",
			set: func(s string) error { c.traces = append(c.traces, s); return nil }})
}

func accept(string) error { return nil }

// openFlags say how an image is to be opened, on the command line and in the
// command open.
type openFlags struct {
	readOnly, snapshot, copyOnRead, direct, native bool
	cache, discard, aio                            string
}

func (f *openFlags) options() []option {
	return []option{
		{short: 'r', long: "read-only", help: "open the image for reading only", set: on(&f.readOnly)},
		{short: 's', long: "snapshot", help: "write to memory in place of the image", set: on(&f.snapshot)},
		{short: 'C', long: "copy-on-read", help: "keep in the image what is read from images below it", set: on(&f.copyOnRead)},
		{short: 'n', long: "nocache", help: "the same as -t none", set: on(&f.direct)},
		{short: 'k', long: "native-aio", help: "the same as -i native", set: on(&f.native)},
		{short: 't', long: "cache", arg: "CACHE", help: "with unsafe, nothing waits for the disk", set: text(&f.cache)},
		{short: 'd', long: "discard", arg: "ignore|unmap", help: "whether discard gives space back", set: text(&f.discard)},
		{short: 'i', long: "aio", arg: "threads|native|io_uring", help: "accepted and ignored: there is one way", set: text(&f.aio)},
	}
}

// check finds values that can't be.
func (f *openFlags) check() error {
	switch {
	case f.cache != "" && !cacheMode(f.cache).valid():
		return failf("Invalid cache option: %s", f.cache)
	case !slices.Contains([]string{"", "ignore", "off", "unmap", "on"}, f.discard):
		return failf("Invalid discard option: %s", f.discard)
	case !slices.Contains([]string{"", "threads", "native", "io_uring"}, f.aio):
		return failf("Invalid aio option: %s", f.aio)
	}
	return nil
}

// checkImage finds what an image can't be opened with.
func (f *openFlags) checkImage() error {
	direct := f.direct || f.cache == "none" || f.cache == "off" || f.cache == "directsync"
	switch {
	case f.copyOnRead && f.readOnly:
		return failf("Can't use copy-on-read on read-only device")
	case (f.native || f.aio == "native") && !direct:
		return failf("aio=native was specified, but it requires cache.direct=on, which was not specified.")
	}
	return nil
}

func (f *openFlags) ignoresDiscard() bool { return f.discard == "ignore" || f.discard == "off" }

func (c *ioCommand) run(sh *shell, args []string) error {
	for _, spec := range c.traces {
		if err := sh.trace(spec); err == errTraceHelp {
			return nil
		} else if err != nil {
			return err
		}
	}
	switch {
	case c.imageOpts && c.format != "":
		return failf("--image-opts and -f are mutually exclusive")
	case len(args) > 1 && sh.name == qemuIO:
		return sh.ioUsage(nil)
	case len(args) > 1:
		return usageError("Expecting one image file name")
	}
	if err := c.openFlags.check(); err != nil {
		return err
	}
	s := newIOSession(sh)
	s.objects = &c.objects
	defer s.out.Flush()
	if len(args) == 1 {
		if err := s.openNamed(args[0], &c.input, c.openFlags); err != nil {
			return err
		}
	}
	s.runAll(c.commands)
	s.end()
	if s.failed {
		return exit{code: 1}
	}
	return sh.ctx.Err()
}

// runAll runs the commands or, if there are none, those that are read.
func (s *ioSession) runAll(commands []string) {
	for _, line := range commands {
		if s.over() {
			return
		}
		s.command(line)
	}
	if len(commands) == 0 {
		s.interactive()
	}
}

// lineWait is how long a line may take that is there already.
const lineWait = time.Millisecond

// interactive runs the commands that are read from the input.
func (s *ioSession) interactive() {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(s.sh.in); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				lines <- strings.TrimSuffix(line, "\n")
			}
			if err != nil {
				return
			}
		}
	}()
	for !s.over() {
		fmt.Fprintf(s.out, "%s> ", s.sh.name)
		s.out.Flush()
		line, ok := s.nextLine(lines)
		if !ok {
			return
		}
		s.command(line)
	}
}

// nextLine waits for a line and prints what requests come to meanwhile. A line
// that is there already comes before the results of requests: they are given no
// time to end.
func (s *ioSession) nextLine(lines <-chan string) (string, bool) {
	s.hear()
	select {
	case line, ok := <-lines:
		return line, ok
	case <-time.After(lineWait):
	}
	for s.collect(); ; {
		select {
		case line, ok := <-lines:
			return line, ok
		case over := <-s.done:
			s.finish(over)
		case <-s.heard.some:
			s.hear()
		case <-s.sh.ctx.Done():
			return "", false
		}
	}
}

// ioMain is the program qemu-io.
func (sh *shell) ioMain(args []string) error {
	c := &ioCommand{}
	list := append(c.options(), helpOption, versionOption)
	rest, err := getopt(list, args, false)
	var bad *badOption
	switch {
	case err == errHelp:
		sh.printf("%s", ioHelp(list))
		return nil
	case err == errVersion:
		return sh.version()
	case errors.As(err, &bad):
		return sh.ioUsage(bad)
	case err != nil:
		return err
	}
	return c.run(sh, rest)
}

// ioUsage shows how the program is called, after what is wrong.
func (sh *shell) ioUsage(bad *badOption) error {
	if bad != nil {
		sh.complain("%s", bad.asGetopt())
	}
	c := &ioCommand{}
	fmt.Fprint(sh.out, ioHelp(append(c.options(), helpOption, versionOption)))
	return exit{code: 1}
}

func ioHelp(list []option) string {
	var b strings.Builder
	sh := &shell{out: &b}
	sh.printf("Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\nReads and writes parts of a disk by hand.\n\n")
	sh.options(list)
	sh.printf("\nSee 'qemu-io -c help' for information on available commands.\n")
	return b.String()
}
