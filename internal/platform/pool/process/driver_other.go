// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"disdel/internal/platform/pool"
)

// Driver exists so that the package compiles everywhere; it cannot be opened.
type Driver struct{}

var _ pool.Driver = (*Driver)(nil)

var errSystem = fmt.Errorf("containers as child processes need Linux, this is %s: use a container engine or another platform: %w",
	runtime.GOOS, errors.ErrUnsupported)

// Open always fails on this operating system.
func Open(context.Context, Config) (*Driver, error) {
	return nil, fmt.Errorf("open process driver: %w", errSystem)
}

// Facts names the driver.
func (*Driver) Facts() pool.Facts { return pool.Facts{Name: "process", Processors: runtime.NumCPU()} }

// Start always fails on this operating system.
func (*Driver) Start(context.Context, pool.Spec) (pool.Container, error) {
	return nil, fmt.Errorf("start process: %w", errSystem)
}

// Close does nothing.
func (*Driver) Close() error { return nil }
