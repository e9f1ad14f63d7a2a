// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/plan"
	"disdel/internal/platform"
)

// Bounds on what is tried again.
const (
	// maxFailures is how often in a row a unit of work may be lost or refused by
	// the store.
	maxFailures = 4
	// maxAway is for how long in a row the platform may be out of reach.
	maxAway = 2 * time.Minute
	// maxThrottled is how often in a row it may be throttled.
	maxThrottled = 60
	// maxSuspects is how often in a row a unit may be lost in a way that may have
	// been for its memory limit: then it counts as that.
	maxSuspects = 2
	// maxWaited is how often in a row a replica may do little but wait for the
	// others before rounds are taken one by one, or a lost call is given up.
	maxWaited = 2
	// maxRevisions is how many resource plans a job may have, bruteRevisions how
	// many with the strategy that takes a little more each time.
	maxRevisions   = 12
	bruteRevisions = 400

	backoffFirst   = 100 * time.Millisecond
	backoffMost    = 5 * time.Second
	throttledPause = time.Second

	// probeGrowth is by how much a probe that ran out of memory grows where the
	// platform has no largest action, maxProbe where that ends.
	probeGrowth = 4
	maxProbe    = 4 * job.GB
)

// action is one thing for run to do. The closed set is below.
type action interface{ isAction() }

type (
	// note appends an event and has no other effect.
	note struct{ event Event }
	// adopt makes the numerics plan readable for workers and notes the plan.
	adopt struct{ planned Planned }
	// deploy makes the action exist.
	deploy struct {
		name    string
		memory  job.Bytes
		timeout time.Duration
		// warm is how many containers of it will be wanted, and can start meanwhile.
		warm int
	}
	// invoke starts an attempt.
	invoke struct{ invoked Invoked }
	// publish copies the model and enters it in the store's list.
	publish struct{}
	// export has the predictions written to the user's file.
	export struct{}
	// giveUp ends the waiting for an attempt, which then has failed.
	giveUp struct{ attempt int }
	// wait says when to decide again at the latest, if nothing happens before.
	wait struct{ until time.Time }
)

func (note) isAction()    {}
func (adopt) isAction()   {}
func (deploy) isAction()  {}
func (invoke) isAction()  {}
func (publish) isAction() {}
func (export) isAction()  {}
func (giveUp) isAction()  {}
func (wait) isAction()    {}

func fail(format string, args ...any) []action {
	return []action{note{Event{Finished: &Finished{Status: job.Failed, Error: fmt.Sprintf(format, args...)}}}}
}

// decide returns what to do next. It is pure: the same state and time give the
// same actions. An empty answer means that running attempts must end first.
func decide(s State, now time.Time) []action {
	if s.Finished != nil {
		return nil
	}
	limits, spec := s.Created.Limits, s.Created.Spec
	if s.Resources == nil {
		if err := plan.Check(spec, limits); err != nil {
			return fail("%v", err)
		}
		if s.Probe == nil {
			if !s.Staged && limits.LocalFiles {
				return nil // cutting data on the machine that is to be measured would slow it
			}
			return decideProbe(s, now)
		}
		return decidePlan(s)
	}
	if s.Created.PlanOnly {
		return conclude(s)
	}
	if acts := replan(s, now); acts != nil {
		return acts
	}
	r := *s.Resources
	if s.Deployed[r.ActionName()] != r.Timeout {
		d := deploy{name: r.ActionName(), memory: r.Memory, timeout: r.Timeout}
		if !s.Staged {
			d.warm = min(r.Containers, len(pending(s)))
		}
		return []action{d}
	}
	if !s.Staged {
		return nil
	}
	tasks := pending(s)
	if len(tasks) == 0 {
		return conclude(s)
	}
	return start(s, tasks, now)
}

// decideProbe measures in the smallest action that the platform offers, which
// is most likely the one that the job will use, and in the largest one if that
// was not enough. The machine of a single worker has no smallest action.
func decideProbe(s State, now time.Time) []action {
	limits, spec := s.Created.Limits, s.Created.Spec
	p := s.progress(unit{role: job.RoleProbe})
	if p.last != nil && p.last.Ended.Kind == platform.TimedOut {
		return fail("probe: %s; raise --timeout", p.last.Ended.Message)
	}
	if spec.Strategy == job.BruteForce {
		// What the user fixes is where brute force begins, and this is no part of it.
		spec.Memory, spec.Timeout = 0, 0
	}
	probe := job.Resources{Timeout: cmp.Or(spec.Timeout, limits.TimeoutDefault), Containers: 1}
	switch {
	case spec.Memory > 0:
		probe.Memory = spec.Memory
	case limits.MemoryMin > 0 && spec.Strategy != job.Single:
		probe.Memory = plan.CeilMemory(max(limits.MemoryMin, job.MB), limits)
	default:
		probe.Memory = plan.CeilMemory(max(limits.MemoryDefault, job.MB), limits)
	}
	if p.outgrown > 0 {
		largest := plan.LargestMemory(limits)
		if largest == 0 {
			largest = plan.CeilMemory(min(p.outgrown*probeGrowth, maxProbe), limits)
		}
		if p.outgrown >= largest || spec.Memory > 0 {
			return fail("infeasible: a worker does not fit into %v of memory; raise --memory or the platform's largest action", p.outgrown)
		}
		probe.Memory = largest
	}
	if s.Deployed[probe.ActionName()] != probe.Timeout {
		return []action{deploy{name: probe.ActionName(), memory: probe.Memory, timeout: probe.Timeout}}
	}
	s.Resources = &probe
	return start(s, []job.Task{{Role: job.RoleProbe, Job: s.Created.Job}}, now)
}

