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
	// Whoever stops reading stdout or stderr does not end a job: writing then
	// fails with EPIPE, and the job is concluded first.
	signal.Ignore(syscall.SIGPIPE)
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
