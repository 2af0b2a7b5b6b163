//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package cli

import (
	"os"
	"syscall"
)

// progressSignals ask a running job how far it has come.
var progressSignals = []os.Signal{syscall.SIGUSR1, syscall.SIGINFO}
