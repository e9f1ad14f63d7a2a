// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// machine is the pool without goroutines, I/O and clock: every method gets the
// time, changes the books and returns what is to be done. It is not safe for
// concurrent use; the loop in run.go owns it.
type machine struct {
	cfg     Config
	actions map[actionKey]*deployment
	// containers in the order in which they were started, so that the same
	// messages always give the same commands.
	containers []*container
	queue      []*call // by call.order
	calls      map[platform.Activation]*call
	booked     job.Bytes // the sum of container.booked
	versions   int
	orders     int
	ids        int
	closed     bool
	// cellsFrom is when stem cells may be started again after one failed.
	cellsFrom time.Time
}

type actionKey struct{ pkg, action string }

func newMachine(cfg Config) *machine {
	return &machine{
		cfg:     cfg,
		actions: map[actionKey]*deployment{},
		calls:   map[platform.Activation]*call{},
	}
}

// deploy checks the whole package before it changes anything.
func (m *machine) deploy(pkg platform.Package, now time.Time) ([]command, error) {
	if m.closed {
		return nil, errClosed
	}
	wanted, err := m.check(pkg)
	if err != nil {
		return nil, fmt.Errorf("deploy package %q: %w", pkg.Name, err)
	}
	var commands []command
	for _, work := range wanted {
		key := actionKey{work.pkg, work.action}
		old := m.actions[key]
		if old != nil && old.memory == work.memory && old.timeout == work.timeout && maps.Equal(old.env, work.env) {
			continue
		}
		m.versions++
		work.version = m.versions
		m.actions[key] = work
		if old != nil {
			commands = append(commands, m.removeWhere(func(c *container) bool { return c.work == old && c.idle() }, verdict{}, now)...)
		}
	}
	return append(commands, m.schedule(now)...), nil
}

// check makes deployments of a package, or says which limit is short.
func (m *machine) check(pkg platform.Package) ([]*deployment, error) {
	if pkg.Name == "" {
		return nil, fmt.Errorf("%w: a package needs a name", platform.ErrRefused)
	}
	env := maps.Clone(pkg.Init)
	seen := map[string]bool{}
	var wanted []*deployment
	for _, action := range pkg.Actions {
		work := &deployment{pkg: pkg.Name, action: action.Name, memory: action.Memory, timeout: action.Timeout, env: env}
		setDefault(&work.memory, m.cfg.MemoryDefault)
		setDefault(&work.timeout, m.cfg.TimeoutDefault)
		if err := m.checkAction(work, seen); err != nil {
			return nil, fmt.Errorf("action %q: %w", action.Name, err)
		}
		seen[action.Name] = true
		wanted = append(wanted, work)
	}
	return wanted, nil
}

func (m *machine) checkAction(work *deployment, seen map[string]bool) error {
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{platform.ErrRefused}, args...)...)
	}
	cfg := m.cfg
	switch {
	case work.action == "":
		return refused("an action needs a name")
	case seen[work.action]:
		return refused("the package has two actions of this name")
	case work.memory%memoryStep != 0:
		return refused("memory %d bytes is no multiple of %v: ask for %v", work.memory, memoryStep, work.memory.CeilTo(memoryStep))
	case work.memory > cfg.MemoryMax:
		return refused("memory %v is %v more than the pool's maximum memory of an action, %v: ask for less or raise the maximum",
			work.memory, work.memory-cfg.MemoryMax, cfg.MemoryMax)
	case work.memory < cfg.MemoryMin:
		return refused("memory %v is %v less than the pool's minimum memory of an action, %v: ask for more or lower the minimum",
			work.memory, cfg.MemoryMin-work.memory, cfg.MemoryMin)
	case work.timeout > cfg.TimeoutMax:
		return refused("timeout %v is %v more than the pool's maximum timeout of an action, %v: ask for less or raise the maximum",
			work.timeout, work.timeout-cfg.TimeoutMax, cfg.TimeoutMax)
	case work.timeout < cfg.TimeoutMin:
		return refused("timeout %v is %v less than the pool's minimum timeout of an action, %v: ask for more or lower the minimum",
			work.timeout, cfg.TimeoutMin-work.timeout, cfg.TimeoutMin)
	}
	return nil
}

