//go:build !unix

package cli

import "os"

const signalAbort = 6

// raiseSignal ends the process, whatever the signal: there are no others here.
func raiseSignal(n int) error {
	os.Exit(128 + n)
	return nil
}
