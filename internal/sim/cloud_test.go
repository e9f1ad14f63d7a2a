// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/store"
	"disdel/internal/store/mem"
	"disdel/internal/worker"
)

// fault is what goes wrong with one invocation.
type fault int

const (
	none             fault = iota
	throttled              // Invoke: nothing runs
	unavailable            // Invoke fails, nothing runs
	unavailableAfter       // Invoke fails, but the task runs
	lostBefore             // the container dies before the task
	lostAfter              // the state is stored, the answer is lost
	late                   // counted as lost at once, runs and stores much later
	twice                  // runs two times
	slow                   // takes long
	handOver               // stops after one step, or soon
	storeBefore            // one of the worker's store operations fails
	garbage                // the answer is no task result
	nonsense               // the answer is a result that the task cannot have
	awaitGone              // the record of the activation is gone
	awaitFails             // Await fails once, the task runs
	silent                 // runs and stores, and its record never comes
	unstarted              // never runs, and has no record
	outOfMemory
	timedOut
	faultKinds
)

// never is longer than anybody waits.
const never = 2 * time.Hour

// chooser says what goes wrong with the nth call (from 0) for the same work, in a
// container of the given size.
type chooser func(t job.Task, nth int, memory job.Bytes) fault

// workOf is a task without what the resource plan says of it.
func workOf(t job.Task) job.Task {
	return job.Task{Role: t.Role, Job: t.Job, Replica: t.Replica, From: t.From, Piece: t.Piece}
}

func noFaults(job.Task, int, job.Bytes) fault { return none }

// cloud is a platform that runs tasks in this process.
type cloud struct {
	store  *mem.Store
	limits job.Limits
	choose chooser
	// delay is how long every read of a worker takes; single lets the platform
	// run one call at a time, whatever its limits say.
	delay  time.Duration
	single chan struct{}
	// exhaust says whether a task runs out of memory at its nth operation on the
	// store.
	exhaust func(t job.Task, memory job.Bytes, nth int) bool
	// observe is called before every operation of a worker on the store.
	observe func(op string)

	mu       sync.Mutex
	packages map[string]map[string]platform.Action
	calls    map[job.Task]int // by work
	running  map[platform.Activation]*activation
	number   int
	removed  []string
	refuse   error // what Deploy answers
	tasks    sync.WaitGroup
}

type activation struct {
	pkg     string
	done    chan struct{}
	outcome platform.Outcome
	ended   bool
	fault   fault
	// fence keeps a task that was ended from changing the store any more.
	ctx   context.Context
	fence context.CancelFunc
	// full says that memory is used up; nil if it never is.
	full func() bool
}

var _ platform.Platform = (*cloud)(nil)

func newCloud(s *mem.Store, choose chooser) *cloud {
	return &cloud{
		store: s, choose: choose,
		limits: job.Limits{
			MemoryMin: 128 * job.MB, MemoryMax: 512 * job.MB, MemoryStep: job.MB, MemoryDefault: 256 * job.MB,
			TimeoutMin: time.Second, TimeoutMax: 5 * time.Minute, TimeoutDefault: time.Minute,
			PoolMemory: 2 * job.GB, Concurrency: 100, PayloadMax: job.MB, Processors: 2, LocalFiles: true, Enforcement: "none",
		},
		packages: map[string]map[string]platform.Action{},
		calls:    map[job.Task]int{},
		running:  map[platform.Activation]*activation{},
	}
}

func (c *cloud) Name() string { return "cloud" }

func (c *cloud) Limits(ctx context.Context) (platform.Limits, error) { return c.limits, ctx.Err() }

func (c *cloud) Deploy(ctx context.Context, pkg platform.Package) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.refuse != nil {
		return c.refuse
	}
	actions := c.packages[pkg.Name]
	if actions == nil {
		actions = map[string]platform.Action{}
		c.packages[pkg.Name] = actions
	}
	for _, a := range pkg.Actions {
		l := c.limits
		if a.Memory < l.MemoryMin || a.Memory > l.MemoryMax || a.Memory%l.MemoryStep != 0 || a.Timeout < l.TimeoutMin || a.Timeout > l.TimeoutMax {
			return fmt.Errorf("action %s of %v, %v: %w", a.Name, a.Memory, a.Timeout, platform.ErrRefused)
		}
		actions[a.Name] = a
	}
	return nil
}