// submit accepts a call, or says why not.
func (m *machine) submit(c *call, now time.Time) ([]command, error) {
	if m.closed {
		return nil, errClosed
	}
	if c.work == nil && m.actions[actionKey{c.pkg, c.action}] == nil {
		return nil, fmt.Errorf("%w: no action %q in package %q: deploy it first", platform.ErrNotFound, c.action, c.pkg)
	}
	if len(m.calls) >= m.cfg.Concurrency {
		return nil, fmt.Errorf("%w: %d calls are in flight, the most that the pool allows: wait for some to end or raise the pool's concurrency",
			platform.ErrThrottled, len(m.calls))
	}
	m.orders++
	c.order, c.submitted = m.orders, now
	m.calls[c.id] = c
	m.queue = append(m.queue, c)
	return m.schedule(now), nil
}

// cancel ends a call; one that is unknown or has ended is no matter.
func (m *machine) cancel(id platform.Activation, now time.Time) []command {
	c := m.calls[id]
	if c == nil {
		return nil
	}
	cancelled := verdict{kind: platform.Cancelled, message: "call was cancelled"}
	if c.container == "" {
		return append(m.drop(func(queued *call) bool { return queued == c }, cancelled, now), m.schedule(now)...)
	}
	return m.removeWhere(func(box *container) bool { return box.call == c }, cancelled, now)
}

// remove deletes a package and everything of it, and returns the containers
// that are not gone yet.
func (m *machine) remove(pkg string, now time.Time) (waitFor []string, commands []command) {
	removed := verdict{kind: platform.Cancelled, message: fmt.Sprintf("package %q was removed", pkg)}
	maps.DeleteFunc(m.actions, func(key actionKey, _ *deployment) bool { return key.pkg == pkg })
	of := func(c *container) bool { return c.work.pkg == pkg && c.work.deployed() }
	commands = m.drop(func(c *call) bool { return c.pkg == pkg && c.work == nil }, removed, now)
	commands = append(commands, m.removeWhere(of, removed, now)...)
	for _, c := range m.containers {
		if of(c) {
			waitFor = append(waitFor, c.id)
		}
	}
	return waitFor, append(commands, m.schedule(now)...)
}

// shutdown ends everything; afterwards nothing is accepted.
func (m *machine) shutdown(now time.Time) []command {
	closed := verdict{kind: platform.Cancelled, message: "platform was closed"}
	m.closed = true
	commands := m.drop(func(*call) bool { return true }, closed, now)
	return append(commands, m.removeWhere(func(*container) bool { return true }, closed, now)...)
}

// prewarm starts containers until count idle ones of the action exist. It takes
// only memory that nobody needs now.
func (m *machine) prewarm(pkg, action string, count int, now time.Time) ([]command, error) {
	if m.closed {
		return nil, errClosed
	}
	work := m.actions[actionKey{pkg, action}]
	if work == nil {
		return nil, fmt.Errorf("%w: no action %q in package %q: deploy it first", platform.ErrNotFound, action, pkg)
	}
	for _, c := range m.containers {
		if c.work == work && c.idle() {
			count--
		}
	}
	var commands []command
	for ; count > 0 && len(m.queue) == 0 && m.booked+work.memory <= m.cfg.PoolMemory; count-- {
		commands = append(commands, m.create(work, message{kind: msgStart}, now)...)
	}
	return commands, nil
}

