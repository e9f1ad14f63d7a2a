// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// process is one container: a child process in a group.
type process struct {
	cfg    Config
	pid    int
	group  group
	client *pool.ActionClient
	output *tail
	memory *memoryFiles
	limit  atomic.Int64 // in force, bytes

	// watching says that the limit is enforced by watch; overrun that it found
	// the process above it.
	watching bool
	overrun  atomic.Bool
	// tag is in the environment of the process and of what it starts.
	tag string

	mu      sync.Mutex // guards what follows, and the process against its reaping
	reaped  bool
	killing bool // by Kill or watch

	done   chan struct{} // closed when exit is known
	exit   pool.Exit
	remove func() // removes what the process left, once
}

var (
	_ pool.Container = (*process)(nil)
	_ pool.Pauser    = (*process)(nil)
)

// oomScore makes the kernel prefer a worker to anything else when the whole
// machine runs out of memory: its work can be done again.
const oomScore = "500"

// startIn starts a process in g, whose answers have at most payloadMax bytes.
func (d *Driver) startIn(g group, limit, payloadMax job.Bytes) (_ *process, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker socket")
	defer theirs.Close()
	oursFile := os.NewFile(uintptr(pair[0]), "worker socket")
	ours, err := net.FileConn(oursFile)
	_ = oursFile.Close() // FileConn has duplicated it
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	output, writers, err := newTail(d.cfg.LogLines)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("output pipes: %w", err), ours.Close())
	}
	defer writers[0].Close()
	defer writers[1].Close()

	tag := ownerText() + "-" + rand.Text()
	command, env := g.wrap(d.cfg.Command, append(slices.Clone(d.cfg.Env), fdVariable+"=3", ownerVariable+"="+tag))
	var pid int
	err = g.spawn(func(attr *syscall.SysProcAttr) error {
		// Descriptors that this process was given without close-on-exec are not
		// the worker's business.
		closeOnExec()
		// A session of its own: Ctrl-C in the terminal ends the controller, which
		// then decides what becomes of its workers.
		attr.Setsid = true
		attr.Pdeathsig = syscall.SIGKILL
		return withoutHugePages(func() (err error) {
			pid, err = syscall.ForkExec(command[0], command, &syscall.ProcAttr{
				Dir: d.cfg.Dir, Env: env, Sys: attr,
				Files: []uintptr{d.null.Fd(), writers[0].Fd(), writers[1].Fd(), theirs.Fd()},
			})
			return err
		})
	})
	if pid == 0 {
		return nil, errors.Join(fmt.Errorf("execute %s: %w", command[0], err), ours.Close(), output.close())
	}

	c := &process{
		cfg: d.cfg, pid: pid, group: g, output: output, done: make(chan struct{}),
		watching: d.limiter.name() == Watched, tag: tag,
	}
	c.limit.Store(int64(limit))
	connection := make(chan net.Conn, 1)
	connection <- ours
	c.client = pool.NewActionClient(func(context.Context) (net.Conn, error) {
		select {
		case conn := <-connection:
			return conn, nil
		default:
			return nil, errors.New("the worker's connection has ended")
		}
	}, payloadMax)
	c.memory = openMemoryFiles(pid)
	c.remove = sync.OnceFunc(func() {
		c.client.Close()
		_ = ours.Close()
		_ = c.output.close()
		c.memory.close()
		// A group that is still busy after all attempts is swept by the next Open.
		_ = c.group.remove()
	})
	go c.wait()
	if err == nil {
		err = g.adopt(pid)
	}
	if err != nil {
		c.Kill()
		return nil, err
	}
	// Best effort: without it the kernel just chooses by size.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(oomScore), 0)
	if c.watching {
		go c.watch()
	}
	return c, nil
}

// Init implements pool.Container.
func (c *process) Init(ctx context.Context, req pool.InitRequest) error {
	c.output.mark()
	err := c.client.Init(ctx, req)
	if err != nil && !errors.Is(err, pool.ErrAnswered) {
		c.awaitExit(ctx)
	}
	return err
}

