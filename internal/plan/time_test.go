// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/plan"
)

// planTime plans a job on mnist's sizes with a worker of given rates.
func planTime(t *testing.T, spec job.Spec, probe job.Probe) (job.Numerics, job.Resources) {
	t.Helper()
	return planWithin(t, spec, probe, job.Limits{MemoryDefault: 256 * job.MB, TimeoutDefault: time.Minute, Processors: 2, PoolMemory: 2 * job.GB})
}

func planWithin(t *testing.T, spec job.Spec, probe job.Probe, limits job.Limits) (job.Numerics, job.Resources) {
	t.Helper()
	spec.Kind, spec.Dataset = job.Train, "x"
	spec = spec.WithDefaults()
	data := job.Dataset{Name: "x", Height: 28, Width: 28, Channels: 1, Classes: 10, Train: 60_000, Test: 10_000, ShardRecords: 1000}
	n, err := plan.Numerics(spec, data, "k")
	if err != nil {
		t.Fatal(err)
	}
	r, err := plan.Train(spec, n, limits, probe)
	if err != nil {
		t.Fatal(err)
	}
	return n, r
}

var (
	quick = job.Probe{KernelSet: "k", Package: 9 * job.MB, FLOPS: 1e12, StoreRate: 1e12}
	usual = job.Probe{KernelSet: "k", Package: 9 * job.MB, FLOPS: 1e10, StoreRate: 1e9, StoreSeconds: 1e-3}
)

// TestTime_WhatItIsMadeOf: operations and bytes of the store, calls and steps all
// add to the predicted time, and as much as there are of them.
func TestTime_WhatItIsMadeOf(t *testing.T) {
	few, many := job.Spec{Replicas: 2, Rounds: 10}, job.Spec{Replicas: 2, Rounds: 1000}
	slow := quick
	slow.StoreSeconds = 0.1
	_, base := planTime(t, few, slow)
	n, more := planTime(t, many, slow)
	rounds := float64(n.Rounds() - 10)
	// At least the state put, the average read, and for the one who averages two
	// states and an average read and one put: in a row, one replica beside the other.
	if got := (more.Seconds - base.Seconds) / rounds; got < 0.6 || got > 1.5 {
		t.Errorf("a round of operations of 0.1 s costs %v s", got)
	}
	slow = quick
	slow.StoreRate = 1e6
	_, base = planTime(t, few, slow)
	n, more = planTime(t, many, slow)
	// 347,000 parameters and two moments in a state of 4.2 MB: the same six times.
	if got := (more.Seconds - base.Seconds) / float64(n.Rounds()-10); got < 6*4.1 || got > 6*4.2+10 {
		t.Errorf("a round of 1 MB a second costs %v s", got)
	}
	few.Containers, many.Containers = 1, 1
	_, base = planTime(t, few, quick)
	n, more = planTime(t, many, quick)
	// Three calls: each replica's, and the average's.
	if got := (more.Seconds - base.Seconds) / float64(n.Rounds()-10); got < 3*0.003 || got > 3*0.03 {
		t.Errorf("a round of three calls costs %v s", got)
	}
	_, meeting := planTime(t, job.Spec{Replicas: 2, Rounds: 1000}, quick)
	if meeting.Seconds > more.Seconds/2 {
		t.Errorf("%v s where replicas meet, %v where they do not", meeting.Seconds, more.Seconds)
	}
}

// TestTime_Corrected: what steps were measured to take replaces what the plan
// expected of them, and all steps together are the plan's prediction.
func TestTime_Corrected(t *testing.T) {
	for _, spec := range []job.Spec{{}, {Sync: job.SyncStep}, {Replicas: 8, Containers: 3}, {Replicas: 1}} {
		n, r := planTime(t, spec, usual)
		whole := plan.TrainingTime(r, n, float64(n.Steps), 0)
		rest := plan.EvaluationTime(r, n)
		if total := (whole + rest).Seconds(); total < 0.99*r.Seconds || total > 1.01*r.Seconds {
			t.Errorf("%+v: %v and %v of %v s", spec, whole, rest, r.Seconds)
		}
		half := plan.TrainingTime(r, n, float64(n.Steps)/2, 0)
		if half < 49*whole/100 || half > 51*whole/100 {
			t.Errorf("%+v: half of %v is %v", spec, whole, half)
		}
		// A second a step, replicas beside each other as there are containers.
		waves := float64(n.Replicas) / float64(min(n.Replicas, r.Containers))
		slow, want := plan.TrainingTime(r, n, 100, time.Second).Seconds(), 100*waves
		if slow < want || slow > want+100*r.RoundSeconds {
			t.Errorf("%+v: 100 steps of a second take %v s", spec, slow)
		}
	}
}

// TestTime_CallsWait: a job of more calls than the platform takes in a minute lasts at
// least until it has taken the last, and costs no more.
func TestTime_CallsWait(t *testing.T) {
	limits := job.Limits{MemoryDefault: 256 * job.MB, TimeoutDefault: time.Minute, Processors: 2, PoolMemory: 2 * job.GB}
	within := func(perMinute int) (job.Numerics, job.Resources) {
		l := limits
		l.CallsPerMinute = perMinute
		return planWithin(t, job.Spec{Replicas: 4, Rounds: 100, Containers: 1}, quick, l)
	}
	n, free := within(0)
	// Four replicas and an average in each round, the pieces of the test part, their sum.
	calls := float64(5*n.Rounds() + free.InferPieces + 1)
	for _, perMinute := range []int{10, 60, 200} {
		n, slow := within(perMinute)
		want := max(free.Seconds, (calls-float64(perMinute))/float64(perMinute)*60)
		if math.Abs(slow.Seconds-want) > 1e-6*want || slow.GBSeconds != free.GBSeconds {
			t.Errorf("%d calls a minute: %v s, %v GB-seconds; want %v s, %v", perMinute, slow.Seconds, slow.GBSeconds, want, free.GBSeconds)
		}
		if said := strings.Contains(strings.Join(slow.Explanation, " "), "calls: about"); said != (want > free.Seconds) {
			t.Errorf("%d calls a minute: explained by %q", perMinute, slow.Explanation)
		}
		if rest := plan.EvaluationTime(slow, n).Seconds(); rest > slow.Seconds/10 {
			t.Errorf("%d calls a minute: %v of %v s are left after training", perMinute, rest, slow.Seconds)
		}
	}
	if _, many := within(int(calls)); many.Seconds != free.Seconds {
		t.Errorf("a limit of all calls: %v s, without one %v", many.Seconds, free.Seconds)
	}
}
