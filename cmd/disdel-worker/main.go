// SPDX-License-Identifier: Apache-2.0

// Command disdel-worker is the program inside containers: it serves the action
// interface and does one task at a time. Platforms start it; people do not.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"disdel/internal/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := worker.Main(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