// needMemory answers a running call that wants its limit raised (NeedMemory):
// it books what can be granted at once, perhaps nothing, and returns the limit
// to set. grew must follow when that is more than the limit in force.
func (m *machine) needMemory(id platform.Activation, limit job.Bytes) (container string, inForce, granted job.Bytes) {
	taken := m.calls[id]
	if taken == nil {
		return "", 0, 0
	}
	for _, c := range m.containers {
		if c.call != taken {
			continue
		}
		if c.state != stateRunning || c.booked > c.memory {
			return c.id, c.memory, c.memory
		}
		free := m.cfg.PoolMemory - m.booked
		granted = min(limit.CeilTo(memoryStep), m.cfg.MemoryMax, c.memory+free/memoryStep*memoryStep)
		if granted <= c.memory {
			return c.id, c.memory, c.memory
		}
		m.booked += granted - c.memory
		c.booked = granted
		return c.id, c.memory, granted
	}
	return "", 0, 0
}

// grew tells the limit that is in force after needMemory has granted one.
func (m *machine) grew(id string, limit job.Bytes, now time.Time) []command {
	for _, c := range m.containers {
		if c.id == id && c.state != stateRemoving {
			m.booked -= c.booked - limit
			c.memory, c.booked = limit, limit
		}
	}
	return m.schedule(now)
}

// deliver passes a message to a container. One that is gone is no matter.
func (m *machine) deliver(id string, msg message, now time.Time) []command {
	index := slices.IndexFunc(m.containers, func(c *container) bool { return c.id == id })
	if index < 0 {
		return nil
	}
	c := m.containers[index]
	if msg.kind == msgRunCompleted {
		current := m.actions[actionKey{c.work.pkg, c.work.action}]
		msg.retire = current != c.work && c.work.deployed() || c.booked != c.work.memory
	}
	if c.work.cell && (msg.kind == msgHealthPing || msg.kind == msgPreWarmCompleted && msg.err != nil) {
		m.cellsFrom = now.Add(cellPause)
	}
	commands := m.apply(c, msg, now)
	return append(commands, m.schedule(now)...)
}

// tick delivers the deadlines that have come.
func (m *machine) tick(now time.Time) []command {
	var commands []command
	for _, c := range slices.Clone(m.containers) {
		if !c.deadline.IsZero() && !now.Before(c.deadline) {
			commands = append(commands, m.apply(c, message{kind: msgDeadline}, now)...)
		}
	}
	return append(commands, m.schedule(now)...)
}

// nextWake returns when tick is due; the zero time: never.
func (m *machine) nextWake() time.Time {
	var wake time.Time
	for _, c := range m.containers {
		if !c.deadline.IsZero() && (wake.IsZero() || c.deadline.Before(wake)) {
			wake = c.deadline
		}
	}
	if len(m.cfg.StemCells) > 0 && !m.cellsFrom.IsZero() && (wake.IsZero() || m.cellsFrom.Before(wake)) {
		wake = m.cellsFrom
	}
	return wake
}

// apply steps one container, does the commands that are the pool's own, and
// returns the others. The caller schedules afterwards.
func (m *machine) apply(c *container, msg message, now time.Time) []command {
	next, commands := c.step(msg, now)
	*c = next
	out := commands[:0]
	for _, cmd := range commands {
		switch cmd.kind {
		case cmdNeedWork: // every caller schedules anyway
		case cmdReschedule:
			m.enqueue(cmd.call)
		case cmdRemoved:
			m.booked -= c.booked
			m.containers = slices.DeleteFunc(m.containers, func(other *container) bool { return other == c })
		case cmdSettle:
			delete(m.calls, cmd.call.id)
			out = append(out, cmd)
		default:
			out = append(out, cmd)
		}
	}
	return out
}

// enqueue puts a call back to where its turn is.
func (m *machine) enqueue(c *call) {
	c.container = ""
	index := sort.Search(len(m.queue), func(i int) bool { return m.queue[i].order > c.order })
	m.queue = slices.Insert(m.queue, index, c)
}

// drop settles queued calls.
func (m *machine) drop(which func(*call) bool, v verdict, now time.Time) []command {
	var commands []command
	m.queue = slices.DeleteFunc(m.queue, func(c *call) bool {
		if !which(c) {
			return false
		}
		delete(m.calls, c.id)
		commands = append(commands, command{kind: cmdSettle, call: c, outcome: platform.Outcome{
			Kind: v.kind, Message: v.message, Usage: platform.Usage{Wait: now.Sub(c.submitted)},
		}})
		return true
	})
	return commands
}