func (c *cloud) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	action, ok := c.packages[call.Package][call.Action]
	if !ok {
		return "", fmt.Errorf("invoke %s/%s: %w", call.Package, call.Action, platform.ErrNotFound)
	}
	var task job.Task
	if err := json.Unmarshal(call.Params, &task); err != nil {
		return "", fmt.Errorf("invoke: %w: %w", err, platform.ErrRefused)
	}
	nth := c.calls[workOf(task)]
	c.calls[workOf(task)]++
	f := c.choose(task, nth, action.Memory)
	switch f {
	case throttled:
		return "", fmt.Errorf("invoke: %w", platform.ErrThrottled)
	case unavailable:
		return "", fmt.Errorf("invoke: %w", platform.ErrUnavailable)
	}
	id := platform.Activation(fmt.Sprintf("a%d", c.number))
	c.number++
	// The task lives as long as its activation, not as the call.
	taskCtx, fence := context.WithCancel(context.WithoutCancel(ctx))
	a := &activation{pkg: call.Package, done: make(chan struct{}), fault: f, ctx: taskCtx, fence: fence}
	if c.exhaust != nil {
		nth := 0
		a.full = func() bool { nth++; return c.exhaust(task, action.Memory, nth) }
	}
	c.running[id] = a
	c.tasks.Go(func() { c.run(a, string(id), task, action) })
	if f == unavailableAfter {
		return "", fmt.Errorf("invoke: %w", platform.ErrUnavailable)
	}
	return id, nil
}

