// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// State is what the events so far amount to. Only fold changes it: a state that
// was passed to fold must not be used again.
type State struct {
	Created   *Created
	StartedAt time.Time
	UpdatedAt time.Time

	Probe     *job.Probe
	Numerics  *job.Numerics
	Plan      string // digest of Numerics
	Resources *job.Resources
	// Plans are all resource plans so far, by revision.
	Plans []*job.Resources
	// Deployed are the actions that exist, and their time limits.
	Deployed map[string]time.Duration
	// Controllers counts the controllers that took the job over.
	Controllers int

	Attempts []Attempt
	Running  int

	// Round counts the averages so far; Reached is the step at which each
	// replica's newest state is. Obsolete are the steps of states in the store
	// that nothing will read again, to be swept.
	Round    int
	Reached  []int
	Obsolete []string

	Pieces     []bool // infer pieces that are done
	Evaluation *job.TaskResult
	Digest     string // of the trained model, from the last average
	Published  bool
	Exported   bool
	// Staged says that workers find all of the data in the store.
	Staged bool

	Finished *Finished

	// stepTime is what steps training steps took, over all invocations. paceAt is
	// when this controller first had something trained, paceFrom how many steps the
	// replicas together had taken then.
	stepTime time.Duration
	steps    int
	paceAt   time.Time
	paceFrom int

	// Live is what the replicas last said of themselves; no events make it.
	Live []job.ReplicaProgress

	units map[unit]*progress
}

// Attempt is one invocation.
type Attempt struct {
	Invoked
	// Controller is the one that made it, counted from 0.
	Controller int
	At         time.Time
	Ended      *Ended
	// Orphaned says that its controller went away first: nobody knows what it used.
	Orphaned bool
}

// unit names a piece of work that must succeed once before the job goes on.
type unit struct {
	role  job.Role
	index int // replica or piece
}

func unitOf(t job.Task) unit {
	switch t.Role {
	case job.RoleTrain:
		return unit{t.Role, t.Replica}
	case job.RoleInfer:
		return unit{t.Role, t.Piece}
	default:
		return unit{t.Role, 0}
	}
}

func (u unit) String() string {
	switch u.role {
	case job.RoleTrain:
		return fmt.Sprintf("train replica %d", u.index)
	case job.RoleInfer:
		return fmt.Sprintf("infer piece %d", u.index)
	default:
		return string(u.role)
	}
}

// progress is how a unit stands.
type progress struct {
	running bool
	// failures in a row, without those that have counters of their own:
	// throttled is how often in a row it was throttled; running out of memory
	// and time is answered by other plans.
	failures, throttled int
	// away is how often in a row, up to now, the platform was out of reach, awayAt
	// when that began.
	away   int
	awayAt time.Time
	// suspects is how often in a row it was lost in a way that may have been for
	// the memory limit, under the same resource plan.
	suspects int
	outgrown job.Bytes // the largest limit that it ran out of
	// waited is how often in a row it did little but wait for the others, waiter
	// the last attempt that did.
	waited, waiter int
	last           *Attempt // the last failure
	lastAt         time.Time
}

