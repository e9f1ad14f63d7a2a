// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"disdel/internal/job"
	"disdel/internal/plan"
)

// Each test here holds one sentence of the design document to what the planner
// does.

func mustPlan(t *testing.T, change func(in *input)) (job.Numerics, job.Resources) {
	t.Helper()
	in := mnistLike()
	if change != nil {
		change(&in)
	}
	out := in.plan()
	if out.err != nil {
		t.Fatal(out.err)
	}
	return *out.numerics, out.resources
}

// Section 2: "Defaults are the thesis's: batch 64, 5 epochs."
func TestClaim_DefaultsAreTheThesis(t *testing.T) {
	n, _ := mustPlan(t, nil)
	if n.Batch != 64 || n.Epochs != 5 {
		t.Errorf("batch %d, %d epochs", n.Batch, n.Epochs)
	}
}

// Section 2: "The default is 4 replicas, H about 20, local Adam ..., and an
// outer optimizer on the averaged change (Nesterov 0.7 / 0.9)".
func TestClaim_DefaultDivision(t *testing.T) {
	n, _ := mustPlan(t, nil)
	if n.Replicas != 4 || n.LocalBatch != 64 || n.RoundSteps != 20 || n.Outer != (job.Nesterov{LearningRate: 0.7, Momentum: 0.9}) {
		t.Errorf("%d replicas of local batch %d, H %d, outer %+v", n.Replicas, n.LocalBatch, n.RoundSteps, n.Outer)
	}
	if n.Local != (job.Optimizer{Kind: "adam", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: n.Local.Epsilon}) || n.Local.Epsilon <= 0 {
		t.Errorf("local optimizer %+v", n.Local)
	}
}

// Section 2: "The thesis averages once, at the end (--rounds 1)": with nothing
// but the mean.
func TestClaim_OneRoundIsPlainAveraging(t *testing.T) {
	n, _ := mustPlan(t, func(in *input) { in.spec.Rounds = 1 })
	if n.Rounds() != 1 || n.RoundSteps != n.Steps || n.Outer != (job.Nesterov{LearningRate: 1}) {
		t.Errorf("%d rounds of %d of %d steps, outer %+v", n.Rounds(), n.RoundSteps, n.Steps, n.Outer)
	}
}

// Section 2: "With more replicas each takes a smaller local batch, so that
// replicas x local batch stays at 4 x --batch".
func TestClaim_ReplicasShareFourBatches(t *testing.T) {
	for replicas, local := range map[int]int{1: 64, 2: 64, 4: 64, 8: 32, 16: 16, 32: 8, 64: 4} {
		n, _ := mustPlan(t, func(in *input) { in.spec.Replicas = replicas })
		if n.LocalBatch != local {
			t.Errorf("%d replicas: local batch %d, want %d", replicas, n.LocalBatch, local)
		}
	}
}

// Section 2: "--local-batch fixes it."
func TestClaim_LocalBatchIsFixed(t *testing.T) {
	n, r := mustPlan(t, func(in *input) { in.spec.Replicas, in.spec.LocalBatch = 32, 64 })
	if n.LocalBatch != 64 || strings.Contains(strings.Join(r.Explanation, " "), "local batch") {
		t.Errorf("local batch %d, explained by %q", n.LocalBatch, r.Explanation)
	}
}

// Section 2: "never raises the replicas by itself": whatever the platform, they
// are 4 or fewer, and the bits are the same.
func TestClaim_ReplicasAreNotThePlatforms(t *testing.T) {
	small, _ := mustPlan(t, nil)
	large, _ := mustPlan(t, func(in *input) { in.limits.Processors, in.limits.PoolMemory = 128, job.GB*64 })
	a, errA := small.Digest()
	b, errB := large.Digest()
	if a != b || errA != nil || errB != nil {
		t.Errorf("a larger platform makes another model: %d and %d replicas", small.Replicas, large.Replicas)
	}
}

// Section 5: "A slice is at most half of the action's timeout."
func TestClaim_SliceIsHalfTheTimeout(t *testing.T) {
	for _, change := range []func(in *input){nil, func(in *input) { in.spec.Timeout = in.limits.TimeoutMin }, func(in *input) { in.spec.Timeout = in.limits.TimeoutMax }} {
		if _, r := mustPlan(t, change); r.Budget > r.Timeout/2 || r.Budget <= 0 {
			t.Errorf("slices of %v, timeout %v", r.Budget, r.Timeout)
		}
	}
}

