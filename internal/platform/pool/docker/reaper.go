// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// A reaper is a process beside the one that has the driver. The engine does not
// end containers when that one is killed, and whoever is killed cannot. The two
// share a pipe; its end without a word means that the driver's process is gone,
// and the reaper removes what has its label.

const (
	// reapTimes is how often the reaper looks for containers, reapPause is how long
	// it waits in between: what the engine was asked to create may come late.
	reapTimes = 4
	reapPause = time.Second
	// farewell is what a driver says that has removed its containers itself.
	farewell = "."
	// reaperGrace bounds the end of a reaper that was told to end.
	reaperGrace = 5 * time.Second
)

// reaper is the process.
type reaper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startReaper starts command with the engine's address and the owner as its last
// two arguments; Reap is what it has to do.
func startReaper(command []string, host, owner string) (*reaper, error) {
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], host, owner)...) //nolint:gosec // It is this program itself.
	// Signals for the terminal's or the driver's group are not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = reaperGrace
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start reaper: %w", errors.Join(err, pipe.Close()))
	}
	return &reaper{cmd, pipe}, nil
}

// end lets a reaper go that has nothing to do.
func (r *reaper) end() {
	_, _ = io.WriteString(r.pipe, farewell) // one that is gone already needs no word
	_ = r.pipe.Close()                      // as above
	timer := time.AfterFunc(reaperGrace, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	_ = r.cmd.Wait() // how it ended changes nothing
}

// Reap waits until in ends. If that comes without a farewell, whoever held the
// other end is gone: the containers of the owner are removed.
func Reap(ctx context.Context, host, owner string, in io.Reader) error {
	said, err := io.ReadAll(io.LimitReader(in, int64(len(farewell))))
	if err != nil || len(said) > 0 {
		return err
	}
	api, err := connect(host)
	if err != nil {
		return err
	}
	d := &Driver{api: api}
	for look := range reapTimes {
		if look > 0 {
			timer := time.NewTimer(reapPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
		if ctx.Err() != nil {
			break
		}
		err = d.reap(ctx, owner)
	}
	return errors.Join(err, ctx.Err(), d.Close())
}

// reap removes the containers of an owner.
func (d *Driver) reap(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", ownerLabel+"="+owner))})
	if err != nil {
		return fmt.Errorf("list leftovers: %w", err)
	}
	for _, c := range list {
		if err := d.removeContainer(ctx, c.ID); err != nil {
			return fmt.Errorf("remove leftover %.12s: %w", c.ID, err)
		}
	}
	return nil
}