func (m *machine) removeWhere(which func(*container) bool, v verdict, now time.Time) []command {
	var commands []command
	for _, c := range slices.Clone(m.containers) {
		if which(c) {
			commands = append(commands, m.apply(c, message{kind: msgRemove, verdict: v}, now)...)
		}
	}
	return commands
}

// schedule gives containers to the calls at the head of the queue, and what is
// left to stem cells.
func (m *machine) schedule(now time.Time) []command {
	var commands []command
	for len(m.queue) > 0 && !m.closed {
		head := m.queue[0]
		work := head.work
		if work == nil {
			work = m.actions[actionKey{head.pkg, head.action}]
		}
		placed, cmds := m.place(head, work, now)
		commands = append(commands, cmds...)
		if !placed {
			break
		}
		m.queue[0] = nil // let go of its parameters
		m.queue = m.queue[1:]
	}
	return append(commands, m.fill(now)...)
}

// place finds a container for the call: a warm one, the memory for a new one,
// or idle containers that have to go for it.
func (m *machine) place(head *call, work *deployment, now time.Time) (bool, []command) {
	c := m.warm(work)
	if c == nil {
		if c = m.stem(work); c != nil {
			c.work = work
		}
	}
	if c != nil {
		head.container = c.id
		return true, m.apply(c, message{kind: msgRun, call: head}, now)
	}
	if m.booked+work.memory <= m.cfg.PoolMemory {
		return true, m.create(work, message{kind: msgRun, call: head}, now)
	}
	return false, m.evict(work.memory, now)
}

// warm returns the idle container of this deployment that is the quickest to
// serve a call, and among equals the one used last, so that others can age.
func (m *machine) warm(work *deployment) *container {
	rank := map[state]int{stateReady: 5, statePaused: 4, statePausing: 3, stateStarted: 2, stateStarting: 1}
	var best *container
	for _, c := range m.containers {
		if !c.work.same(work) || !c.idle() {
			continue
		}
		if best == nil || rank[c.state] > rank[best.state] || rank[c.state] == rank[best.state] && c.idleSince.After(best.idleSince) {
			best = c
		}
	}
	return best
}

// create starts a container; msg is its first message.
func (m *machine) create(work *deployment, msg message, now time.Time) []command {
	m.ids++
	c := &container{
		id: fmt.Sprintf("c%d", m.ids), work: work, memory: work.memory, booked: work.memory,
		timing: timing{startTimeout: m.cfg.StartTimeout, pauseGrace: m.cfg.PauseGrace, idleTimeout: m.cfg.IdleTimeout},
	}
	m.containers = append(m.containers, c)
	m.booked += c.booked
	if msg.call != nil {
		msg.call.container = c.id
	}
	return m.apply(c, msg, now)
}

// evict removes idle containers, those idle for longest first and stem cells
// last, if that and what is being removed already frees enough; else they are
// left for calls that fit.
func (m *machine) evict(need job.Bytes, now time.Time) []command {
	free := m.cfg.PoolMemory - m.booked
	var idle []*container
	var idleBytes job.Bytes
	for _, c := range m.containers {
		switch {
		case c.state == stateRemoving:
			free += c.booked
		case c.idle():
			idle = append(idle, c)
			idleBytes += c.booked
		}
	}
	if free+idleBytes < need {
		return nil
	}
	slices.SortStableFunc(idle, func(a, b *container) int {
		if a.work.cell != b.work.cell {
			if a.work.cell {
				return 1
			}
			return -1
		}
		return a.idleSince.Compare(b.idleSince)
	})
	var commands []command
	for _, c := range idle {
		if free >= need {
			break
		}
		free += c.booked
		commands = append(commands, m.apply(c, message{kind: msgRemove}, now)...)
	}
	return commands
}