// fold applies one event. An event that cannot follow the ones before it is an
// error: the log is not this program's, or not of its version.
func fold(s State, e Event) (State, error) {
	if s.Finished != nil {
		return s, fmt.Errorf("event after the job has finished")
	}
	if (s.Created == nil) != (e.Created != nil) {
		return s, fmt.Errorf("a job's log starts with one created event and has no other")
	}
	s.UpdatedAt = e.At
	switch {
	case e.Created != nil:
		if err := e.Created.check(); err != nil {
			return s, err
		}
		s.Created, s.StartedAt, s.Staged = e.Created, e.At, !e.Created.Staging
		s.Deployed = map[string]time.Duration{}
		s.units = map[unit]*progress{}
	case e.Staged != nil:
		s.Staged = true
	case e.Probed != nil:
		s.Probe = &e.Probed.Probe
	case e.Planned != nil:
		if err := e.Planned.check(s); err != nil {
			return s, err
		}
		s.Numerics, s.Plan, s.Resources = e.Planned.Numerics, e.Planned.Digest, &e.Planned.Resources
		s.Plans = []*job.Resources{s.Resources}
		s.Pieces = make([]bool, s.Resources.InferPieces)
		if s.Numerics != nil {
			s.Reached = make([]int, s.Numerics.Replicas)
		}
	case e.Replanned != nil:
		if next := e.Replanned.Resources.Revision; next != len(s.Plans) || next == 0 {
			return s, fmt.Errorf("resource plan %d follows %d plans", next, len(s.Plans))
		}
		s.Resources = &e.Replanned.Resources
		s.Plans = append(s.Plans, s.Resources)
	case e.Deployed != nil:
		s.Deployed[e.Deployed.Action] = e.Deployed.Timeout
	case e.Invoked != nil:
		if e.Invoked.Attempt != len(s.Attempts) {
			return s, fmt.Errorf("attempt %d follows %d attempts", e.Invoked.Attempt, len(s.Attempts))
		}
		if r := e.Invoked.Revision; r < 0 || r > 0 && r >= len(s.Plans) {
			return s, fmt.Errorf("attempt %d is of resource plan %d of %d", e.Invoked.Attempt, r, len(s.Plans))
		}
		if err := s.checkTask(e.Invoked.Task); err != nil {
			return s, fmt.Errorf("attempt %d: %w", e.Invoked.Attempt, err)
		}
		s.Attempts = append(s.Attempts, Attempt{Invoked: *e.Invoked, Controller: s.Controllers, At: e.At})
		s.Running++
		s.unit(unitOf(e.Invoked.Task)).running = true
		if e.Invoked.Task.Role == job.RoleTrain && s.paceAt.IsZero() {
			s.paceAt, s.paceFrom = e.At, s.stepsDone()
		}
	case e.Ended != nil:
		if e.Ended.Attempt < 0 || e.Ended.Attempt >= len(s.Attempts) || s.Attempts[e.Ended.Attempt].Ended != nil {
			return s, fmt.Errorf("attempt %d ended, which was not running", e.Ended.Attempt)
		}
		if e.Ended.Kind == platform.Success {
			if err := checkResult(s.Numerics, s.Attempts[e.Ended.Attempt].Task, e.Ended.Result); err != nil {
				return s, fmt.Errorf("attempt %d: %w", e.Ended.Attempt, err)
			}
		}
		s = ended(s, *e.Ended, e.At)
	case e.Published != nil:
		s.Published = true
	case e.Exported != nil:
		s.Exported = true
	case e.Resumed != nil:
		for i := range s.Attempts {
			if attempt := &s.Attempts[i]; attempt.Ended == nil {
				// No failure of the unit.
				attempt.Ended = &Ended{Attempt: i, Kind: platform.Lost, Message: "the controller was restarted"}
				attempt.Orphaned = true
				s.Running--
				s.unit(unitOf(attempt.Task)).running = false
			}
		}
		// However often controllers are replaced, the job goes on.
		for _, p := range s.units {
			p.failures, p.throttled, p.suspects, p.waited, p.away = 0, 0, 0, 0, 0
		}
		s.Controllers++
		s.paceAt = time.Time{}
		// The platform has forgotten the actions of a controller that is gone.
		s.Deployed = map[string]time.Duration{}
	case e.Finished != nil:
		s.Finished = e.Finished
	default:
		return s, fmt.Errorf("event of an unknown kind")
	}
	return s, nil
}

// progress returns how a unit stands, for reading.
func (s State) progress(u unit) progress {
	if p := s.units[u]; p != nil {
		return *p
	}
	return progress{}
}

func (s State) unit(u unit) *progress {
	p := s.units[u]
	if p == nil {
		p = &progress{}
		s.units[u] = p
	}
	return p
}

