//go:build unix

package cli

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const signalAbort = int(syscall.SIGABRT)

// signalWait is how long a signal may take to end this process, so that nothing
// comes after it.
const signalWait = 50 * time.Millisecond

// raiseSignal has this process get a signal as if nothing handled it. Signals
// that the runtime of Go turns into a trace of its own are sent by a shell that
// takes the place of this process.
func raiseSignal(n int) error {
	sig := syscall.Signal(n)
	switch sig {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGQUIT:
		return syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -" + strconv.Itoa(n) + " $$"}, os.Environ())
	}
	signal.Reset(sig)
	err := syscall.Kill(os.Getpid(), sig)
	time.Sleep(signalWait)
	return err
}
