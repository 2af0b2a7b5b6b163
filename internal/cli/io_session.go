package cli

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/diskimg/diskimg"
)

// This file is what the commands of qemu-io share: the open image, requests
// that are under way, and how a command is found, checked and run.

// ioSession is a run of qemu-io. Commands run one at a time.
type ioSession struct {
	objects *objects // that are defined

	sh      *shell
	out     *bufio.Writer // all output; what the C library would hold back is
	img     *diskimg.Image
	opened  ioOpening // how img was
	failed  bool      // some command has
	damaged bool      // img is, and that has been told
	gone    bool      // img has been marked as corrupt: QEMU takes it away
	quit    bool

	done    chan finished // requests that are over, whose result is to be printed
	heard   ioHeard
	pending int        // requests whose result has not been printed
	writes  []*ioRange // the writes among them
}

func newIOSession(sh *shell) *ioSession {
	s := &ioSession{sh: sh, out: bufio.NewWriterSize(sh.out, stdioBuffer), done: make(chan finished), heard: ioHeard{some: make(chan struct{}, 1)}}
	sh.out = s.out
	return s
}

func (s *ioSession) over() bool { return s.quit || s.sh.ctx.Err() != nil }

// end waits for what is under way and closes the image.
func (s *ioSession) end() {
	if s.img != nil {
		s.tell(nil, s.close())
	}
}

// ioWord is one command of qemu-io.
type ioWord struct {
	name, alias string
	args        string // as help shows them
	summary     string
	about       string // more about it, for help with its name
	min, max    int    // how many arguments; a max of -1 is any number
	file        bool   // it needs an open image
	write       bool   // it needs one that can be written
	run         func(s *ioSession, args []string) error
}

// What the error of a command asks to be printed besides other errors, which
// are messages of the program.
var (
	errIOUsage = errors.New("usage") // the line of help
	errIOSaid  = errors.New("said")  // nothing more
)

// ioSays is an error that is printed as it is, to standard output.
type ioSays string

func (e ioSays) Error() string { return string(e) }

func saysf(format string, args ...any) error { return ioSays(fmt.Sprintf(format, args...)) }

// ioComplains is an error that is printed as it is, to standard error.
type ioComplains string

func (e ioComplains) Error() string { return string(e) }

// command runs a line.
func (s *ioSession) command(line string) {
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
	if len(words) == 0 {
		return
	}
	w := findIOWord(words[0])
	if w == nil {
		s.tell(nil, ioComplains(fmt.Sprintf("command %q not found", words[0])))
		return
	}
	err := s.check(w, len(words)-1)
	if err == nil {
		err = w.run(s, words)
	}
	s.tell(w, err)
}

func findIOWord(name string) *ioWord {
	list := ioWords()
	if i := slices.IndexFunc(list, func(w ioWord) bool { return w.name == name || w.alias == name }); i >= 0 {
		w := &list[i]
		w.name = name
		return w
	}
	return nil
}

// check finds reasons why a command can't run.
func (s *ioSession) check(w *ioWord, args int) error {
	expected := fmt.Sprintf("between %d and %d", w.min, w.max)
	switch {
	case w.max < 0:
		expected = fmt.Sprintf("at least %d", w.min)
	case w.min == w.max:
		expected = fmt.Sprint(w.min)
	}
	switch {
	case w.file && s.img == nil:
		return ioComplains("no file open, try 'help open'")
	case args < w.min || w.max >= 0 && args > w.max:
		return ioComplains(fmt.Sprintf("bad argument count %d to %s, expected %s arguments", args, w.name, expected))
	case w.write && !s.img.Writable():
		return failf("Block node is read-only")
	}
	return nil
}

// tell prints the error of a command, and remembers that there was one.
func (s *ioSession) tell(w *ioWord, err error) {
	if err == nil {
		return
	}
	s.failed = true
	var says ioSays
	var complains ioComplains
	var bad *badOption
	switch {
	case errors.Is(err, errIOSaid):
	case errors.Is(err, errIOUsage):
		fmt.Fprintln(s.out, w.usage())
	case errors.As(err, &bad):
		if bad.flag == 0 {
			bad.flag = '-' // commands have no long options
		}
		fmt.Fprintf(s.sh.err, "%s: %s\n", w.name, bad.asGetopt())
		fmt.Fprintln(s.out, findIOWord(w.name).usageByName())
	case errors.As(err, &says):
		fmt.Fprintln(s.out, says)
	case errors.As(err, &complains):
		fmt.Fprintln(s.sh.err, complains)
	default:
		s.sh.complain("%s", s.sh.words(err))
	}
}

// flags reads the options of a command; letters are those that it has, with a
// colon after one that takes an argument. It returns what is no option.
func ioFlags(words []string, letters string, set func(flag byte, value string) error) ([]string, error) {
	var list []option
	for i := range len(letters) {
		flag := letters[i]
		if flag == ':' {
			continue
		}
		o := option{short: flag, set: func(value string) error { return set(flag, value) }}
		if strings.HasPrefix(letters[i+1:], ":") {
			o.arg = "VALUE"
		}
		list = append(list, o)
	}
	return getopt(list, words[1:], false)
}

// ioRange is a range of the disk that a request writes.
type ioRange struct {
	start, end int64
	over       chan struct{} // closed when it is
}

// finished is a request that is over.
type finished struct {
	print func() // what it comes to
	at    *ioRange
}

// startWait is how long a request may take before the next begins: requests
// that take no time keep their order and with it the order in which space is
// allocated.
const startWait = 5 * time.Millisecond

// launch runs a request while the commands go on. Its result is printed when
// somebody looks: by the next command that waits for anything, before the next
// line that is typed, or at the end. A request that writes what one before it
// still writes waits for that.
func (s *ioSession) launch(off, n int64, write bool, do func() error, print func(took time.Duration, err error)) {
	r := &ioRange{start: off, end: off + n, over: make(chan struct{})}
	var before []*ioRange
	if write {
		before = slices.DeleteFunc(slices.Clone(s.writes), func(o *ioRange) bool { return o.end <= r.start || r.end <= o.start })
		s.writes = append(s.writes, r)
	}
	s.pending++
	begin := time.Now()
	go func() {
		for _, o := range before {
			<-o.over
		}
		err := do()
		took := time.Since(begin)
		close(r.over)
		s.done <- finished{func() { print(took, err) }, r}
	}()
	select {
	case <-r.over:
	case <-s.heard.some: // it has been stopped
		s.hear()
	case <-time.After(startWait):
	}
}

// collect prints the results that there are.
func (s *ioSession) collect() {
	s.hear()
	for s.pending > 0 {
		select {
		case f := <-s.done:
			s.finish(f)
		default:
			return
		}
	}
}

// settle waits for all that is under way and prints what it comes to.
func (s *ioSession) settle() {
	s.hear()
	for s.pending > 0 {
		select {
		case f := <-s.done:
			s.finish(f)
		case <-s.heard.some:
			s.hear()
		}
	}
}

func (s *ioSession) finish(f finished) {
	s.pending--
	s.writes = slices.DeleteFunc(s.writes, func(r *ioRange) bool { return r == f.at })
	f.print()
}

// wait lets time pass, and prints the results that come meanwhile.
func (s *ioSession) wait(d time.Duration) {
	for end := time.After(d); ; {
		select {
		case f := <-s.done:
			s.finish(f)
		case <-s.heard.some:
			s.hear()
		case <-end:
			return
		case <-s.sh.ctx.Done():
			return
		}
	}
}
