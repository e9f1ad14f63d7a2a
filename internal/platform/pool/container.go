// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// state is where a container is in its life.
//
//	             Start, Run
//	Initialized ────────────> Starting ──PreWarmCompleted──> Started (prewarmed, idle)
//	                             │                              │
//	                             │ PreWarmCompleted             │ Run
//	                             │ (a call waits)               │
//	                             └────────────> Running <───────┘
//	                         InitCompleted:      │   ^   ^
//	                         stays, runs         │   │   │ ContainerPaused (a call waits)
//	                                RunCompleted │   │   └───────────────────────┐
//	                                             v   │ Run                       │
//	                                            Ready ───deadline: grace──> Pausing
//	                                                 ^                         │
//	                                                 │ Run             ContainerPaused
//	                                              (Running)                    v
//	                                                 └───────────────────── Paused
//
//	any state ──Remove, deadline, HealthPing, an error──> Removing ──ContainerRemoved──> gone
//
// The deadline is the time limit in Starting and Running, the grace in Ready
// and the idle timeout in Started, Ready and Paused. HealthPing reports that
// the container has died; while it is Running the failing call says so itself.
type state uint8

const (
	stateInitialized state = iota
	stateStarting
	stateStarted
	stateRunning
	stateReady
	statePausing
	statePaused
	stateRemoving
)

func (s state) String() string {
	return [...]string{"Initialized", "Starting", "Started", "Running", "Ready", "Pausing", "Paused", "Removing"}[s]
}

// messageKind names what can happen to a container, and what it tells its pool
// (NeedWork, RescheduleJob, ContainerRemoved).
type messageKind uint8

const (
	msgStart            messageKind = iota // pool: start without a call
	msgRun                                 // pool: serve message.call
	msgRemove                              // pool: end; message.verdict is for the call, if any
	msgDeadline                            // clock: container.deadline has come
	msgPreWarmCompleted                    // driver: started, or message.err
	msgInitCompleted                       // driver: initialised, or message.err
	msgRunCompleted                        // driver: message.answer, or message.err
	msgContainerPaused                     // driver: paused, or message.err
	msgHealthPing                          // driver: found dead
	msgContainerRemoved                    // driver: gone, message.exit
)

func (k messageKind) String() string {
	return [...]string{
		"Start", "Run", "Remove", "Deadline", "PreWarmCompleted", "InitCompleted", "RunCompleted",
		"ContainerPaused", "HealthPing", "ContainerRemoved",
	}[k]
}

type message struct {
	kind    messageKind
	call    *call
	verdict verdict
	err     error
	pauses  bool // with msgPreWarmCompleted: the driver can pause it
	retire  bool // with msgRunCompleted: the container must serve no more calls
	answer  Answer
	exit    Exit
}

// commandKind names what is to be done: by the driver, or by the pool.
type commandKind uint8

const (
	cmdStart      commandKind = iota // driver: start; answer PreWarmCompleted
	cmdAbort                         // driver: cancel the start
	cmdInit                          // driver: /init for command.call; answer InitCompleted
	cmdRun                           // driver: /run command.call; answer RunCompleted
	cmdResumeRun                     // driver: resume, then as cmdRun
	cmdPause                         // driver: pause; answer ContainerPaused
	cmdKill                          // driver: kill; answer ContainerRemoved
	cmdSettle                        // pool: command.call has command.outcome
	cmdNeedWork                      // pool: the container can take a call
	cmdReschedule                    // pool: put command.call back into the queue
	cmdRemoved                       // pool: the container is gone
)

func (k commandKind) String() string {
	return [...]string{
		"start", "abort", "init", "run", "resume+run", "pause", "kill", "settle",
		"NeedWork", "RescheduleJob", "ContainerRemoved",
	}[k]
}

type command struct {
	kind      commandKind
	container string
	memory    job.Bytes   // cmdStart
	image     string      // cmdStart
	work      *deployment // cmdInit, cmdRun, cmdSettle of a call that was taken
	call      *call
	deadline  time.Time // cmdInit, cmdRun: for the worker to know; the pool enforces it
	fresh     bool      // cmdRun
	outcome   platform.Outcome
	logs      []Line
	ending    ending
}

// deployment is one version of an action; it never changes.
type deployment struct {
	pkg, action string
	version     int
	memory      job.Bytes
	timeout     time.Duration
	env         map[string]string
	image       string
	// function is the action of a front end, nil for a deployed one. cell says
	// that this stands for no action yet: the container is a stem cell.
	function *Function
	cell     bool
}

