// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Function is an action of a front end that keeps actions of its own, such as
// package whiskapi. It is not deployed: each call brings it along. It must not
// be changed after the first call.
type Function struct {
	// Key identifies the function: containers serve all functions of one key.
	Key string
	// Name and Version are the action's; Path is its name in full,
	// "/namespace/package/action".
	Name, Version, Path string
	// Image is what to run, for drivers that run images; "" is the driver's own.
	Image   string
	Memory  job.Bytes
	Timeout time.Duration // of one /init and of one /run
	// Env are the init-only parameters; they may hold credentials.
	Env map[string]string
	// Main, Code and Binary as in InitRequest.
	Main, Code string
	Binary     bool
	// Arrays says that a result may be a JSON array.
	Arrays bool
	// Reschedule says that a warm container that answers with status 503 is to be
	// replaced and the call made again.
	Reschedule bool
	// Linger is how long a container is busy after it has answered: elsewhere its
	// output is collected then.
	Linger time.Duration
	// Sentinels says that a container which does not end its output on both
	// streams must not be used again.
	Sentinels bool
}

// Request is a call of a function. Params is a JSON value that the front end
// has checked and bounded.
type Request struct {
	Activation             platform.Activation
	Namespace, Transaction string
	APIKey                 string // for the worker; "" is none
	Params                 json.RawMessage
}

// Phase is how far a call came.
type Phase uint8

// The phases, in order.
const (
	PhaseStart Phase = iota // no container was ready for it
	PhaseInit
	PhaseRun
)

// Ended is how a call of a function ended.
type Ended struct {
	Outcome platform.Outcome
	// Phase is the one in which it ended.
	Phase Phase
	// Reply is the worker's answer in that phase; nil when it gave none.
	Reply *Reply
	// Err is what went wrong in starting a container or in speaking to it.
	Err error
	// InitBegan and RunBegan are when a phase began; zero when it did not.
	InitBegan, RunBegan time.Time
	// Ended is when the last phase ended.
	Ended time.Time
	Logs  []Line
	// Sentinels as in Answer.
	Sentinels int
}

// Submit starts one call of a function. Its end comes on the channel, once,
// also when the pool is closed meanwhile. Errors as those of Invoke; the
// function's limits are the front end's to check: a call whose memory is more
// than the pool's waits for ever, and all calls behind it.
func (p *Pool) Submit(ctx context.Context, f *Function, req Request) (<-chan Ended, error) {
	ended := make(chan Ended, 1)
	accepted := &call{
		id: req.Activation, action: f.Name, params: req.Params, request: req, ended: ended,
		work: &deployment{action: f.Name, memory: f.Memory, timeout: f.Timeout, env: f.Env, image: f.Image, function: f},
	}
	err := p.do(ctx, func(now time.Time) ([]command, error) { return p.machine.submit(accepted, now) })
	if err != nil {
		return nil, fmt.Errorf("invoke %s: %w", f.Path, err)
	}
	return ended, nil
}

func makeEnded(cmd command) Ended {
	e := cmd.ending
	return Ended{
		Outcome: cmd.outcome, Phase: e.phase, Reply: e.reply, Err: e.err, InitBegan: e.initBegan, RunBegan: e.runBegan,
		Ended: e.ended, Logs: cmd.logs, Sentinels: e.sentinels,
	}
}

// redactBody takes init-only parameters out of what a worker answered, whatever
// that is.
func redactBody(body []byte, secrets platform.Secrets) []byte {
	if json.Valid(body) {
		return redactResult(body, secrets)
	}
	return []byte(secrets.Redact(string(body)))
}

// deployed reports whether the pool keeps the action.
func (d *deployment) deployed() bool { return d.function == nil && !d.cell }

// stem returns a stem cell of exactly this image and memory, a started one if
// there is one.
func (m *machine) stem(work *deployment) *container {
	var best *container
	for _, c := range m.containers {
		if c.work.cell && c.idle() && c.work.image == work.image && c.work.memory == work.memory &&
			(best == nil || c.state == stateStarted && best.state == stateStarting) {
			best = c
		}
	}
	return best
}

// fill starts the stem cells that are missing, with memory that nobody needs
// now.
func (m *machine) fill(now time.Time) []command {
	if m.closed || now.Before(m.cellsFrom) {
		return nil
	}
	m.cellsFrom = time.Time{} // also when there is no room now: else nextWake would stay in the past
	if len(m.queue) > 0 {
		return nil
	}
	var commands []command
	for _, cell := range m.cfg.StemCells {
		missing := cell.Count
		for _, c := range m.containers {
			if c.work.cell && c.work.image == cell.Image && c.work.memory == cell.Memory && c.state != stateRemoving {
				missing--
			}
		}
		for ; missing > 0 && m.booked+cell.Memory <= m.cfg.PoolMemory; missing-- {
			work := &deployment{memory: cell.Memory, image: cell.Image, cell: true}
			commands = append(commands, m.create(work, message{kind: msgStart}, now)...)
		}
	}
	return commands
}

// cellPause is how long no stem cell is started after one could not be.
const cellPause = 10 * time.Second

// Status is a glance at the pool.
type Status struct {
	// Queued and Running count calls; Idle, Busy and Cells count containers.
	Queued, Running   int
	Idle, Busy, Cells int
	// Booked is the sum of the containers' memory limits.
	Booked job.Bytes
}

// Status returns how much is going on.
func (p *Pool) Status(ctx context.Context) (s Status, err error) {
	err = p.do(ctx, func(time.Time) ([]command, error) {
		m := p.machine
		s = Status{Queued: len(m.queue), Running: len(m.calls) - len(m.queue), Booked: m.booked}
		for _, c := range m.containers {
			switch {
			case c.work.cell && c.idle():
				s.Cells++
			case c.idle():
				s.Idle++
			default:
				s.Busy++
			}
		}
		return nil, nil
	})
	return s, err
}
