//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// sample is what one run took, or the best of several.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // at its peak, bytes
	output    int64 // bytes that the output takes up on disk
}

// measure runs both programs in turns. The first run of a pair is now the one's
// and now the other's.
func (b *bench) measure(r row) (theirs, ours sample, err error) {
	if err := warm(b.sources[r.source]); err != nil {
		return theirs, ours, err
	}
	for i := range b.runs * r.repeat {
		turns := []func() error{
			func() error { return b.turn(r, b.theirs, &theirs) },
			func() error { return b.turn(r, b.ours, &ours) },
		}
		for j := range turns {
			if err := turns[(i+j)%2](); err != nil {
				return theirs, ours, err
			}
		}
	}
	return theirs, ours, b.verify(r)
}

// turn runs one program once and keeps the best in best.
func (b *bench) turn(r row, program string, best *sample) error {
	if err := b.settle(r); err != nil {
		return err
	}
	s, err := run(program, b.args(r))
	if err != nil {
		return err
	}
	if r.output {
		s.output = allocated(b.output)
	}
	if best.wall == 0 {
		*best = s
	}
	best.wall, best.cpu = min(best.wall, s.wall), min(best.cpu, s.cpu)
	best.rss, best.output = max(best.rss, s.rss), max(best.output, s.output)
	return nil
}

// settle sees to it that a turn finds what the one before it has found: no
// writeback of what others have left, and memory for the output that has been
// in use just now. A virtual machine may have given back what was free for some
// time, and would wait for its host at each page of it.
func (b *bench) settle(r row) error {
	if err := os.RemoveAll(b.output); err != nil || !r.output {
		return err
	}
	f, err := os.Create(b.output)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, constant('x'), allocated(b.sources["raw"]))
	err = errors.Join(err, f.Close(), os.Remove(b.output))
	syscall.Sync()
	return err
}

// constant reads as one byte for ever.
type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func (b *bench) args(r row) []string {
	args := append(strings.Fields(r.args), b.sources[r.source])
	if r.output {
		args = append(args, b.output)
	}
	return args
}

// run runs a program and asks the kernel what it took. The kernel counts the
// memory of this process as the child's until the child has become another
// program: this one stays small.
func run(program string, args []string) (sample, error) {
	cmd := exec.Command(program, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return sample{}, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, complaint.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return sample{}, fmt.Errorf("this system does not tell what memory %s took", program)
	}
	return sample{
		wall: wall,
		cpu:  cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		rss:  usage.Maxrss << 10,
	}, nil
}

// verify has diskimg convert once more and qemu-img compare the result with
// the source: what is measured must be right.
func (b *bench) verify(r row) error {
	if !r.output {
		return nil
	}
	if _, err := run(b.ours, b.args(r)); err != nil {
		return err
	}
	_, err := run(b.theirs, []string{"compare", b.sources[r.source], b.output})
	return err
}

// warm brings a file into the page cache.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// allocated returns how many bytes a file takes up on disk, 0 if that can't be
// told.
func allocated(path string) int64 {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}