// Section 5: "memory = fit + pkg + dta + mod + saf", and every container has
// room for the largest.
func TestClaim_MemoryIsTheSumOfItsTerms(t *testing.T) {
	_, r := mustPlan(t, func(in *input) { in.limits.MemoryMin = 0 })
	for role, e := range r.Roles {
		if e.Total() != e.Fit+e.Package+e.Data+e.Model+e.Safety || e.Total() > r.Memory || e.Package != 9*job.MB || e.Safety <= 0 {
			t.Errorf("%s: %+v in %v", role, e, r.Memory)
		}
	}
	if train := r.Roles[job.RoleTrain]; train.Fit <= 0 || train.Data <= 0 {
		t.Errorf("training has no arena or no data: %+v", train)
	}
	for _, role := range []job.Role{job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate} {
		if r.Roles[role].Total() == 0 {
			t.Errorf("no estimate for %s", role)
		}
	}
}

// Section 5: dta is "the data buffers the worker really holds (a window of the
// shard, not the data set)".
func TestClaim_DataIsAWindow(t *testing.T) {
	_, small := mustPlan(t, nil)
	_, large := mustPlan(t, func(in *input) { in.data.Train *= 10 })
	grown := large.Roles[job.RoleTrain].Data - small.Roles[job.RoleTrain].Data
	if limit := job.Bytes(16 * 9 * 60000 / 1000); grown < 0 || grown > limit {
		t.Errorf("ten times the data take %v more, want at most %v", grown, limit)
	}
}

// Section 5: "When nothing fits it says which limit is short and by how much."
func TestClaim_InfeasibleSaysWhich(t *testing.T) {
	in := mnistLike()
	in.limits.MemoryMin, in.limits.MemoryMax = 0, 15*job.MB
	err := in.plan().err
	if err == nil || !strings.Contains(err.Error(), "memory") || !strings.Contains(err.Error(), "short by 6 MB") {
		t.Errorf("error %v", err)
	}
}

// Section 7: "Every data set of the thesis trains inside the defaults."
func TestClaim_ThesisDataSetsFit(t *testing.T) {
	for name, d := range map[string][5]int{
		"mnist":   {28, 28, 1, 10, 60000},
		"fashion": {28, 28, 1, 10, 60000},
		"emnist":  {28, 28, 1, 47, 112800},
		"cifar10": {32, 32, 3, 10, 50000},
		"100":     {32, 32, 3, 100, 50000},
	} {
		_, r := mustPlan(t, func(in *input) {
			in.data.Height, in.data.Width, in.data.Channels, in.data.Classes, in.data.Train = d[0], d[1], d[2], d[3], d[4]
		})
		if r.Memory > 512*job.MB || r.Containers < 2 {
			t.Errorf("%s: %d containers of %v", name, r.Containers, r.Memory)
		}
	}
}

// A plan that takes fewer replicas or a smaller local batch than for a large
// data set says so; one that does not, or was told to, says nothing.
func TestClaim_SmallDataIsExplained(t *testing.T) {
	explained := func(change func(in *input)) string {
		_, r := mustPlan(t, change)
		return strings.Join(r.Explanation, "\n")
	}
	digits := func(in *input) {
		in.data.Height, in.data.Width, in.data.Train, in.data.Test = 8, 8, 1437, 360
	}
	for _, want := range []string{"replicas: 2 rather than 4, so that each takes at least 700 steps.", "local batch: 4 of 64, "} {
		if text := explained(digits); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for name, change := range map[string]func(in *input){
		"large": func(*input) {},
		"told":  func(in *input) { digits(in); in.spec.Replicas, in.spec.LocalBatch = 2, 4 },
	} {
		if text := explained(change); strings.Contains(text, "replicas:") || strings.Contains(text, "local batch:") {
			t.Errorf("%s: explains what needs no explanation:\n%s", name, text)
		}
	}
}

// Package documentation: "Equal arguments give equal plans" also for Check,
// which never refuses what the plan accepts.
func TestClaim_CheckAgreesWithPlan(t *testing.T) {
	in := mnistLike()
	for _, memory := range []job.Bytes{0, 127, 128, 512, 513} {
		in.spec.Memory = memory * job.MB
		spec := in.spec.WithDefaults()
		n, err := plan.Numerics(spec, in.data, "k")
		if err != nil {
			t.Fatal(err)
		}
		_, err = plan.Train(spec, n, in.limits, in.probe)
		if checked := plan.Check(spec, in.limits); (checked == nil) != (err == nil) {
			t.Errorf("%v: Check says %v, Train %v", spec.Memory, checked, err)
		}
	}
}
