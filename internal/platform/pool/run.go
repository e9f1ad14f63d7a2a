// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Pool is a serverless platform on this machine. Besides platform.Platform it
// has the abilities to read logs, to grow running containers and to prewarm.
type Pool struct {
	cfg    Config
	driver Driver
	facts  Facts

	// events carries everything that happens to the loop, which alone touches
	// the fields below it.
	events   chan func(now time.Time) []command
	machine  *machine
	boxes    map[string]*box
	inFlight map[platform.Activation]*record
	removals []removal

	records records
	stopped chan struct{}  // closed when the loop has ended
	workers sync.WaitGroup // goroutines that wait for the driver
	close   func() error
}

// box is a container's side of the driver.
type box struct {
	ctx       context.Context
	cancel    context.CancelFunc
	container Container // nil until it is started
}

// removal is a Remove that waits for containers.
type removal struct {
	containers map[string]bool
	done       chan struct{}
}

var (
	_ platform.Platform  = (*Pool)(nil)
	_ platform.LogReader = (*Pool)(nil)
	_ platform.Grower    = (*Pool)(nil)
	_ platform.Prewarmer = (*Pool)(nil)
)

var errClosed = fmt.Errorf("%w: the pool is closed", platform.ErrUnavailable)

// Open starts a pool whose containers are made by driver, and takes the driver
// over, also when it fails. The caller must Close the pool.
func Open(ctx context.Context, cfg Config, driver Driver) (*Pool, error) {
	cfg = cfg.withDefaults()
	err := cfg.validate()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = driver.Close() // it has started nothing; the configuration is what matters
		return nil, fmt.Errorf("open pool: %w", err)
	}
	p := &Pool{
		cfg: cfg, driver: driver, facts: driver.Facts(),
		events:   make(chan func(time.Time) []command),
		machine:  newMachine(cfg),
		boxes:    map[string]*box{},
		inFlight: map[platform.Activation]*record{},
		records:  makeRecords(cfg),
		stopped:  make(chan struct{}),
	}
	p.close = sync.OnceValue(p.shutdown)
	go p.loop()
	if len(cfg.StemCells) > 0 {
		p.post(func(now time.Time) []command { return p.machine.schedule(now) })
	}
	return p, nil
}

// Close ends all calls with the outcome Cancelled, kills all containers, waits
// until they are gone and closes the driver. Outcomes can still be awaited
// afterwards. Idempotent. A container that the system does not let go, such as a
// process that waits for a broken disk, is left after Config.CloseTimeout: the
// error names it, and the driver stays open.
func (p *Pool) Close() error { return p.close() }

func (p *Pool) shutdown() error {
	_ = p.do(context.Background(), func(now time.Time) ([]command, error) { return p.machine.shutdown(now), nil })
	ended := make(chan struct{})
	go func() {
		<-p.stopped
		p.workers.Wait()
		close(ended)
	}()
	timer := time.NewTimer(p.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		var left []string
		_ = p.do(context.Background(), func(time.Time) ([]command, error) {
			left = slices.Sorted(maps.Keys(p.boxes))
			return nil, nil
		})
		return fmt.Errorf("close pool: %w: after %v there are still the containers %v; they hold what they use until the system ends them",
			platform.ErrUnavailable, p.cfg.CloseTimeout, left)
	}
	if err := p.driver.Close(); err != nil {
		return fmt.Errorf("close pool: %w", err)
	}
	return nil
}

// Name returns the driver's name.
func (p *Pool) Name() string { return p.facts.Name }

// Limits returns the pool's configuration.
func (p *Pool) Limits(ctx context.Context) (platform.Limits, error) {
	return platform.Limits{
		MemoryMin: p.cfg.MemoryMin, MemoryMax: p.cfg.MemoryMax, MemoryStep: memoryStep, MemoryDefault: p.cfg.MemoryDefault,
		TimeoutMin: p.cfg.TimeoutMin, TimeoutMax: p.cfg.TimeoutMax, TimeoutDefault: p.cfg.TimeoutDefault,
		PoolMemory: p.cfg.PoolMemory, Concurrency: p.cfg.Concurrency, PayloadMax: p.cfg.PayloadMax,
		Processors: max(1, p.facts.Processors), LocalFiles: p.facts.LocalFiles, Enforcement: p.facts.Enforcement,
	}, ctx.Err()
}

