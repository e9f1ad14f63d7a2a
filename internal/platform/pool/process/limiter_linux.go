// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"disdel/internal/job"
)

// limiter is one way to hold processes to memory limits.
type limiter interface {
	name() string
	// newGroup makes a group with a limit that holds for whatever is put in.
	newGroup(limit job.Bytes) (group, error)
	// close removes what the limiter made for itself, after all groups.
	close() error
}

// group is the limit of one container.
type group interface {
	// spawn runs fork, on the spawner's thread, such that the child is in the
	// group from its first page on.
	spawn(fork func(attr *syscall.SysProcAttr) error) error
	// wrap returns what to execute in place of a worker's command, and the
	// environment for that.
	wrap(command, env []string) ([]string, []string)
	// adopt is called once with the child's number.
	adopt(pid int) error
	// grow raises the limit and returns the limit that is in force.
	grow(limit job.Bytes) (job.Bytes, error)
	// usage returns the group's kernel memory and its reclaimable page cache,
	// 0 where unknown.
	usage() (kernel, cache job.Bytes)
	// verdict says whether the kernel killed something in the group for want of
	// memory, and whether that was for the group's own limit.
	verdict() (killed, own bool)
	// killAll kills everything in the group, also what is no child.
	killAll()
	// remove removes the group, once nothing runs in it. Idempotent.
	remove() error
}

// chooseLimiter returns the limiter that was asked for, or else the first that
// works here.
func chooseLimiter(ctx context.Context, cfg Config, s *spawner) (limiter, error) {
	openers := map[string]func() (limiter, error){
		CgroupV2:     func() (limiter, error) { return openV2(s) },
		CgroupV1:     func() (limiter, error) { return openV1(s) },
		SystemdScope: func() (limiter, error) { return openScope(ctx, s) },
		Watched:      func() (limiter, error) { return watched{s}, nil },
	}
	if cfg.Enforcement != "" {
		l, err := openers[cfg.Enforcement]()
		if err != nil {
			return nil, fmt.Errorf("memory limits by %s cannot be had here: %w", cfg.Enforcement, err)
		}
		return l, nil
	}
	var errs []error
	for _, name := range enforcements {
		l, err := openers[name]()
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return nil, fmt.Errorf("no way to limit memory: %w", errors.Join(errs...))
}

// watched makes groups without the kernel's help: the container samples its
// process's resident memory, see process.watch.
type watched struct{ spawner *spawner }

func (watched) name() string { return Watched }

func (w watched) newGroup(job.Bytes) (group, error) {
	return &watchedGroup{spawner: w.spawner}, nil
}

func (watched) close() error { return nil }

type watchedGroup struct{ spawner *spawner }

func (g *watchedGroup) spawn(fork func(*syscall.SysProcAttr) error) error {
	return g.spawner.do(func() error { return fork(&syscall.SysProcAttr{}) })
}

func (g *watchedGroup) wrap(command, env []string) ([]string, []string) { return command, env }
func (g *watchedGroup) adopt(int) error                                 { return nil }
func (g *watchedGroup) grow(limit job.Bytes) (job.Bytes, error)         { return limit, nil }
func (g *watchedGroup) usage() (kernel, cache job.Bytes)                { return 0, 0 }
func (g *watchedGroup) verdict() (killed, own bool)                     { return false, false }
func (g *watchedGroup) killAll()                                        {}
func (g *watchedGroup) remove() error                                   { return nil }
