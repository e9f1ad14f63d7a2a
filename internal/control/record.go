// SPDX-License-Identifier: Apache-2.0

package control

import (
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
	"disdel/internal/platform"
)

// Record reports the job as it stands.
func (s State) Record() job.Record {
	r := job.Record{Status: job.Running, Actions: []job.RecordAction{}}
	if s.Created == nil {
		return r
	}
	c := s.Created
	r.Job, r.Kind, r.Dataset = c.Job, c.Spec.Kind, c.Dataset.Name
	r.Epochs, r.Batch, r.Seed = c.Spec.Epochs, c.Spec.Batch, c.Spec.Seed
	r.Platform, r.Enforcement = c.Platform, c.Enforcement
	r.Model.Name = c.Spec.Model
	if c.Model != nil {
		r.Model = job.RecordModel{Name: c.Model.Name, Parameters: c.Model.Parameters, Digest: c.Model.Digest}
		r.KernelSet = c.Model.KernelSet
	}
	r.Strategy = c.Spec.Strategy
	if s.Resources != nil {
		r.AccuracyCost, r.AccuracyNote = s.Resources.AccuracyCost, s.Resources.AccuracyNote
	}
	if n := s.Numerics; n != nil {
		r.LocalBatch, r.Replicas, r.Rounds, r.KernelSet = n.LocalBatch, n.Replicas, n.Rounds(), n.KernelSet
		r.Sync = n.Sync
		if spec, err := nn.ParseSpec(n.Model); err == nil {
			r.Model.Parameters = spec.ParamCount()
		}
		r.Model.Digest = s.Digest
	}
	if e := s.Evaluation; e != nil && e.Records > 0 {
		r.Records, r.Confusion = e.Records, e.Confusion
		r.Loss = e.LossSum / float64(e.Records)
		correct := 0
		for i, row := range e.Confusion {
			correct += row[i]
		}
		r.Accuracy = float64(correct) / float64(e.Records)
	}
	r.Metrics, r.Actions = s.metrics()
	if f := s.Finished; f != nil {
		r.Status, r.Error = f.Status, f.Error
		r.Metrics.StorePeak, r.Metrics.ControllerPeak = f.StorePeak, f.ControllerPeak
	}
	return r
}

// failedKinds are the outcomes that cost a container.
var failedKinds = map[platform.Kind]bool{
	platform.OutOfMemory: true,
	platform.TimedOut:    true,
	platform.Lost:        true,
}

// died says that a container ended with the call.
func (e Ended) died() bool {
	return e.Kind == platform.OutOfMemory || e.Kind == platform.TimedOut || e.MaybeMemory
}

func (s State) metrics() (job.Metrics, []job.RecordAction) {
	type container struct {
		limit, peak job.Bytes
		failed      bool
	}
	// Each controller starts containers of its own, and a platform may give them
	// the names that those of another one had.
	type key struct {
		controller int
		name       string
	}
	containers := map[key]*container{}
	seen, open := map[int]int{}, map[int][]job.Bytes{} // by controller
	m := job.Metrics{DurationSeconds: s.UpdatedAt.Sub(s.StartedAt).Seconds()}
	actions := []job.RecordAction{}
	for _, a := range s.Attempts {
		row := job.RecordAction{Name: a.Action, Role: a.Task.Role, Replica: a.Task.Replica, MemoryLimit: a.Limit, Outcome: "running"}
		if a.Revision < len(s.Plans) {
			row.Predicted = s.Plans[a.Revision].Roles[a.Task.Role].Total()
		}
		if a.Ended == nil || a.Orphaned {
			open[a.Controller] = append(open[a.Controller], a.Limit)
		}
		if a.Ended == nil {
			actions = append(actions, row)
			continue
		}
		u := a.Ended.Usage
		row.Outcome = string(a.Ended.Kind)
		if a.Ended.Result != nil && (a.Ended.Result.Reason == job.NeedTime || a.Ended.Result.Reason == job.NeedPeer) {
			row.Outcome = string(a.Ended.Result.Reason)
			m.Handovers++
		}
		row.Container, row.Peak, row.Cold, row.Warmed = u.Container, u.Peak, u.Cold, u.Warmed
		row.DurationSeconds, row.InitSeconds, row.WaitSeconds = u.Duration.Seconds(), u.Init.Seconds(), u.Wait.Seconds()
		if a.Ended.Result != nil {
			row.StepSeconds = a.Ended.Result.StepTime.Seconds()
		}
		if u.Cold {
			m.ColdStarts++
		}
		if u.Warmed {
			m.Warmed++
		}
		actions = append(actions, row)
		if u.Container == "" {
			if !a.Ended.died() {
				continue
			}
			// A platform that does not name containers: a cold one is another one, a
			// warm one has answered before, and told its name.
			m.FailedContainers++
			if u.Cold {
				m.Containers++
				m.MemoryLimit += u.Limit
				m.MemoryPeak += u.Peak
				m.InitSeconds += u.Init.Seconds()
			}
			m.GBSeconds += float64(u.Limit) / float64(job.GB) * (u.Init + u.Duration).Seconds()
			continue
		}
		k := key{a.Controller, u.Container}
		c := containers[k]
		if c == nil {
			c = &container{}
			containers[k] = c
			seen[a.Controller]++
		}
		c.limit = max(c.limit, u.Limit)
		c.peak = max(c.peak, u.Peak)
		c.failed = c.failed || failedKinds[a.Ended.Kind]
		m.InitSeconds += u.Init.Seconds()
		m.GBSeconds += float64(u.Limit) / float64(job.GB) * (u.Init + u.Duration).Seconds()
	}
	for _, c := range containers {
		m.Containers++
		m.MemoryLimit += c.limit
		m.MemoryPeak += c.peak
		if c.failed {
			m.FailedContainers++
		}
	}
	for controller, limits := range open {
		// Calls under way are each in a container, which may have served before.
		for _, limit := range limits[min(seen[controller], len(limits)):] {
			m.Containers++
			m.MemoryLimit += limit
		}
	}
	if m.Containers > 0 {
		m.FailureRate = float64(m.FailedContainers) / float64(m.Containers)
	}
	return m, actions
}