// Deploy implements platform.Platform. Idle containers of a replaced action are
// removed, busy ones once their call has ended; queued calls run as the new one.
func (p *Pool) Deploy(ctx context.Context, pkg platform.Package) error {
	return p.do(ctx, func(now time.Time) ([]command, error) { return p.machine.deploy(pkg, now) })
}

// Invoke implements platform.Platform.
func (p *Pool) Invoke(ctx context.Context, invoked platform.Call) (platform.Activation, error) {
	params, err := p.checkParams(invoked.Params)
	if err != nil {
		return "", fmt.Errorf("invoke %s/%s: %w", invoked.Package, invoked.Action, err)
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // documented never to fail
	accepted := &call{
		id: platform.Activation(hex.EncodeToString(random[:])), pkg: invoked.Package, action: invoked.Action, params: params,
	}
	err = p.do(ctx, func(now time.Time) ([]command, error) {
		commands, err := p.machine.submit(accepted, now)
		if err == nil {
			p.inFlight[accepted.id] = p.records.add(accepted.id, accepted.pkg)
		}
		return commands, err
	})
	if err != nil {
		return "", fmt.Errorf("invoke %s/%s: %w", invoked.Package, invoked.Action, err)
	}
	return accepted.id, nil
}

// checkParams returns a copy of a call's parameters.
func (p *Pool) checkParams(params json.RawMessage) (json.RawMessage, error) {
	if size := job.Bytes(len(params)); size > p.cfg.PayloadMax {
		return nil, fmt.Errorf("%w: parameters of %d bytes are %d more than the maximum payload of %v: put data into the store",
			platform.ErrRefused, size, size-p.cfg.PayloadMax, p.cfg.PayloadMax)
	}
	params = bytes.TrimSpace(params)
	if len(params) == 0 {
		return json.RawMessage("{}"), nil
	}
	if params[0] != '{' || !json.Valid(params) {
		return nil, fmt.Errorf("%w: parameters are not a JSON object", platform.ErrRefused)
	}
	return bytes.Clone(params), nil
}

// Await implements platform.Platform.
func (p *Pool) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	r, err := p.records.find(id)
	if err != nil {
		return platform.Outcome{}, fmt.Errorf("await: %w", err)
	}
	select {
	case <-r.done:
		outcome := r.outcome
		outcome.Result = bytes.Clone(outcome.Result)
		return outcome, nil
	case <-ctx.Done():
		return platform.Outcome{}, fmt.Errorf("await activation %s: %w", id, ctx.Err())
	}
}

// Cancel implements platform.Platform: a running call's container is killed.
func (p *Pool) Cancel(ctx context.Context, id platform.Activation) error {
	r, err := p.records.find(id)
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	select {
	case <-r.done:
		return nil
	default:
	}
	return p.do(ctx, func(now time.Time) ([]command, error) { return p.machine.cancel(id, now), nil })
}

// Remove implements platform.Platform. It returns when the package's containers
// are gone; cancelling ctx stops only the waiting.
func (p *Pool) Remove(ctx context.Context, pkg string) error {
	gone := make(chan struct{})
	err := p.do(ctx, func(now time.Time) ([]command, error) {
		ids, commands := p.machine.remove(pkg, now)
		wait := removal{containers: map[string]bool{}, done: gone}
		for _, id := range ids {
			wait.containers[id] = true
		}
		p.removals = append(p.removals, wait)
		p.records.forget(pkg)
		return commands, nil
	})
	if err != nil {
		return err
	}
	select {
	case <-gone:
		return nil
	case <-p.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remove package %q: %w", pkg, ctx.Err())
	}
}

// Logs implements platform.LogReader; while the call runs there are no lines.
func (p *Pool) Logs(ctx context.Context, id platform.Activation) ([]string, error) {
	r, err := p.records.find(id)
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	select {
	case <-r.done:
		return append([]string(nil), r.logs...), ctx.Err()
	default:
		return nil, ctx.Err()
	}
}