// same reports whether containers of d and of other can stand for each other.
func (d *deployment) same(other *deployment) bool {
	return d == other || d.function != nil && other.function != nil && d.function.Key == other.function.Key
}

// call is an accepted invocation.
type call struct {
	id          platform.Activation
	pkg, action string
	params      json.RawMessage
	submitted   time.Time
	order       int    // in which calls were accepted
	container   string // that has taken it; "" while it is queued
	// work, request and ended are of a call of a front end's function.
	work    *deployment
	request Request
	ended   chan<- Ended
}

// ending is what a front end is told beyond the outcome.
type ending struct {
	phase               Phase
	reply               *Reply
	err                 error
	sentinels           int
	initBegan, runBegan time.Time
	ended               time.Time
}

// verdict is an outcome that is decided before the container is gone. Without a
// kind the container's exit decides.
type verdict struct {
	kind    platform.Kind
	message string
}

// timing is the part of the configuration that a container needs.
type timing struct {
	startTimeout, pauseGrace, idleTimeout time.Duration
}

// container is one container's state. It is a value: step returns the next one.
type container struct {
	id     string
	work   *deployment
	timing timing
	state  state
	// memory is the limit in force, booked what the pool has booked for it: more
	// while the limit is being raised, never less.
	memory, booked job.Bytes

	deadline     time.Time // when msgDeadline is due; zero: never
	call         *call     // taken and without an outcome
	prewarmed    bool      // started without a call
	fresh        bool      // has not finished a call
	initialised  bool
	initialising bool // in Running: /init is under way, else /run
	lingering    bool // in Running: the call has ended, and the container is not free yet
	pauses       bool
	dead         bool // in Running: found dead
	verdict      verdict

	taken     time.Time // when it took the call
	began     time.Time // when the call was taken or, later, its run began
	ended     time.Time // when the call was given up
	initTime  time.Duration
	idleSince time.Time
	ending    ending // of the call that it serves
}

// idle reports whether c does nothing and could be given a call or removed
// without harm.
func (c container) idle() bool {
	if c.call != nil {
		return false
	}
	switch c.state {
	case stateStarting, stateStarted, stateReady, statePausing, statePaused:
		return true
	default:
		return false
	}
}

// step returns the container after m and what is to be done. It has no side
// effects and ignores messages that no longer matter: they are late answers.
func (c container) step(m message, now time.Time) (container, []command) {
	switch c.state {
	case stateInitialized:
		return c.stepInitialized(m, now)
	case stateStarting:
		return c.stepStarting(m, now)
	case stateRunning:
		return c.stepRunning(m, now)
	case stateStarted, stateReady, statePausing, statePaused:
		return c.stepIdle(m, now)
	default:
		return c.stepRemoving(m, now)
	}
}

func (c container) stepInitialized(m message, now time.Time) (container, []command) {
	switch m.kind {
	case msgRun:
		c = c.take(m.call, now)
	case msgStart:
		c.prewarmed = true
	default:
		return c, nil
	}
	c.state, c.fresh = stateStarting, true
	c.deadline = now.Add(c.timing.startTimeout)
	return c, []command{{kind: cmdStart, container: c.id, memory: c.memory, image: c.work.image}}
}

func (c container) stepStarting(m message, now time.Time) (container, []command) {
	switch m.kind {
	case msgRun:
		return c.take(m.call, now), nil
	case msgPreWarmCompleted:
		if m.err != nil {
			c.ending.err = m.err
			return c.removed(verdict{kind: platform.Lost, message: "container could not be started: " + m.err.Error()}, Exit{}, now)
		}
		c.pauses = m.pauses
		if c.call == nil {
			c.state = stateStarted
			return c.rest(now)
		}
		return c.serve(now)
	case msgRemove:
		return c.remove(cmdAbort, m.verdict, now)
	case msgDeadline:
		return c.remove(cmdAbort, verdict{
			kind:    platform.Lost,
			message: fmt.Sprintf("container did not start within %v", c.timing.startTimeout),
		}, now)
	default:
		return c, nil
	}
}

