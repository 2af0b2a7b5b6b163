// Package blkdebug makes a file fail where one wants it to: rules say at which
// event, for which kind of request and with which error. Requests can be stopped
// at events too, and told to go on. It does what QEMU's driver of that name does
// (QEMU documentation, "Block I/O error injection using blkdebug").
package blkdebug

import (
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// Kind is a kind of request.
type Kind uint8

// The kinds. A rule names those it is for as a sum.
const (
	Read Kind = 1 << iota
	Write
	WriteZeroes
	Discard
	Flush
	BlockStatus // to look where there is data

	anyKind = Read | Write | WriteZeroes | Discard | Flush
)

// Error is a rule by which requests fail: those after its event, until the
// event of another such rule comes past.
type Error struct {
	Event  block.Event   // EventNone: from the beginning
	State  int           // the rule holds in this state only; 0: in any
	Errno  syscall.Errno // 0: EIO
	Kinds  Kind          // 0: all but BlockStatus
	Once   bool          // the first request that fails is the last
	Sector *int64        // the request must touch these 512 bytes; nil: any
}

// touches reports whether the rule is for a request of n bytes at off.
func (e *Error) touches(k Kind, off, n int64) bool {
	if e.Sector == nil {
		return true
	}
	return k != Flush && *e.Sector*sectorSize < off+n && off < (*e.Sector+1)*sectorSize
}

const sectorSize = 512

// Step is a rule by which the state changes at an event.
type Step struct {
	Event block.Event
	State int // only from this state; 0: from any
	Next  int
}

// Rules are what is to happen to the files that are wrapped by them. They may
// be used by many goroutines at once.
type Rules struct {
	// Say, if not nil, is told of requests that are stopped and go on. It must
	// not call back. Set it before the rules are used.
	Say func(text string)
	// Limits of the files. Set them before the rules are used.
	Limits Limits

	mu      sync.Mutex
	errors  []*Error
	steps   []Step
	state   int
	active  []*Error
	breaks  []breakpoint
	stopped []*stop
	changed sync.Cond
}

type breakpoint struct {
	event block.Event
	tag   string
}

// stop is a request that waits to be told to go on.
type stop struct {
	tag  string
	goOn chan struct{}
}

// New returns rules. The state is 1 at first.
func New(errors []Error, steps []Step) *Rules {
	r := &Rules{state: 1, steps: steps}
	r.changed.L = &r.mu
	for _, e := range errors {
		if e.Kinds == 0 {
			e.Kinds = anyKind
		}
		if e.Errno == 0 {
			e.Errno = syscall.EIO
		}
		r.errors = append(r.errors, &e)
		if e.Event == block.EventNone {
			r.active = append(r.active, &e)
		}
	}
	return r
}

// event applies the rules of an event and stops the request if it is to be.
func (r *Rules) event(e block.Event) {
	r.mu.Lock()
	var now []*Error
	for _, rule := range r.errors {
		if rule.Event == e && (rule.State == 0 || rule.State == r.state) {
			now = append(now, rule)
		}
	}
	if now != nil {
		r.active = now
	}
	state := r.state
	for _, s := range r.steps {
		if s.Event == e && (s.State == 0 || s.State == state) {
			r.state = s.Next
		}
	}
	waiting := r.stopAt(e)
	r.mu.Unlock()
	for _, s := range waiting {
		<-s.goOn
	}
}

// stopAt makes a stop of each breakpoint at an event, which is gone then.
func (r *Rules) stopAt(e block.Event) (list []*stop) {
	r.breaks = slices.DeleteFunc(r.breaks, func(b breakpoint) bool {
		if b.event != e {
			return false
		}
		s := &stop{b.tag, make(chan struct{})}
		list = append(list, s)
		r.stopped = append(r.stopped, s)
		r.say("Suspended request '%s'", b.tag)
		return true
	})
	if list != nil {
		r.changed.Broadcast()
	}
	return list
}

func (r *Rules) say(format string, args ...any) {
	if r.Say != nil {
		r.Say("blkdebug: " + fmt.Sprintf(format, args...))
	}
}

// fail returns the error that a request is to end with, nil for none.
func (r *Rules) fail(k Kind, off, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range r.active {
		if e.Kinds&k == 0 || !e.touches(k, off, n) {
			continue
		}
		if e.Once {
			r.active = slices.Delete(slices.Clone(r.active), i, i+1)
			r.errors = slices.DeleteFunc(r.errors, func(o *Error) bool { return o == e })
		}
		return e.Errno
	}
	return nil
}

// Failing reports whether requests still end with an error.
func (r *Rules) Failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.active) > 0
}

// Break stops the next request that comes past an event, and calls it tag.
func (r *Rules) Break(event block.Event, tag string) error {
	if !event.Known() {
		return syscall.ENOENT
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaks = append(r.breaks, breakpoint{event, tag})
	return nil
}

// Resume has the request that was stopped first under a tag go on.
func (r *Rules) Resume(tag string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.stopped, func(s *stop) bool { return s.tag == tag })
	if i < 0 {
		return syscall.ENOENT
	}
	r.release(i)
	return nil
}

func (r *Rules) release(i int) {
	s := r.stopped[i]
	r.stopped = slices.Delete(r.stopped, i, i+1)
	r.say("Resuming request '%s'", s.tag)
	close(s.goOn)
}

// RemoveBreak forgets the breakpoints with a tag and has the requests go on
// that were stopped by one.
func (r *Rules) RemoveBreak(tag string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.breaks)
	r.breaks = slices.DeleteFunc(r.breaks, func(b breakpoint) bool { return b.tag == tag })
	for i := len(r.stopped) - 1; i >= 0; i-- {
		if r.stopped[i].tag == tag {
			r.release(i)
		}
	}
	if len(r.breaks) == before {
		return syscall.ENOENT
	}
	return nil
}

// Wait returns when a request with that tag is stopped, at once if one is, or
// when over does.
func (r *Rules) Wait(tag string, over func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !over() && !slices.ContainsFunc(r.stopped, func(s *stop) bool { return s.tag == tag }) {
		r.changed.Wait()
	}
}

// Wake has those that Wait look again.
func (r *Rules) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed.Broadcast()
}

// ReleaseAll forgets all breakpoints and has all requests go on.
func (r *Rules) ReleaseAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaks = nil
	for len(r.stopped) > 0 {
		r.release(0)
	}
}
