// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"disdel/internal/platform/pool"
)

// Driver starts containers as child processes. All methods may be called from
// any goroutine.
type Driver struct {
	cfg     Config
	limiter limiter
	spawner *spawner
	null    *os.File
}

var _ pool.Driver = (*Driver)(nil)

// Open finds out how memory limits can be enforced here, by trying, and sweeps
// what killed owners left. The caller, or the pool that takes the driver over,
// must Close it.
func Open(ctx context.Context, cfg Config) (*Driver, error) {
	d, err := open(ctx, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open process driver: %w", err)
	}
	return d, nil
}

func open(ctx context.Context, cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := checkCommand(cfg); err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, spawner: newSpawner(), null: null}
	d.limiter, err = chooseLimiter(ctx, cfg, d.spawner)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	sweepProcesses(0, ownerDead)
	return d, nil
}

// checkCommand finds a wrong path now rather than at the first call.
func checkCommand(cfg Config) error {
	path := cfg.Command[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(cfg.Dir, path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("worker program %s: %w: check the path and that it may be executed", path, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("worker program %s is a directory", path)
	}
	return nil
}

// Facts implements pool.Driver.
func (d *Driver) Facts() pool.Facts {
	return pool.Facts{
		Name: "process", Enforcement: d.limiter.name(), LocalFiles: true,
		Processors: runtime.NumCPU(), // of the affinity mask, which children inherit
	}
}

// Start implements pool.Driver.
func (d *Driver) Start(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g, err := d.limiter.newGroup(spec.Memory)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", spec.ID, err)
	}
	c, err := d.startIn(g, spec.Memory, spec.PayloadMax)
	if err != nil {
		g.killAll()
		return nil, fmt.Errorf("start container %s: %w", spec.ID, errors.Join(err, g.remove()))
	}
	return c, nil
}

// Close implements pool.Driver.
func (d *Driver) Close() error {
	var err error
	if d.limiter != nil {
		err = d.limiter.close()
	}
	d.spawner.close()
	if err = errors.Join(err, d.null.Close()); err != nil {
		return fmt.Errorf("close process driver: %w", err)
	}
	return nil
}
