package cli

import (
	"fmt"
	"strings"
)

// This file makes the manual pages from the tables that --help is made from.

var manVerb = verb{
	name: "man", group: groupAbout, args: "[COMMAND]", own: true,
	summary: "print a manual page, for man -l or to be installed",
	about: "Without COMMAND it is the page of diskimg itself. `make man` writes all of them to\n" +
		"out/man.",
	example: "man convert | man -l -\nman convert > /usr/local/share/man/man1/diskimg-convert.1",
	new:     func() command { return manCommand{} },
}

type manCommand struct{}

func (manCommand) options() []option { return nil }

func (manCommand) run(sh *shell, args []string) error {
	switch len(args) {
	case 0:
		sh.printf("%s", mainPage())
		return nil
	case 1:
		v := findVerb(args[0])
		if v == nil {
			return usageError("Command not found: " + args[0])
		}
		sh.printf("%s", v.page())
		return nil
	}
	return usageError("Unexpected argument: " + args[1])
}

// page is a manual page in the making, in the macros of man(7).
type page struct{ strings.Builder }

func newPage(name, summary string) *page {
	p := &page{}
	fmt.Fprintf(p, ".TH %s 1 - \"diskimg %s\" \"Disk images\"\n", roff(strings.ToUpper(name)), Version)
	p.section("Name")
	p.text(name + " - " + summary)
	return p
}

func (p *page) section(title string) { fmt.Fprintf(p, ".SH %s\n", strings.ToUpper(title)) }

func (p *page) text(s string) {
	for line := range strings.Lines(s) {
		p.WriteString(roff(strings.TrimSuffix(line, "\n")) + "\n")
	}
}

// item is a term with what is said about it.
func (p *page) item(term, text string) {
	p.WriteString(".TP\n.B " + roff(term) + "\n")
	p.text(text)
}

// roff takes the special meaning from all characters of a line.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	return line
}

func (v *verb) page() string {
	p := newPage("diskimg-"+v.name, v.summary)
	p.section("Synopsis")
	p.text("diskimg " + v.name + " [options] " + v.args)
	p.section("Description")
	p.text(v.about)
	p.section("Options")
	for _, o := range v.allOptions() {
		p.item(strings.TrimSpace(o.spelling()), o.help)
	}
	if v.example != "" {
		p.section("Examples")
		p.WriteString(".nf\n")
		for line := range strings.Lines(v.example) {
			p.text("diskimg " + line)
		}
		p.WriteString(".fi\n")
	}
	p.section("See also")
	p.text("diskimg(1)")
	return p.String()
}

func mainPage() string {
	p := newPage("diskimg", "disk images of virtual machines")
	p.section("Synopsis")
	p.text("diskimg COMMAND [options] arguments")
	p.section("Description")
	p.text("It reads, writes, checks and converts disk images. Called as qemu-img it takes\n" +
		"that program's options and prints what that program prints.")
	p.section("Commands")
	for _, v := range verbs() {
		p.item("diskimg-"+v.name+"(1)", v.summary)
	}
	p.section("Formats")
	p.text(strings.Join(formatNames(), " "))
	p.section("Sizes")
	p.text("They are in bytes or end in k, M, G, T, P or E, each 1024 times the one before.")
	return p.String()
}
