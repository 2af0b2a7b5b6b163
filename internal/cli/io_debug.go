package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
)

// This file is the commands of qemu-io that stop requests at events of an image
// that was opened through blkdebug.

func ioDebugWords() []ioWord {
	return []ioWord{
		{name: "break", args: "event tag", summary: "sets a breakpoint on event and tags the stopped request as tag", min: 2, max: 2, file: true, run: (*ioSession).breakAt},
		{name: "remove_break", args: "tag", summary: "remove a breakpoint by tag", min: 1, max: 1, file: true, run: (*ioSession).removeBreak},
		{name: "resume", args: "tag", summary: "resumes the request tagged as tag", min: 1, max: 1, file: true, run: (*ioSession).resume},
		{name: "wait_break", args: "tag", summary: "waits for the suspension of a request", min: 1, max: 1, file: true, run: (*ioSession).waitBreak},
	}
}

// faults returns the rules of the open image.
func (s *ioSession) faults() (*diskimg.Faults, error) {
	if s.opened.target.Faults == nil {
		return nil, block.ErrUnsupported
	}
	return s.opened.target.Faults, nil
}

func (s *ioSession) breakAt(words []string) error {
	r, err := s.faults()
	if err == nil {
		err = r.Break(block.Event(words[1]), words[2])
	}
	if err != nil {
		return saysf("Could not set breakpoint: %s", ioCause(err))
	}
	return nil
}

func (s *ioSession) removeBreak(words []string) error {
	r, err := s.faults()
	if err == nil {
		err = r.RemoveBreak(words[1])
	}
	s.hear()
	if err != nil {
		return saysf("Could not remove breakpoint %s: %s", words[1], ioCause(err))
	}
	return nil
}

func (s *ioSession) resume(words []string) error {
	r, err := s.faults()
	if err == nil {
		err = r.Resume(words[1])
	}
	s.hear()
	if err != nil {
		return saysf("Could not resume request: %s", ioCause(err))
	}
	time.Sleep(startWait) // what goes on may well be over by then
	return nil
}

// waitBreak waits until a request is stopped. Without blkdebug none ever is.
func (s *ioSession) waitBreak(words []string) error {
	r, err := s.faults()
	if err != nil {
		return saysf("Could not wait for breakpoint %s: %s", words[1], ioCause(err))
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.Wait(words[1], func() bool { return s.sh.ctx.Err() != nil })
	}()
	defer context.AfterFunc(s.sh.ctx, r.Wake)()
	for {
		select {
		case f := <-s.done:
			s.finish(f)
		case <-stopped:
			s.hear()
			return nil
		}
	}
}

// ioHeard is what rules had to say and what has not been printed yet.
type ioHeard struct {
	mu   sync.Mutex
	text []string
	some chan struct{} // has an element when there is some
}

func (h *ioHeard) say(text string) {
	h.mu.Lock()
	h.text = append(h.text, text)
	h.mu.Unlock()
	select {
	case h.some <- struct{}{}:
	default:
	}
}

// hear prints what rules had to say.
func (s *ioSession) hear() {
	s.heard.mu.Lock()
	defer s.heard.mu.Unlock()
	for _, text := range s.heard.text {
		fmt.Fprintln(s.out, text)
	}
	s.heard.text = nil
}