func (c container) stepRunning(m message, now time.Time) (container, []command) {
	switch m.kind {
	case msgInitCompleted:
		if m.err != nil {
			return c.failed(m.err, "initialisation failed", now)
		}
		c.initialised, c.initialising = true, false
		c.initTime += now.Sub(c.began)
		return c.serve(now)
	case msgRunCompleted:
		if m.err != nil {
			return c.failed(m.err, "call failed", now)
		}
		f := c.work.function
		if f != nil && f.Reschedule && m.answer.Reply.Status == http.StatusServiceUnavailable && !c.fresh {
			return c.reschedule(now)
		}
		c.ending.reply, c.ending.sentinels = &m.answer.Reply, m.answer.Sentinels
		// Without its sentinels it is not known what the next call would print.
		unfinished := f != nil && f.Sentinels && m.answer.Sentinels < 2
		settled := c.settle(platform.Outcome{Kind: m.answer.Kind, Result: m.answer.Result, Message: m.answer.Message},
			m.answer.Peak, m.answer.Cache, m.answer.Logs, now)
		c.call, c.fresh, c.initTime = nil, false, 0
		if m.retire || m.answer.Broken || c.dead || unfinished {
			next, commands := c.remove(cmdKill, verdict{}, now)
			return next, append([]command{settled}, commands...)
		}
		if f != nil && f.Linger > 0 {
			c.lingering, c.deadline = true, now.Add(f.Linger)
			return c, []command{settled}
		}
		c.state = stateReady
		next, commands := c.rest(now)
		return next, append([]command{settled}, commands...)
	case msgRemove:
		return c.remove(cmdKill, m.verdict, now)
	case msgDeadline:
		if c.lingering {
			if c.lingering = false; c.dead {
				return c.remove(cmdKill, verdict{}, now)
			}
			c.state = stateReady
			return c.rest(now)
		}
		during := ""
		if c.initialising {
			during = " during initialisation"
		}
		return c.remove(cmdKill, verdict{
			kind:    platform.TimedOut,
			message: fmt.Sprintf("call exceeded its time limit of %v%s", c.work.timeout, during),
		}, now)
	case msgHealthPing:
		c.dead = true
		return c, nil
	default:
		return c, nil
	}
}

// stepIdle serves the states in which a container waits for a call.
func (c container) stepIdle(m message, now time.Time) (container, []command) {
	switch m.kind {
	case msgRun:
		paused := c.state == statePaused
		c = c.take(m.call, now)
		if c.state == statePausing {
			return c, nil // served as soon as it is paused: pausing takes no time to speak of
		}
		c, commands := c.serve(now)
		if paused {
			commands[0].kind = cmdResumeRun
		}
		return c, commands
	case msgContainerPaused:
		if c.state != statePausing {
			return c, nil
		}
		if m.err != nil {
			return c.remove(cmdKill, verdict{}, now)
		}
		if c.call != nil {
			c, commands := c.serve(now)
			commands[0].kind = cmdResumeRun
			return c, commands
		}
		c.state = statePaused
		c.deadline = c.idleSince.Add(c.timing.idleTimeout)
		return c, nil
	case msgDeadline:
		if c.state == stateReady && c.pauses && c.timing.pauseGrace >= 0 && now.Before(c.idleSince.Add(c.timing.idleTimeout)) {
			c.state, c.deadline = statePausing, time.Time{}
			return c, []command{{kind: cmdPause, container: c.id}}
		}
		return c.remove(cmdKill, verdict{}, now)
	case msgRemove:
		return c.remove(cmdKill, m.verdict, now)
	case msgHealthPing:
		return c.remove(cmdKill, verdict{}, now)
	default:
		return c, nil
	}
}

func (c container) stepRemoving(m message, now time.Time) (container, []command) {
	switch m.kind {
	case msgPreWarmCompleted: // the start that was to be aborted has ended
		if m.err != nil {
			return c.removed(c.verdict, Exit{}, now)
		}
		return c, []command{{kind: cmdKill, container: c.id}}
	case msgContainerRemoved:
		return c.removed(c.verdict, m.exit, now)
	case msgRun:
		return c, []command{{kind: cmdReschedule, container: c.id, call: m.call}}
	default:
		return c, nil
	}
}

// take gives c a call. Waiting ends here.
func (c container) take(call *call, now time.Time) container {
	c.call, c.taken, c.began = call, now, now
	c.ending = ending{}
	return c
}

// serve initialises c if that has not happened, else runs its call.
func (c container) serve(now time.Time) (container, []command) {
	kind := cmdRun
	if c.initialised {
		c.began = now
		c.ending.phase, c.ending.runBegan = PhaseRun, now
	} else {
		kind, c.initialising = cmdInit, true
		c.ending.phase, c.ending.initBegan = PhaseInit, now
	}
	c.state = stateRunning
	c.deadline = now.Add(c.work.timeout)
	return c, []command{{
		kind: kind, container: c.id, work: c.work, call: c.call, deadline: c.deadline, fresh: c.fresh,
	}}
}

