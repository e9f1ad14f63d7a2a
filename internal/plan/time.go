// SPDX-License-Identifier: Apache-2.0

package plan

import (
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
	// step is one step of one replica; waves is how many times that all replicas
	// together take, which share containers and processors. round is all else that
	// a round takes.
	step, waves, round float64
}

// seconds is the time of a number of steps of every replica and of rounds.
func (p pace) seconds(steps, rounds float64) float64 { return steps*p.step*p.waves + rounds*p.round }

// traffic is a number of operations on a store and the bytes that they move.
type traffic struct{ operations, bytes float64 }

func (t traffic) seconds(probe job.Probe) float64 {
	s := t.operations * probe.StoreSeconds
	if probe.StoreRate > 0 {
		s += t.bytes / probe.StoreRate
	}
	return s
}

// roundTraffic returns what each replica does in a round, and what is done once.
// reads is what a replica reads of its shards, meet says that it stays for the
// next round.
func roundTraffic(n job.Numerics, parameters int, reads traffic, meet bool) (each, once traffic) {
	state, global := stateBytes(n, parameters)
	// The average is read, the state put.
	each = traffic{2 + reads.operations, float64(global+state) + reads.bytes}
	if meet {
		each.operations += 2 // Who has come is looked up, and progress told.
	} else {
		each.operations++ // the numerics plan
	}
	// All states and the last average are read, the new one put, the old deleted.
	once = traffic{float64(n.Replicas) + 3, float64(n.Replicas)*float64(state) + 2*float64(global)}
	return each, once
}

// stateBytes is the size of what a replica puts in the store after a round, and of
// what is made of all of them.
func stateBytes(n job.Numerics, parameters int) (state, global job.Bytes) {
	weights := valueBytes * job.Bytes(parameters)
	moments := weights * job.Bytes(nn.Optimizer(n.Local).Moments())
	if n.Sync == job.SyncStep {
		return weights, weights + moments // gradients; no outer momentum
	}
	return weights + moments, 2*weights + moments
}

// TrainingTime predicts how long a number of steps of every replica take, with
// their rounds. stepTime is what a step has been measured to take, 0 where that
// is not known.
func TrainingTime(r job.Resources, n job.Numerics, steps float64, stepTime time.Duration) time.Duration {
	p := pace{r.StepSeconds, r.Waves, r.RoundSeconds}
	if stepTime > 0 {
		p.step = stepTime.Seconds()
		// What was measured ran beside as many others as there are containers: its
		// time has their share of the processors in it.
		p.waves = float64(n.Replicas) / float64(max(1, min(r.Containers, n.Replicas)))
	}
	return seconds(p.seconds(steps, steps/float64(n.RoundSteps)))
}

// EvaluationTime predicts how long a training job takes after its training.
func EvaluationTime(r job.Resources, n job.Numerics) time.Duration {
	p := pace{r.StepSeconds, r.Waves, r.RoundSeconds}
	return max(0, seconds(r.Seconds-p.seconds(float64(n.Steps), float64(n.Rounds()))))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