// Run implements pool.Container.
func (c *process) Run(ctx context.Context, req pool.RunRequest) (pool.Answer, error) {
	if !req.Fresh {
		c.output.mark()
		c.memory.resetPeak()
	}
	answer, err := c.client.Run(ctx, req)
	if err != nil {
		c.awaitExit(ctx)
		return pool.Answer{}, err
	}
	answer.Peak, answer.Cache = c.usage()
	answer.Logs, answer.Sentinels = c.output.take()
	if c.watching && answer.Peak > job.Bytes(c.limit.Load()) {
		// It was above its limit between two samples. Without this the outcome
		// would depend on when the samples were taken.
		c.overrun.Store(true)
		return pool.Answer{}, errors.New("worker exceeded its memory limit")
	}
	return answer, nil
}

// awaitExit gives a worker whose connection broke the time to become a zombie,
// so that Kill finds how it ended rather than ends it. Closing the sockets is
// one of the first things that a dying process does.
func (c *process) awaitExit(ctx context.Context) {
	timer := time.NewTimer(exitGrace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

const exitGrace = time.Second

// Grow implements pool.Container.
func (c *process) Grow(_ context.Context, limit job.Bytes) (job.Bytes, error) {
	inForce, err := c.group.grow(limit)
	if err != nil {
		return job.Bytes(c.limit.Load()), err
	}
	c.limit.Store(int64(inForce))
	return inForce, nil
}

// Pause implements pool.Pauser.
func (c *process) Pause() error { return c.signal(syscall.SIGSTOP) }

// Resume implements pool.Pauser.
func (c *process) Resume() error { return c.signal(syscall.SIGCONT) }

// signal sends to the process and all in its process group.
func (c *process) signal(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	return syscall.Kill(-c.pid, sig)
}

// Done implements pool.Container.
func (c *process) Done() <-chan struct{} { return c.done }

// Kill implements pool.Container.
func (c *process) Kill() pool.Exit {
	peak, cache := c.usage()
	c.kill()
	<-c.done
	c.remove()
	exit := c.exit
	exit.Peak, exit.Cache = peak, cache
	return exit
}

// kill ends the process unless it has ended by itself already.
func (c *process) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return
	}
	c.killing = true
	// It can be gone already, but its number cannot be somebody else's yet.
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	_ = syscall.Kill(c.pid, syscall.SIGKILL) // before its setsid it is no group
}

// wait waits for the process's end, ends what it started, and reaps it.
func (c *process) wait() {
	var info unix.Siginfo
	for unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.mu.Lock()
	// While the process is a zombie its number, also as a process group, is ours.
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	c.group.killAll()
	if c.watching {
		// Without a group this is how to find what left the process group too.
		sweepProcesses(c.pid, func(tag string) bool { return tag == c.tag })
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(c.pid, &status, 0, nil); err != syscall.EINTR {
			break
		}
	}
	c.reaped = true
	killing := c.killing
	c.mu.Unlock()

	c.exit.Logs, _ = c.output.take()
	killed, own := c.group.verdict()
	c.exit.OutOfMemory = own || c.overrun.Load()
	switch {
	case killed && !own:
		c.exit.Status = "a kill by the kernel: the machine, or a group around the container, is out of memory"
	case status.Signaled() && !(killing && status.Signal() == syscall.SIGKILL):
		c.exit.Status = "signal: " + status.Signal().String()
	case status.Exited():
		c.exit.Status = fmt.Sprintf("exit status %d", status.ExitStatus())
	}
	close(c.done)
}

// usage measures the process while it lives.
func (c *process) usage() (peak, cache job.Bytes) {
	peak = c.memory.peak()
	if peak == 0 {
		return 0, 0
	}
	kernel, cache := c.group.usage()
	if _, v1 := c.group.(*v1Group); v1 {
		// It does not tell what it remembers of files that were once opened or
		// made, and would forget, from what the process needs.
		kernel = min(kernel, c.memory.kernel())
	}
	return peak + kernel, cache
}

// watch enforces the limit where the kernel does not.
func (c *process) watch() {
	ticker := time.NewTicker(c.cfg.WatchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
			if c.memory.resident() > job.Bytes(c.limit.Load()) {
				c.overrun.Store(true)
				c.kill()
				return
			}
		}
	}
}