// rest makes c wait for work.
func (c container) rest(now time.Time) (container, []command) {
	c.idleSince = now
	wait := c.timing.idleTimeout
	if c.state == stateReady && c.pauses && c.timing.pauseGrace >= 0 {
		wait = min(wait, c.timing.pauseGrace)
	}
	c.deadline = now.Add(wait)
	if c.work.cell {
		c.deadline = time.Time{} // kept for whoever comes
	}
	return c, []command{{kind: cmdNeedWork, container: c.id}}
}

// failed handles an error of /init or /run: the container cannot be used any
// more. The call goes back to the queue when the worker never saw it, which can
// happen only in a container that was not started for it, so not for ever.
func (c container) failed(err error, what string, now time.Time) (container, []command) {
	c.ending.err = err
	var refusal *ReplyError
	if errors.As(err, &refusal) {
		c.ending.reply = &refusal.Reply
	}
	switch {
	case errors.Is(err, ErrAnswered):
		return c.remove(cmdKill, verdict{kind: platform.ApplicationError, message: what + ": " + err.Error()}, now)
	case errors.Is(err, ErrNotSent) && (!c.fresh || c.prewarmed):
		return c.reschedule(now)
	default:
		return c.remove(cmdKill, verdict{message: what + ": " + err.Error()}, now)
	}
}

func (c container) reschedule(now time.Time) (container, []command) {
	call := c.call
	c.call = nil
	c, commands := c.remove(cmdKill, verdict{}, now)
	return c, append(commands, command{kind: cmdReschedule, container: c.id, call: call})
}

// remove begins the end. A call that c took and that nothing was decided about
// goes back to the queue if the worker has not been given it yet.
func (c container) remove(how commandKind, v verdict, now time.Time) (container, []command) {
	if c.state == statePausing && c.call != nil && v.kind == "" {
		return c.reschedule(now)
	}
	c.state, c.verdict, c.ended, c.deadline = stateRemoving, v, now, time.Time{}
	return c, []command{{kind: how, container: c.id}}
}

// removed settles the call of a container that is gone.
func (c container) removed(v verdict, exit Exit, now time.Time) (container, []command) {
	gone := command{kind: cmdRemoved, container: c.id}
	if c.call == nil {
		return c, []command{gone}
	}
	if c.ended.IsZero() {
		c.ended = now
	}
	outcome := platform.Outcome{Kind: v.kind, Message: v.message}
	switch {
	case exit.OutOfMemory && (v.kind == "" || v.kind == platform.TimedOut):
		outcome = platform.Outcome{
			Kind:    platform.OutOfMemory,
			Message: fmt.Sprintf("container exceeded its memory limit of %v and was killed", c.memory),
		}
		exit.Peak = c.memory
	case v.kind == "":
		outcome.Kind = platform.Lost
		if exit.Status != "" {
			outcome.Message += ": worker ended with " + exit.Status
		}
	}
	if outcome.Kind == platform.Lost && len(exit.Logs) > 0 {
		outcome.Message += "; its last output: " + strings.Join(lastWords(Texts(exit.Logs)), " | ")
	}
	settled := c.settle(outcome, exit.Peak, exit.Cache, exit.Logs, c.ended)
	c.call = nil
	return c, []command{settled, gone}
}

// messageLines is how many lines of a lost worker's output its message shows.
const messageLines = 3

// lastWords picks them: the last ones, or those where a Go program began to say
// why it crashed, before all its stacks.
func lastWords(logs []string) []string {
	begin := max(0, len(logs)-messageLines)
	for i, line := range logs {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			begin = i
			break
		}
	}
	return logs[begin:min(len(logs), begin+messageLines)]
}

// settle makes the command that ends c's call; until is when the call ended.
func (c container) settle(outcome platform.Outcome, peak, cache job.Bytes, logs []Line, until time.Time) command {
	outcome.Usage = platform.Usage{
		Container: c.id, Cold: c.fresh && !c.prewarmed, Warmed: c.fresh && c.prewarmed, Limit: c.memory, Peak: peak, Cache: cache,
		Wait: c.taken.Sub(c.call.submitted), Init: c.initTime,
	}
	switch {
	case c.initialised:
		outcome.Usage.Duration = until.Sub(c.began)
	default:
		outcome.Usage.Init = until.Sub(c.began)
	}
	c.ending.ended = until
	return command{kind: cmdSettle, container: c.id, work: c.work, call: c.call, outcome: outcome, logs: logs, ending: c.ending}
}