// Grow implements platform.Grower: memory that is free in the pool is granted
// at once, none is taken from other containers. For a call that has no
// container it returns 0, for one that has ended the limit that it had.
func (p *Pool) Grow(ctx context.Context, id platform.Activation, limit job.Bytes) (job.Bytes, error) {
	r, err := p.records.find(id)
	if err != nil {
		return 0, fmt.Errorf("grow: %w", err)
	}
	var container string
	var inForce, granted job.Bytes
	var grown *box
	err = p.do(ctx, func(time.Time) ([]command, error) {
		container, inForce, granted = p.machine.needMemory(id, limit)
		grown = p.boxes[container]
		return nil, nil
	})
	if err != nil {
		return 0, err
	}
	select {
	case <-r.done:
		return r.outcome.Usage.Limit, nil
	default:
	}
	if granted <= inForce {
		return inForce, nil
	}
	inForce, err = grown.container.Grow(ctx, granted)
	// The books are put right whatever became of ctx.
	_ = p.do(context.WithoutCancel(ctx), func(now time.Time) ([]command, error) {
		return p.machine.grew(container, inForce, now), nil
	})
	if err != nil {
		return inForce, fmt.Errorf("grow activation %s to %v: %w: %w", id, granted, platform.ErrUnavailable, err)
	}
	return inForce, nil
}

// Prewarm implements platform.Prewarmer.
func (p *Pool) Prewarm(ctx context.Context, pkg, action string, count int) error {
	return p.do(ctx, func(now time.Time) ([]command, error) { return p.machine.prewarm(pkg, action, count, now) })
}

