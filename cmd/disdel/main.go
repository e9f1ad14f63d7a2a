// SPDX-License-Identifier: Apache-2.0

// Command disdel trains and evaluates neural networks on serverless platforms.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"disdel/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