func decidePlan(s State) []action {
	c := s.Created
	planned := Planned{}
	var err error
	switch c.Spec.Kind {
	case job.Infer:
		planned.Resources, err = plan.Infer(c.Spec, c.Dataset, c.Model.Spec, c.Limits, *s.Probe)
	default:
		var n job.Numerics
		if n, err = plan.Numerics(c.Spec, c.Dataset, s.Probe.KernelSet); err != nil {
			break
		}
		planned.Numerics = &n
		if planned.Digest, err = n.Digest(); err != nil {
			break
		}
		planned.Resources, err = plan.Train(c.Spec, n, c.Limits, *s.Probe)
	}
	if err != nil {
		return fail("%v", err)
	}
	return []action{adopt{planned}}
}

// replan answers failures that another resource plan can mend. A failure under
// an older plan has been answered already.
func replan(s State, now time.Time) []action {
	for _, t := range pending(s) {
		p := s.progress(unitOf(t))
		if t.Meet && p.waited >= maxWaited {
			if acts, ok := afterWaiting(s, p, now); ok {
				return acts
			}
		}
		if p.last == nil || p.last.Revision != s.Resources.Revision {
			continue
		}
		var next job.Resources
		var err error
		switch e := p.last.Ended; {
		case e.Kind == platform.OutOfMemory, e.MaybeMemory && p.suspects >= maxSuspects:
			next, err = plan.AfterOutOfMemory(*s.Resources, s.Created.Spec, s.Created.Limits, t.Role)
		case e.TooLarge:
			next, err = plan.AfterTooLarge(*s.Resources, s.Created.Spec, s.Created.Limits, t.Role)
		case e.Kind == platform.TimedOut:
			next, err = plan.AfterTimeout(*s.Resources, s.Created.Spec, s.Created.Limits, t.Role)
		default:
			continue
		}
		if err != nil {
			return fail("%s: %s: %v", unitOf(t), p.last.Ended.Message, err)
		}
		most := maxRevisions
		if s.Created.Spec.Strategy == job.BruteForce {
			most = bruteRevisions
		}
		if next.Revision >= most {
			return fail("%s: %s; gave up after %d plans", unitOf(t), p.last.Ended.Message, next.Revision)
		}
		return []action{note{Event{Replanned: &Replanned{Resources: next}}}}
	}
	return nil
}

// afterWaiting answers a replica that did little but wait for the others. ok is
// false if it may as well wait on: a call that was made before the wait has not
// ended, so the call may be lost, and then it says nothing of what the platform
// runs at once. Once it is older than any call that runs, it is given up, so that
// its replica is invoked again: whatever it still does gives the same bytes. One
// whose last call failed already is not given up again.
func afterWaiting(s State, p progress, now time.Time) (acts []action, ok bool) {
	for _, a := range s.Attempts[:p.waiter] {
		if a.Ended != nil || a.Task.Role != job.RoleTrain || s.progress(unitOf(a.Task)).failures > 0 {
			continue
		}
		if now.Sub(a.At) < s.Resources.Timeout {
			return nil, false
		}
		return []action{giveUp{a.Attempt}}, true
	}
	return []action{note{Event{Replanned: &Replanned{Resources: plan.AfterWaiting(*s.Resources)}}}}, true
}

// pending lists the tasks that must succeed before the job can go on, the
// running ones included, in a fixed order.
func pending(s State) []job.Task {
	var tasks []job.Task
	id := s.Created.Job
	if !s.trained() {
		n := *s.Numerics
		round := min(s.Round, n.Rounds()-1)
		start, end := round*n.RoundSteps, n.RoundEnd(round)
		meet, last := s.Resources.SpanRounds > 1, end
		if meet {
			// A replica at the end of a round waits there for the others, who may
			// be further than the log knows.
			last = n.Steps
		}
		for replica, reached := range s.Reached {
			if from := max(reached, start); from < last {
				first := from / n.RoundSteps
				tasks = append(tasks, job.Task{
					Role: job.RoleTrain, Job: id, Plan: s.Plan, Replica: replica, From: from, Meet: meet,
					To: n.RoundEnd(min(first+max(s.Resources.SpanRounds, 1), n.Rounds()) - 1), Budget: s.Resources.Budget,
					Whole: s.Created.Spec.Strategy == job.BruteForce,
				})
			}
		}
		if len(tasks) == 0 {
			tasks = append(tasks, job.Task{Role: job.RoleAverage, Job: id, Plan: s.Plan, From: start, To: end})
		}
		return tasks
	}
	d := s.Created.Dataset
	d.ClassNames = nil // no worker reads them, and they can be many
	shards := d.Shards(job.TestPart)
	for piece, done := range s.Pieces {
		if !done {
			tasks = append(tasks, job.Task{
				Role: job.RoleInfer, Job: id, Model: s.modelKey(), Dataset: &d, Batch: s.Resources.InferBatch, Piece: piece,
				Predict:   s.Created.Spec.Output != "",
				ShardFrom: shards * piece / len(s.Pieces), ShardTo: shards * (piece + 1) / len(s.Pieces),
			})
		}
	}
	if len(tasks) == 0 && s.Evaluation == nil {
		tasks = append(tasks, job.Task{Role: job.RoleEvaluate, Job: id, Dataset: &d, Pieces: len(s.Pieces)})
	}
	return tasks
}