// do has the loop run event and waits for it. Once the loop has taken the event
// ctx no longer matters, so that the caller always knows what happened: the
// loop never blocks.
func (p *Pool) do(ctx context.Context, event func(now time.Time) ([]command, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	result := make(chan error, 1)
	request := func(now time.Time) []command {
		commands, err := event(now)
		result <- err
		return commands
	}
	select {
	case p.events <- request:
		return <-result
	case <-p.stopped:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// loop owns the machine. It ends after shutdown, when no container is left.
func (p *Pool) loop() {
	defer close(p.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !p.machine.closed || len(p.machine.containers) > 0 {
		wait := time.Hour
		if wake := p.machine.nextWake(); !wake.IsZero() {
			wait = time.Until(wake)
		}
		timer.Reset(wait)
		var commands []command
		select {
		case event := <-p.events:
			commands = event(time.Now())
		case <-timer.C:
			commands = p.machine.tick(time.Now())
		}
		for _, cmd := range commands {
			p.execute(cmd)
		}
		p.removals = slices.DeleteFunc(p.removals, func(wait removal) bool {
			if len(wait.containers) == 0 {
				close(wait.done)
			}
			return len(wait.containers) == 0
		})
	}
}

// execute does one command; what takes time is done by a goroutine of its own
// that reports back with a message.
func (p *Pool) execute(cmd command) {
	b := p.boxes[cmd.container]
	switch cmd.kind {
	case cmdStart:
		b = &box{}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		p.boxes[cmd.container] = b
		p.report(cmd.container, func() message { return p.start(cmd, b) })
	case cmdAbort:
		b.cancel()
	case cmdInit:
		p.report(cmd.container, func() message {
			return message{kind: msgInitCompleted, err: b.container.Init(b.ctx, makeInit(cmd))}
		})
	case cmdRun:
		p.report(cmd.container, func() message { return b.run(cmd) })
	case cmdResumeRun:
		p.report(cmd.container, func() message {
			if err := b.container.(Pauser).Resume(); err != nil {
				return message{kind: msgRunCompleted, err: fmt.Errorf("resume: %w: %w", ErrNotSent, err)}
			}
			return b.run(cmd)
		})
	case cmdPause:
		p.report(cmd.container, func() message {
			return message{kind: msgContainerPaused, err: b.container.(Pauser).Pause()}
		})
	case cmdKill:
		b.cancel()
		p.report(cmd.container, func() message {
			return message{kind: msgContainerRemoved, exit: b.container.Kill()}
		})
	case cmdSettle:
		p.settle(cmd)
	case cmdNeedWork, cmdReschedule, cmdRemoved:
		// For the machine, which answers them itself.
	}
}

// report runs work on a goroutine and delivers the message that it returns.
func (p *Pool) report(container string, work func() message) {
	p.workers.Go(func() {
		msg := work()
		p.post(func(now time.Time) []command {
			commands := p.machine.deliver(container, msg, now)
			if msg.kind == msgContainerRemoved || msg.kind == msgPreWarmCompleted && msg.err != nil {
				p.gone(container)
			}
			return commands
		})
	})
}

func (p *Pool) post(event func(now time.Time) []command) {
	select {
	case p.events <- event:
	case <-p.stopped:
	}
}

// gone forgets a container; the loop then wakes those who waited for that.
func (p *Pool) gone(container string) {
	p.boxes[container].cancel()
	delete(p.boxes, container)
	for _, wait := range p.removals {
		delete(wait.containers, container)
	}
}

// start starts a container and keeps an eye on it.
func (p *Pool) start(cmd command, b *box) message {
	container, err := p.driver.Start(b.ctx, Spec{ID: cmd.container, Memory: cmd.memory, Image: cmd.image, PayloadMax: p.cfg.PayloadMax})
	if err != nil {
		return message{kind: msgPreWarmCompleted, err: err}
	}
	b.container = container // the loop reads it only after the message below
	_, pauses := container.(Pauser)
	p.workers.Go(func() {
		<-container.Done()
		p.post(func(now time.Time) []command {
			return p.machine.deliver(cmd.container, message{kind: msgHealthPing}, now)
		})
	})
	return message{kind: msgPreWarmCompleted, pauses: pauses}
}

func (b *box) run(cmd command) message {
	req := RunRequest{
		Package: cmd.work.pkg, Action: cmd.work.action, Version: versionText(cmd.work), Activation: cmd.call.id,
		Deadline: cmd.deadline, Params: cmd.call.params, Fresh: cmd.fresh,
	}
	if f := cmd.work.function; f != nil {
		req.Path, req.Version, req.Arrays, req.Sentinels = f.Path, f.Version, f.Arrays, f.Sentinels
		req.Namespace, req.Transaction, req.APIKey = cmd.call.request.Namespace, cmd.call.request.Transaction, cmd.call.request.APIKey
	}
	answer, err := b.container.Run(b.ctx, req)
	return message{kind: msgRunCompleted, answer: answer, err: err}
}

func makeInit(cmd command) InitRequest {
	req := InitRequest{
		Package: cmd.work.pkg, Action: cmd.work.action, Version: versionText(cmd.work), Activation: cmd.call.id,
		Deadline: cmd.deadline, Env: maps.Clone(cmd.work.env),
	}
	if f := cmd.work.function; f != nil {
		req.Path, req.Version, req.Main, req.Code, req.Binary = f.Path, f.Version, f.Main, f.Code, f.Binary
		req.Namespace, req.Transaction = cmd.call.request.Namespace, cmd.call.request.Transaction
		if key := cmd.call.request.APIKey; key != "" {
			if req.Env == nil {
				req.Env = map[string]string{}
			}
			req.Env["__OW_API_KEY"] = key
		}
	}
	return req
}

// versionText formats a version as OpenWhisk does.
func versionText(work *deployment) string { return fmt.Sprintf("0.0.%d", work.version) }

// settle publishes an outcome.
func (p *Pool) settle(cmd command) {
	if cmd.work != nil {
		secrets := secretsOf(cmd.work.env)
		cmd.outcome.Message = secrets.Redact(cmd.outcome.Message)
		cmd.outcome.Result = redactResult(cmd.outcome.Result, secrets)
		if reply := cmd.ending.reply; reply != nil && cmd.call.ended != nil {
			reply.Body = redactBody(reply.Body, secrets)
		}
		for i, line := range cmd.logs {
			cmd.logs[i].Text = secrets.Redact(line.Text)
		}
	}
	if cmd.call.ended != nil {
		cmd.call.ended <- makeEnded(cmd)
		return
	}
	r := p.inFlight[cmd.call.id]
	delete(p.inFlight, cmd.call.id)
	if cmd.outcome.Kind == platform.ApplicationError && len(cmd.outcome.Result) == 0 {
		cmd.outcome.Result = errorResult(cmd.outcome.Message)
	}
	p.records.settle(r, cmd.outcome, Texts(cmd.logs))
}