func ended(s State, e Ended, at time.Time) State {
	attempt := &s.Attempts[e.Attempt]
	attempt.Ended = &e
	s.Running--
	p := s.unit(unitOf(attempt.Task))
	p.running = false
	if !e.Away {
		p.away = 0
	} else if p.away++; p.away == 1 {
		p.awayAt = at
	}
	if e.Undeployed {
		delete(s.Deployed, attempt.Action)
	}
	if e.Kind != platform.Success {
		if p.last != nil && p.last.Task.From != attempt.Task.From {
			p.failures, p.throttled = 0, 0 // others have taken the job past that work
		}
		switch {
		case e.Away:
		case e.Kind == platform.Throttled:
			p.throttled++
		case e.Kind == platform.OutOfMemory:
			p.outgrown = max(p.outgrown, attempt.Limit)
		case e.Kind == platform.TimedOut:
		default:
			p.failures++
		}
		if p.last != nil && p.last.Revision != attempt.Revision {
			p.suspects = 0
		}
		if e.MaybeMemory {
			p.suspects++
		}
		if p.suspects >= maxSuspects {
			// Answered by another plan, like memory that was surely too little.
			p.outgrown, p.failures = max(p.outgrown, attempt.Limit), 0
		}
		if attempt.Task.Role == job.RoleTrain && e.Kind != platform.Throttled {
			// That is what the others have waited for.
			for _, other := range s.units {
				other.waited = 0
			}
		}
		p.last, p.lastAt = &Attempt{Invoked: attempt.Invoked, Controller: attempt.Controller, At: attempt.At, Ended: &e}, at
		return s
	}
	p.failures, p.throttled, p.suspects, p.last = 0, 0, 0, nil
	if onlyWaited(s.Numerics, attempt.Task, *e.Result) {
		p.waited++
		p.waiter = e.Attempt
	} else {
		p.waited = 0
	}
	return succeeded(s, attempt.Task, *e.Result)
}

// onlyWaited says whether an invocation that met others spent most of its time
// on waiting for them, and got hardly further by it.
func onlyWaited(n *job.Numerics, t job.Task, r job.TaskResult) bool {
	return t.Role == job.RoleTrain && r.Reason == job.NeedPeer &&
		r.Step-t.From <= 2*n.RoundSteps && r.StepTime < t.Budget/2
}

// succeeded applies a result, unless the job has moved past it.
func succeeded(s State, t job.Task, r job.TaskResult) State {
	switch t.Role {
	case job.RoleProbe:
		if s.Probe == nil {
			s.Probe = r.Probe
		}
	case job.RoleTrain:
		if r.Step > s.Reached[t.Replica] {
			if t.From%s.Numerics.RoundSteps != 0 {
				s.Obsolete = append(s.Obsolete, s.keys().Replica(t.Replica, t.From))
			}
			s.Reached[t.Replica] = r.Step
		}
		if r.Steps > 0 && r.StepTime > 0 {
			s.steps += r.Steps
			s.stepTime += r.StepTime
		}
		s = averaged(s, r.Round, r.Digest)
	case job.RoleAverage:
		s = averaged(s, max(r.Round, t.From/s.Numerics.RoundSteps+1), r.Digest)
	case job.RoleInfer:
		s.Pieces[t.Piece] = true
	case job.RoleEvaluate:
		s.Evaluation = &r
	case job.RoleNothing: // No job has such a task.
	}
	return s
}

// averaged says that the averages of the first rounds exist. All replicas have
// read the average at the start of a round whose end is averaged, and nobody
// will read their states there again. What the last average is made of is kept
// until its digest is known.
func averaged(s State, rounds int, digest string) State {
	n, keys := s.Numerics, s.keys()
	for ; s.Round < min(rounds, n.Rounds()); s.Round++ {
		if s.Round == n.Rounds()-1 {
			continue
		}
		if start := s.Round * n.RoundSteps; start > 0 {
			s.Obsolete = append(s.Obsolete, keys.Global(start))
		}
		for replica := range n.Replicas {
			s.Obsolete = append(s.Obsolete, keys.Replica(replica, n.RoundEnd(s.Round)))
		}
	}
	if digest != "" {
		s.Digest = digest
	}
	return s
}

func (s State) keys() job.Keys { return job.Keys{Job: s.Created.Job, Plan: s.Plan} }

// trained reports whether nothing is left to train.
func (s State) trained() bool {
	return s.Numerics == nil || s.Round == s.Numerics.Rounds() && s.Digest != ""
}
