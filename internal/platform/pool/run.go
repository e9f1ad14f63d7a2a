// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Pool is a serverless platform on this machine.
type Pool struct{}

var (
	_ platform.Platform  = (*Pool)(nil)
	_ platform.LogReader = (*Pool)(nil)
	_ platform.Grower    = (*Pool)(nil)
	_ platform.Prewarmer = (*Pool)(nil)
)

var errNotYet = errors.New("not built yet")

// Open starts a pool whose containers are made by driver, and takes the driver
// over, also when it fails. The caller must Close the pool.
func Open(ctx context.Context, cfg Config, driver Driver) (*Pool, error) { return nil, errNotYet }

// Close ends all calls with the outcome Cancelled, kills all containers, waits
// until they are gone and closes the driver. Idempotent.
func (p *Pool) Close() error { return errNotYet }

func (p *Pool) Name() string { return "" }
func (p *Pool) Limits(ctx context.Context) (platform.Limits, error) {
	return platform.Limits{}, errNotYet
}
func (p *Pool) Deploy(ctx context.Context, pkg platform.Package) error { return errNotYet }
func (p *Pool) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	return "", errNotYet
}
func (p *Pool) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	return platform.Outcome{}, errNotYet
}
func (p *Pool) Cancel(ctx context.Context, id platform.Activation) error { return errNotYet }
func (p *Pool) Remove(ctx context.Context, pkg string) error             { return errNotYet }
func (p *Pool) Logs(ctx context.Context, id platform.Activation) ([]string, error) {
	return nil, errNotYet
}
func (p *Pool) Grow(ctx context.Context, id platform.Activation, limit job.Bytes) (job.Bytes, error) {
	return 0, errNotYet
}
func (p *Pool) Prewarm(ctx context.Context, pkg, action string, count int) error { return errNotYet }
