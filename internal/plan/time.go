// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
)

const (
	// callSeconds is the time of one warm invocation beside its work and the
	// store: the call, the answer, the log before and after, memory taken and
	// given back.
	callSeconds = 0.006
	// pollSeconds is how long a replica that waits for an average looks for it in
	// vain, on average.
	pollSeconds = 0.002
)

// pace is what a training job's time is made of.
type pace struct {
	// step is one step of one replica on one processor; round is all else that a
	// round takes.
	step, round float64
	parallel    int
}

// seconds is the time of a number of steps of every replica and of rounds.
func (p pace) seconds(steps, rounds float64, replicas int) float64 {
	return steps*p.step*float64(replicas)/float64(p.parallel) + rounds*p.round
}

// traffic is a number of operations on a store and the bytes that they move.
type traffic struct{ operations, bytes float64 }

func (t traffic) seconds(probe job.Probe) float64 {
	s := t.operations * probe.StoreSeconds
	if probe.StoreRate > 0 {
		s += t.bytes / probe.StoreRate
	}
	return s
}

// predictTime adds to a training plan how long it takes, and what gradients at
// every step cost.
func predictTime(r *job.Resources, n job.Numerics, m model, limits job.Limits, probe job.Probe, flops nn.FLOPs) {
	p := pace{
		step:     rate(flops.Forward+flops.Backward, probe.FLOPS),
		parallel: max(1, min(r.Containers, max(limits.Processors, 1), n.Replicas)),
	}
	each, once := roundTraffic(n, m, r.SpanRounds > 1)
	waves := float64(n.Replicas) / float64(p.parallel)
	p.round = each.seconds(probe)*waves + once.seconds(probe)
	if r.SpanRounds > 1 {
		p.round += pollSeconds
		r.Seconds += callSeconds
	} else {
		p.round += callSeconds * (waves + 1)
	}
	r.StepSeconds, r.RoundSeconds, r.Parallel = p.step, p.round, p.parallel
	training := p.seconds(float64(n.Steps), float64(n.Rounds()), n.Replicas)
	r.Seconds += training
	if n.Sync == job.SyncStep {
		r.Explanation = append(r.Explanation, fmt.Sprintf(
			"sync: %d rounds; in each a replica moves %v and whoever averages %v more: %.1f of %.1f s of training.",
			n.Rounds(), job.Bytes(each.bytes), job.Bytes(once.bytes), float64(n.Rounds())*p.round, training))
	}
}

// roundTraffic returns what each replica does in a round, and what is done once.
func roundTraffic(n job.Numerics, m model, meet bool) (each, once traffic) {
	weights := 4 * float64(m.parameters)
	moments := weights * float64(nn.Optimizer(n.Local).Moments())
	state, global := weights+moments, 2*weights+moments
	records := float64(n.RoundSteps * n.LocalBatch)
	if n.Sync == job.SyncStep {
		// The window goes through all records, of which the replica has a part.
		state, global = weights, weights+moments
		records = float64(n.RoundSteps * n.Batch)
	}
	// The average is read, the state put.
	each = traffic{2, global + state}
	if meet {
		// Who has come is looked up, and progress told.
		each.operations += 2
	} else {
		// The window does not outlive an invocation.
		records = max(records, float64(min(n.Dataset.ShardRecords, n.ReplicaRecords(0))))
		each.operations++ // the numerics plan
	}
	each.bytes += records * float64(n.Dataset.RecordBytes())
	each.operations += records / float64(max(1, n.Dataset.ShardRecords))
	// All states and the last average are read, the new one put, the old deleted.
	once = traffic{float64(n.Replicas) + 3, float64(n.Replicas)*state + 2*global}
	return each, once
}

// TrainingTime predicts how long a number of steps of every replica take, with
// their rounds. stepTime is what a step has been measured to take, 0 where that
// is not known.
func TrainingTime(r job.Resources, n job.Numerics, steps float64, stepTime time.Duration) time.Duration {
	p := pace{r.StepSeconds, r.RoundSeconds, max(1, r.Parallel)}
	if stepTime > 0 {
		p.step = stepTime.Seconds()
		// What was measured ran beside as many others as there are containers: its
		// time has their share of the processors in it.
		p.parallel = max(1, min(r.Containers, n.Replicas))
	}
	return seconds(p.seconds(steps, steps/float64(n.RoundSteps), n.Replicas))
}

// EvaluationTime predicts how long a training job takes after its training.
func EvaluationTime(r job.Resources, n job.Numerics) time.Duration {
	p := pace{r.StepSeconds, r.RoundSeconds, max(1, r.Parallel)}
	return max(0, seconds(r.Seconds-p.seconds(float64(n.Steps), float64(n.Rounds()), n.Replicas)))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
