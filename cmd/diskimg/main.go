// Command diskimg makes, converts, checks and inspects disk images of virtual
// machines. Called as qemu-img it is a drop-in for that program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/diskimg/diskimg/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
