// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// box is one container.
type box struct {
	driver *Driver
	id     string // the engine's
	limit  atomic.Int64
	client *pool.ActionClient
	memory *memory

	// address is where it serves; set before Start returns.
	address string

	output  output
	stream  io.Closer
	started bool

	mu      sync.Mutex
	killing bool

	// watched is what wait waits with; giveUp ends that.
	watched context.Context
	giveUp  context.CancelFunc

	done   chan struct{} // closed when exit is known
	exit   pool.Exit
	remove sync.Once
}

var (
	_ pool.Container = (*box)(nil)
	_ pool.Pauser    = (*box)(nil)
)

func newBox(d *Driver, id string, spec pool.Spec) *box {
	c := &box{driver: d, id: id, done: make(chan struct{}), memory: &memory{}}
	c.watched, c.giveUp = context.WithCancel(context.Background())
	c.limit.Store(int64(spec.Memory))
	c.output.tail = pool.NewTail(d.cfg.LogLines)
	c.output.changed = make(chan struct{})
	c.client = pool.NewActionClient(c.dial, spec.PayloadMax)
	return c
}

// run starts what was created, and finds out where it is.
func (c *box) run(ctx context.Context) error {
	stream, err := c.driver.api.ContainerAttach(ctx, c.id, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	c.stream = closer(stream.Close)
	go c.output.read(stream.Reader)
	if err := c.driver.api.ContainerStart(ctx, c.id, container.StartOptions{}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	c.started = true
	go c.wait()
	state, err := c.driver.api.ContainerInspect(ctx, c.id)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	var settings *network.EndpointSettings
	if state.NetworkSettings != nil {
		settings = state.NetworkSettings.Networks[c.driver.cfg.Network]
	}
	if settings == nil || settings.IPAddress == "" {
		return fmt.Errorf("it has no address in network %s: it has ended, %s", c.driver.cfg.Network, statusText(state.State.ExitCode))
	}
	c.address = net.JoinHostPort(settings.IPAddress, actionPort)
	if state.State != nil {
		c.memory.open(state.State.Pid, c.id)
	}
	return nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// retryPause is how long an address that refuses is left alone. OpenWhisk asks
// every 50 ms; the first answers of small workers come sooner.
const retryPause = 3 * time.Millisecond

// dial connects to the worker; one that is not up yet is waited for, until ctx
// is done.
func (c *box) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := retryPause; ; pause = min(2*pause, 50*time.Millisecond) {
		conn, err := dialer.DialContext(ctx, "tcp", c.address)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) {
			return nil, err
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-c.done:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Init implements pool.Container.
func (c *box) Init(ctx context.Context, req pool.InitRequest) error {
	defer c.client.Close() // OpenWhisk makes a new connection for each request
	c.output.mark()
	err := c.client.Init(ctx, req)
	if err != nil && !errors.Is(err, pool.ErrAnswered) {
		c.awaitExit(ctx)
	}
	return err
}

// Run implements pool.Container.
func (c *box) Run(ctx context.Context, req pool.RunRequest) (pool.Answer, error) {
	defer c.client.Close()
	if !req.Fresh {
		c.output.mark()
		c.memory.reset()
	}
	answer, err := c.client.Run(ctx, req)
	if err != nil {
		c.awaitExit(ctx)
		return pool.Answer{}, err
	}
	answer.Peak, answer.Cache = c.memory.read()
	answer.Logs, answer.Sentinels = c.output.take(ctx, req.Sentinels)
	return answer, nil
}

// awaitExit gives a container whose connection broke the time to end by itself,
// so that Kill finds how it ended rather than ends it.
func (c *box) awaitExit(ctx context.Context) {
	timer := time.NewTimer(exitGrace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

const exitGrace = 2 * time.Second

// Grow implements pool.Container.
func (c *box) Grow(ctx context.Context, limit job.Bytes) (job.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := c.driver.api.ContainerUpdate(ctx, c.id, container.UpdateConfig{Resources: container.Resources{
		Memory: int64(limit), MemorySwap: int64(limit), CPUShares: max(2, int64(limit/job.MB)),
	}})
	if err != nil {
		return job.Bytes(c.limit.Load()), fmt.Errorf("update container %.12s: %w", c.id, err)
	}
	c.limit.Store(int64(limit))
	return limit, nil
}

// Pause implements pool.Pauser.
func (c *box) Pause() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	return c.driver.api.ContainerPause(ctx, c.id)
}

// Resume implements pool.Pauser.
func (c *box) Resume() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	return c.driver.api.ContainerUnpause(ctx, c.id)
}

// Done implements pool.Container.
func (c *box) Done() <-chan struct{} { return c.done }

// Kill implements pool.Container.
func (c *box) Kill() pool.Exit {
	peak, cache := c.memory.read()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if c.started {
		c.mu.Lock()
		c.killing = true
		c.mu.Unlock()
		if c.driver.api.ContainerKill(ctx, c.id, "KILL") != nil {
			// It has ended already, or it is paused and this engine wants it awake.
			_ = c.driver.api.ContainerUnpause(ctx, c.id)
			_ = c.driver.api.ContainerKill(ctx, c.id, "KILL")
		}
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	c.remove.Do(func() {
		// What cannot be removed now is swept by the next Open.
		_ = c.driver.removeContainer(ctx, c.id)
		c.giveUp() // an engine that hangs is not waited for
		if !c.started {
			close(c.done)
		}
		<-c.done
		if c.stream != nil {
			_ = c.stream.Close()
		}
		c.client.Close()
		c.memory.close()
	})
	exit := c.exit
	exit.Peak, exit.Cache = peak, cache
	return exit
}

// wait waits for the container's end and finds out how it came.
func (c *box) wait() {
	defer close(c.done)
	ended, errs := c.driver.api.ContainerWait(c.watched, c.id, container.WaitConditionNotRunning)
	select {
	case <-ended:
	case err := <-errs:
		_ = err // the engine has gone, or the container with it: finalState sees
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	c.mu.Lock()
	killing := c.killing
	c.mu.Unlock()
	state := c.finalState(ctx, killing)
	c.exit.Logs, _ = c.output.take(ctx, false)
	if state == nil {
		c.exit.Status = "the engine lost it"
		return
	}
	c.exit.OutOfMemory = state.OOMKilled
	if !killing || state.ExitCode != killedCode {
		c.exit.Status = statusText(state.ExitCode)
	}
}

// killedCode is the exit code of what SIGKILL ended.
const killedCode = 128 + int(syscall.SIGKILL)

// finalState asks for the state of a container that has ended. The engine may
// learn of a kill for want of memory a little later than of the end.
func (c *box) finalState(ctx context.Context, killing bool) *container.State {
	var state *container.State
	for range oomTries {
		info, err := c.driver.api.ContainerInspect(ctx, c.id)
		if err != nil || info.State == nil {
			return state
		}
		state = info.State
		if state.OOMKilled || state.ExitCode != killedCode || killing {
			return state
		}
		timer := time.NewTimer(oomPause)
		<-timer.C
	}
	return state
}

const (
	oomTries = 10
	oomPause = 20 * time.Millisecond
)

func statusText(code int) string {
	if code > 128 && code < 128+65 {
		return "signal: " + syscall.Signal(code-128).String()
	}
	return fmt.Sprintf("exit status %d", code)
}

// output collects what a container prints.
type output struct {
	mu      sync.Mutex
	tail    *pool.Tail
	changed chan struct{} // closed and renewed when something came
	ended   bool
	// polite says that the worker has been seen to end its output.
	polite bool
}

// read takes the streams apart: frames of a stream's number, three zeros and a
// length, then so many bytes.
func (o *output) read(r io.Reader) {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ended = true
		close(o.changed)
	}()
	var header [8]byte
	buffer := make([]byte, 4<<10)
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return
		}
		for left := int64(binary.BigEndian.Uint32(header[4:])); left > 0; {
			n, err := r.Read(buffer[:min(left, int64(len(buffer)))])
			if n > 0 {
				o.add(header[0] == 2, buffer[:n])
			}
			if left -= int64(n); err != nil {
				return
			}
		}
	}
}

func (o *output) add(stderr bool, text []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.Add(stderr, text, time.Now())
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) mark() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.Mark()
}

// take returns what was printed since the mark. Output comes by another way than
// answers, so it is waited for: until both streams have their sentinel, which is
// certain to come when it is expected or has come before, or until nothing more
// has come for a while.
func (o *output) take(ctx context.Context, expected bool) ([]pool.Line, int) {
	overall := time.NewTimer(logTimeout)
	defer overall.Stop()
	quiet := time.NewTimer(logQuiet)
	defer quiet.Stop()
	for waiting := true; ; {
		o.mu.Lock()
		sentinels, changed := o.tail.Sentinels(), o.changed
		o.polite = o.polite || sentinels == 2
		if !waiting || sentinels == 2 || o.ended {
			defer o.mu.Unlock()
			return o.tail.Lines(time.Now()), sentinels
		}
		expected = expected || o.polite
		o.mu.Unlock()
		select {
		case <-changed:
			quiet.Reset(logQuiet)
		case <-quiet.C:
			waiting = expected
		case <-overall.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
}
