package cli

import (
	"os"
	"syscall"
)

// progressSignals ask a running job how far it has come.
var progressSignals = []os.Signal{syscall.SIGUSR1}