func (s State) modelKey() string {
	if s.Created.Model != nil {
		return job.ModelKey(s.Created.Model.Digest)
	}
	return s.keys().Final()
}

// start invokes the tasks that are not running, as many as the plan allows.
func start(s State, tasks []job.Task, now time.Time) []action {
	var acts []action
	var until time.Time
	running, attempt := s.Running, len(s.Attempts)
	for _, t := range tasks {
		u := unitOf(t)
		p := s.progress(u)
		if p.running {
			continue
		}
		if p.last != nil {
			if reason := hopeless(p); reason != "" {
				return fail("%s: %s", u, reason)
			}
			if ready := notBefore(p); ready.After(now) {
				if until.IsZero() || ready.Before(until) {
					until = ready
				}
				continue
			}
		}
		if running >= s.Resources.Containers {
			break
		}
		t = s.Resources.Equip(t)
		t.Kernel = s.Created.Spec.KernelForm()
		acts = append(acts, invoke{Invoked{
			Attempt: attempt, Action: s.Resources.ActionName(), Revision: s.Resources.Revision,
			Limit: s.Resources.Memory, Task: t,
		}})
		running++
		attempt++
	}
	if !until.IsZero() {
		acts = append(acts, wait{until})
	}
	return acts
}

// hopeless says why a unit is not tried again, or "".
func hopeless(p progress) string {
	e := p.last.Ended
	switch e.Kind {
	case platform.ApplicationError:
		switch {
		case e.Result == nil:
			return e.Message
		case e.Result.Reason == job.Corrupt:
			return e.Message + "; what was stored is damaged, so start the job anew"
		case e.Result.Reason != job.StoreFailed:
			return e.Message
		}
	case platform.Refused, platform.Unauthorised:
		if e.TooLarge && p.last.Task.Role != job.RoleProbe {
			return "" // answered by another plan
		}
		return e.Message
	case platform.OutOfMemory, platform.TimedOut:
		// Answered by another plan, whose number is bounded.
		return ""
	default:
		// Bounded by the counts below.
	}
	if p.away > 0 {
		if away := p.lastAt.Sub(p.awayAt); away >= maxAway {
			return fmt.Sprintf("%s; gave up after the platform was out of reach for %v", e.Message, away.Round(time.Second))
		}
		return ""
	}
	if p.failures >= maxFailures {
		return fmt.Sprintf("%s; gave up after %d failures in a row", e.Message, p.failures)
	}
	if p.throttled >= maxThrottled {
		return fmt.Sprintf("%s; gave up after it was throttled %d times in a row", e.Message, p.throttled)
	}
	return ""
}

// notBefore is when a failed unit may be tried again: at once after its first
// loss, then after pauses that double; a throttled one after a second. While the
// platform is out of reach there is a pause from the first time on.
func notBefore(p progress) time.Time {
	if p.away > 0 {
		return p.lastAt.Add(backoff(p.away))
	}
	switch p.last.Ended.Kind {
	case platform.Throttled:
		if until := p.last.Ended.NotBefore; until.After(p.lastAt) {
			return until
		}
		return p.lastAt.Add(throttledPause)
	case platform.OutOfMemory, platform.TimedOut:
		return p.lastAt
	default:
		if p.failures <= 1 {
			return p.lastAt
		}
		return p.lastAt.Add(backoff(p.failures - 1))
	}
}

// backoff is the pause after the try-th failure in a row, counted from 1.
func backoff(try int) time.Duration {
	const doublings = 10 // more would be over the most
	return min(backoffFirst<<min(try-1, doublings), backoffMost)
}

// conclude ends a job that has nothing left to compute. It does not wait for
// attempts that still run: nobody needs what they do, and the end of the job
// ends them.
func conclude(s State) []action {
	if s.Created.Spec.Kind == job.Train && !s.Created.PlanOnly && !s.Published {
		return []action{publish{}}
	}
	if s.Created.Spec.Output != "" && !s.Exported {
		return []action{export{}}
	}
	return []action{note{Event{Finished: &Finished{Status: job.Succeeded}}}}
}
