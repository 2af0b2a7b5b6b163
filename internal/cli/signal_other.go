//go:build !linux && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly

package cli

import "os"

// progressSignals is empty: nothing here can ask.
var progressSignals []os.Signal
