// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"

	"disdel/internal/platform/pool"
)

// Driver starts containers as child processes.
type Driver struct{}

var _ pool.Driver = (*Driver)(nil)

// Open finds out how memory limits can be enforced here, by trying, and sweeps
// what killed owners left. The caller, or the pool that takes the driver over,
// must Close it.
func Open(ctx context.Context, cfg Config) (*Driver, error) { return nil, errors.New("not built yet") }

func (d *Driver) Facts() pool.Facts { return pool.Facts{} }
func (d *Driver) Start(ctx context.Context, s pool.Spec) (pool.Container, error) {
	return nil, errors.New("not built yet")
}
func (d *Driver) Close() error { return nil }