// run carries out one activation. Durations are virtual.
func (c *cloud) run(a *activation, id string, task job.Task, action platform.Action) {
	defer a.fence()
	if c.single != nil {
		select {
		case c.single <- struct{}{}:
			defer func() { <-c.single }()
		case <-a.ctx.Done():
			return
		}
	}
	usage := platform.Usage{
		Container: "c" + id, Cold: true, Limit: action.Memory, Peak: 10 * job.MB, Init: 20 * time.Millisecond, Duration: 80 * time.Millisecond,
	}
	bad := func(kind platform.Kind) {
		c.end(a, platform.Outcome{Kind: kind, Message: "simulated " + string(kind), Usage: usage})
	}
	// Replicas are not quite as quick as each other, which keeps the order of
	// things the same from run to run.
	pause(a.ctx, 100*time.Millisecond+time.Duration(task.Replica)*time.Millisecond)
	failAt, delay := 0, c.delay
	switch a.fault {
	case lostBefore:
		bad(platform.Lost)
		return
	case late:
		bad(platform.Lost)
		pause(a.ctx, 3*time.Second)
	case slow:
		pause(a.ctx, 20*time.Second)
	case unstarted:
		pause(a.ctx, never)
		bad(platform.Lost)
		return
	case outOfMemory:
		bad(platform.OutOfMemory)
		return
	case timedOut:
		pause(a.ctx, action.Timeout)
		bad(platform.TimedOut)
		return
	case twice:
		c.work(a, task, 0, delay)
	case storeBefore:
		failAt = 2
		if task.Meet {
			failAt += len(id) * (task.From + task.Replica) % 17
		}
	case handOver:
		switch {
		case task.Meet:
			task.Budget, delay = time.Second, max(delay, 600*time.Millisecond)
		case task.Role == job.RoleTrain && task.To > task.From+1:
			task.To = task.From + 1
		}
	}
	answer := c.work(a, task, failAt, delay)
	switch a.fault {
	case lostAfter:
		bad(platform.Lost)
		return
	case silent:
		if pause(a.ctx, never); a.ctx.Err() != nil {
			return // cancelled, which ends the record
		}
	case garbage:
		answer = []byte(`"` + id)
	case nonsense:
		answer = []byte(`{}`)
	}
	kind := platform.Success
	result, err := job.DecodeAnswer(answer)
	if err == nil && result.Error != "" {
		kind = platform.ApplicationError
	}
	c.end(a, platform.Outcome{Kind: kind, Message: result.Error, Result: answer, Usage: usage})
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (c *cloud) end(a *activation, out platform.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.ended {
		a.ended, a.outcome = true, out
		close(a.done)
	}
}

// work has a real worker do the task, on a store one operation of which fails
// and whose reads take some time. A probe alone is answered here, since it
// measures time, which stands still while anything computes.
func (c *cloud) work(a *activation, task job.Task, failAt int, delay time.Duration) []byte {
	ctx := a.ctx
	if task.Role == job.RoleProbe {
		return mustJSON(job.TaskResult{Probe: &job.Probe{
			Version: "sim", KernelSet: kernelSet, Kernel: task.Kernel, Package: 9 * job.MB, Held: job.MB, FLOPS: 1e9, StoreRate: 1e8,
		}})
	}
	view := &recorder{Store: &brittle{Store: c.store.Share(), failAt: failAt, gate: func(op string) error {
		if c.observe != nil {
			c.observe(op)
		}
		if a.full != nil && a.full() {
			a.fence() // a killed container does nothing more
			c.end(a, platform.Outcome{Kind: platform.OutOfMemory, Message: "simulated"})
		}
		if op == "get" && delay > 0 {
			pause(ctx, delay)
		}
		return ctx.Err()
	}}}
	if !task.Meet {
		task.Budget = 0 // in virtual time no step takes any
	}
	key := string(mustJSON(task))
	// What replicas that meet do depends on each other.
	if !task.Meet {
		if answer, ok := replay(ctx, view, key); ok && failAt == 0 {
			return answer
		}
		view.reads, view.writes = map[string][]byte{}, map[string][]byte{}
	}
	w := worker.New(worker.Config{Open: func(context.Context, string) (store.Store, error) { return view, nil }})
	post := func(path string, body []byte) []byte {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		rw := &answer{header: http.Header{}}
		w.Handler().ServeHTTP(rw, r)
		return rw.body.Bytes()
	}
	post("/init", []byte(`{"value":{"env":{"`+worker.StoreEnv+`":"mem://"}}}`))
	answer := post("/run", mustJSON(map[string]job.Task{"value": task}))
	if result, err := job.DecodeAnswer(answer); err == nil && result.Error == "" && view.reads != nil && !view.partial {
		done.Store(key, &work{view.reads, view.writes, answer})
	}
	return answer
}

// answer is a response writer that cannot flush, which spares a garbage
// collection for each task.
type answer struct {
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *answer) WriteHeader(int)             {}

func (c *cloud) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	c.mu.Lock()
	a, ok := c.running[id]
	f := none
	if ok {
		f = a.fault
	}
	c.mu.Unlock()
	if !ok || f == awaitGone {
		return platform.Outcome{}, fmt.Errorf("await %s: %w", id, platform.ErrNotFound)
	}
	if f == awaitFails {
		return platform.Outcome{}, fmt.Errorf("await %s: %w", id, platform.ErrUnavailable)
	}
	select {
	case <-a.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return a.outcome, nil
	case <-ctx.Done():
		return platform.Outcome{}, ctx.Err()
	}
}

func (c *cloud) Cancel(ctx context.Context, id platform.Activation) error {
	c.mu.Lock()
	a, ok := c.running[id]
	c.mu.Unlock()
	if !ok {
		return fmt.Errorf("cancel %s: %w", id, platform.ErrNotFound)
	}
	c.cancel(a)
	return ctx.Err()
}

func (c *cloud) cancel(a *activation) {
	a.fence()
	c.end(a, platform.Outcome{Kind: platform.Cancelled, Message: "cancelled"})
}

func (c *cloud) Remove(ctx context.Context, pkg string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	var mine []*activation
	for id, a := range c.running {
		if a.pkg == pkg {
			mine = append(mine, a)
			delete(c.running, id)
		}
	}
	delete(c.packages, pkg)
	c.removed = append(c.removed, pkg)
	c.mu.Unlock()
	for _, a := range mine {
		c.cancel(a)
	}
	return nil
}

// lose ends everything that runs, as the crash of the whole machine does.
func (c *cloud) lose() {
	c.mu.Lock()
	names := map[string]bool{}
	for _, a := range c.running {
		names[a.pkg] = true
	}
	c.mu.Unlock()
	for name := range names {
		_ = c.Remove(context.Background(), name)
	}
	c.tasks.Wait()
}

func (c *cloud) packageCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.packages)
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
