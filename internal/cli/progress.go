package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/diskimg/diskimg/internal/size"
	"golang.org/x/term"
)

// This file shows how far a job has come: with -p as qemu-img does it, or as a
// bar where that is for a person's eyes; without it one line for each SIGUSR1
// (or SIGINFO, which ctrl-T sends on the BSDs). The percentages of qemu-img
// share their line with what is printed while the job runs; a bar has its own.

// progress follows one job. Its methods may be called concurrently.
type progress struct {
	draw func(p *progress, final bool) // nil: show nothing unless asked
	bar  bool
	// steps says that the work is not counted in bytes.
	steps bool
	// width of the terminal in characters
	width func() int
	out   io.Writer
	errs  io.Writer
	flush func()

	mu          sync.Mutex
	done, total int64
	start, last time.Time
	shown       float64 // the percentage that was drawn last
	signals     chan os.Signal
}

// progress gets ready to follow a job; end must be called.
func (sh *shell) progress(wanted bool) *progress {
	p := &progress{out: sh.out, errs: sh.err, flush: sh.flush, start: time.Now(), shown: -1, signals: make(chan os.Signal, 1)}
	switch {
	case wanted && sh.terminal != nil && !sh.emulate:
		p.draw, p.bar, p.width = (*progress).drawBar, true, terminalWidth(sh.terminal)
	case wanted:
		p.draw = (*progress).drawPercent
	}
	if len(progressSignals) > 0 {
		signal.Notify(p.signals, progressSignals...)
	}
	go p.answerSignals()
	return p
}

// ownProgress is -p of verbs for which qemu-img has none.
func ownProgress(wanted *bool) option {
	return option{short: 'p', own: true, help: "show progress", set: on(wanted)}
}

// follow runs a job and shows how far it is, if that is wanted.
func (sh *shell) follow(wanted bool, job func(update func(done, total int64)) error) error {
	p := sh.progress(wanted)
	p.steps = true
	defer p.end()
	err := job(p.update)
	p.finish(err)
	return err
}

// begin shows that nothing has been done yet.
func (p *progress) begin() {
	if !p.bar {
		p.update(0, 1)
	}
}

func (p *progress) answerSignals() {
	for range p.signals {
		p.mu.Lock()
		fmt.Fprintf(p.errs, "    (%.2f/100%%)\n", p.percent())
		p.mu.Unlock()
	}
}

// update tells how much of the work is done, in any unit.
func (p *progress) update(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
	if p.draw != nil {
		p.draw(p, false)
	}
}

// finish shows that the job has ended; as complete if it succeeded.
func (p *progress) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draw == nil {
		return
	}
	if err == nil {
		p.total = max(p.total, 1)
		p.done = p.total
	}
	p.draw(p, true)
}

// end stops following.
func (p *progress) end() {
	signal.Stop(p.signals)
	close(p.signals)
	if p.draw != nil && !p.bar {
		fmt.Fprintln(p.out)
	}
}

func (p *progress) percent() float64 {
	return 100 * float64(p.done) / float64(cmp.Or(p.total, 1))
}

// drawPercent prints the percentage whenever it has grown by one.
func (p *progress) drawPercent(final bool) {
	percent := p.percent()
	if percent < p.shown+1 && !(final && percent == 100) && p.shown >= 0 {
		return
	}
	p.shown = percent
	fmt.Fprintf(p.out, "    (%.2f/100%%)\r", percent)
	p.flush()
}

// drawBar draws a bar with rate and time left, ten times a second at most.
func (p *progress) drawBar(final bool) {
	now := time.Now()
	if !final && now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last = now
	elapsed := now.Sub(p.start)
	rate := float64(p.done) / max(elapsed.Seconds(), 1e-3)
	amounts := ""
	if !p.steps {
		amounts = fmt.Sprintf("%s of %s  %s/s  ", size.Format(p.done), size.Format(p.total), size.Format(int64(rate)))
	}
	text := fmt.Sprintf(" %5.1f%%  %s%s", p.percent(), amounts, p.clock(elapsed, rate, final))
	end := ""
	if final {
		end = "\n"
	}
	fmt.Fprint(p.out, "\r"+bar(p.width()-len(text)-1, p.percent())+text+"\x1b[K"+end)
}

// clock tells the time left, or at the end the time taken.
func (p *progress) clock(elapsed time.Duration, rate float64, final bool) string {
	switch {
	case final:
		return "in " + elapsed.Round(100*time.Millisecond).String()
	case p.done == 0:
		return ""
	}
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
	return left.Round(time.Second).String() + " left"
}

func terminalWidth(f *os.File) func() int {
	return func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80
		}
		return columns
	}
}

func bar(width int, percent float64) string {
	width = min(width-2, 40)
	if width < 5 {
		return ""
	}
	full := int(float64(width) * percent / 100)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
