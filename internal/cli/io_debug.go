package cli

// This file is the commands of qemu-io that stop requests at events.

func ioDebugWords() []ioWord {
	return []ioWord{
		{name: "break", args: "event tag", summary: "sets a breakpoint on event and tags the stopped request as tag", min: 2, max: 2, file: true, run: (*ioSession).breakAt},
		{name: "remove_break", args: "tag", summary: "remove a breakpoint by tag", min: 1, max: 1, file: true, run: (*ioSession).removeBreak},
		{name: "resume", args: "tag", summary: "resumes the request tagged as tag", min: 1, max: 1, file: true, run: (*ioSession).resume},
		{name: "wait_break", args: "tag", summary: "waits for the suspension of a request", min: 1, max: 1, file: true, run: (*ioSession).waitBreak},
	}
}

func (s *ioSession) breakAt([]string) error {
	return saysf("Could not set breakpoint: Operation not supported")
}

func (s *ioSession) removeBreak(words []string) error {
	return saysf("Could not remove breakpoint %s: Operation not supported", words[1])
}

func (s *ioSession) resume([]string) error {
	return saysf("Could not resume request: Operation not supported")
}

func (s *ioSession) waitBreak(words []string) error {
	return saysf("Could not wait for breakpoint %s: Operation not supported", words[1])
}