// Progress says how far a job is, for people.
type Progress struct {
	// Phase is what the job does now: "probe", "data" while only that is waited for,
	// "train", "evaluate", "done".
	Phase string
	// Done and Total count training steps of all replicas, and then test pieces.
	Done, Total int
	// Round counts averages so far, Rounds all of them.
	Round, Rounds int
	// Loss is the mean training loss of the newest invocation that trained, 0
	// before there is one.
	Loss float64
	// Running is the number of invocations in flight.
	Running int
}

// Progress reports how far the job is.
func (s State) Progress() Progress {
	p := Progress{Phase: "probe", Running: s.Running}
	switch {
	case s.Finished != nil:
		p.Phase = "done"
	case s.Resources == nil:
	case !s.Staged:
		p.Phase = "data"
	case !s.trained():
		p.Phase = "train"
	default:
		p.Phase = "evaluate"
	}
	if s.Numerics != nil {
		p.Round, p.Rounds = s.Round, s.Numerics.Rounds()
		p.Total = s.Numerics.Steps * s.Numerics.Replicas
		p.Done = s.stepsDone()
		for replica := range s.Reached {
			if replica < len(s.Live) {
				p.Loss = s.Live[replica].Loss
				p.Round = max(p.Round, (s.reached(replica)-1)/s.Numerics.RoundSteps)
			}
		}
	} else {
		p.Total = len(s.Pieces)
		for _, done := range s.Pieces {
			if done {
				p.Done++
			}
		}
	}
	for i := len(s.Attempts) - 1; i >= 0 && p.Loss == 0; i-- {
		if a := s.Attempts[i]; a.Task.Role == job.RoleTrain && a.Ended != nil && a.Ended.Result != nil && a.Ended.Result.Records > 0 {
			p.Loss = a.Ended.Result.LossSum / float64(a.Ended.Result.Records)
			break
		}
	}
	return p
}

// reached is the step that a replica has taken, as far as anybody knows.
func (s State) reached(replica int) int {
	if replica < len(s.Live) {
		return max(s.Reached[replica], s.Live[replica].Step)
	}
	return s.Reached[replica]
}

// stepsDone sums up what the replicas have taken.
func (s State) stepsDone() (steps int) {
	for replica := range s.Reached {
		steps += s.reached(replica)
	}
	return steps
}

// paceTime is how long a job must have trained before its pace says more than
// the plan.
const paceTime = 2 * time.Second

// Left predicts how long the job still takes: the plan's figure, with the time
// that steps were measured to take, and stretched as the training so far was. ok
// is false where nothing is known, which is before and after training.
func (s State) Left(now time.Time) (left time.Duration, ok bool) {
	if s.Finished != nil || s.Resources == nil || !s.Staged || s.trained() {
		return 0, false
	}
	n, r := *s.Numerics, *s.Resources
	stepTime, steps := s.stepTime, s.steps
	for _, live := range s.Live {
		if live.Steps > 0 && live.StepTime > 0 {
			stepTime += live.StepTime
			steps += live.Steps
		}
	}
	if steps > 0 {
		stepTime /= time.Duration(steps)
	}
	done := s.stepsDone()
	each := func(total int) float64 { return float64(total) / float64(n.Replicas) }
	left = plan.TrainingTime(r, n, each(n.Steps*n.Replicas-done), stepTime)
	expected := plan.TrainingTime(r, n, each(done-s.paceFrom), stepTime)
	if took := now.Sub(s.paceAt); !s.paceAt.IsZero() && took >= paceTime && expected > 0 {
		left = time.Duration(float64(left) * (float64(took) / float64(expected)))
	}
	return left + plan.EvaluationTime(r, n), true
}
