// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"testing"

	"disdel/internal/job"
	"disdel/internal/nn"
)

// Package job cannot see package nn, so each has the optimizers' names and
// usual learning rates; and the planner's fields become the engine's.
func TestOptimizersOfJobsAreTheEngines(t *testing.T) {
	data := job.Dataset{Name: "x", Height: 8, Width: 8, Channels: 1, Classes: 4, Train: 100, Test: 10, ShardRecords: 50}
	for _, name := range nn.Optimizers() {
		spec := job.Spec{Kind: job.Train, Dataset: "x", Optimizer: name}.WithDefaults()
		if err := spec.Validate(); err != nil {
			t.Fatal(err)
		}
		want, err := nn.ParseOptimizer(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Numerics(spec, data, "k")
		if err != nil || nn.Optimizer(n.Local) != want {
			t.Errorf("%s: %+v, want %+v, %v", name, n.Local, want, err)
		}
	}
	bad := job.Spec{Kind: job.Train, Dataset: "x", Optimizer: "lion"}.WithDefaults()
	if err := bad.Validate(); !errors.Is(err, job.ErrSpec) {
		t.Errorf("unknown optimizer: %v", err)
	}
	if _, err := Numerics(bad, data, "k"); !errors.Is(err, job.ErrSpec) || !errors.Is(err, nn.ErrOptimizer) {
		t.Errorf("unknown optimizer: %v", err)
	}
	if o := (job.Spec{Kind: job.Train}).WithDefaults().Optimizer; o != nn.KindAdam {
		t.Errorf("default is %q", o)
	}
}

// Schedules count a replica's steps over the whole job; what is not used leaves the
// plan, and its digest, as it was.
func TestTrainingOptionsOfJobsAreTheEngines(t *testing.T) {
	data := job.Dataset{Name: "x", Height: 8, Width: 6, Channels: 1, Classes: 4, Train: 1000, Test: 10, ShardRecords: 50}
	plan := func(change func(*job.Spec)) (job.Numerics, error) {
		spec := job.Spec{Kind: job.Train, Dataset: "x", Epochs: 4, Replicas: 2, LocalBatch: 20}
		change(&spec)
		if spec = spec.WithDefaults(); spec.Validate() != nil {
			t.Fatal(spec.Validate())
		}
		return Numerics(spec, data, "k")
	}
	digest := func(n job.Numerics) string {
		d, err := n.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	plain, err := plan(func(*job.Spec) {})
	if err != nil || plain.Steps != 100 {
		t.Fatalf("%+v, %v", plain, err)
	}
	if n, err := plan(func(s *job.Spec) { s.Schedule = nn.ScheduleConstant }); err != nil || digest(n) != digest(plain) {
		t.Errorf("constant is another plan: %v", err)
	}
	for _, schedule := range nn.Schedules()[1:] {
		n, err := plan(func(s *job.Spec) {
			s.Schedule, s.Warmup, s.L2, s.Clip, s.LabelSmoothing, s.Flips, s.Shifts = schedule, 0.5, 1e-4, 2, 0.1, true, 5
		})
		want := plain
		want.Local.Schedule, want.Local.ScheduleSteps, want.Local.WarmupSteps = schedule, 100, 13
		want.Local.L2, want.Local.ClipNorm = 1e-4, 2
		want.LabelSmoothing, want.Flips, want.Shifts = 0.1, true, 5
		if err != nil || digest(n) != digest(want) {
			t.Errorf("%s: %+v, %v", schedule, n, err)
		}
	}
	// A warm-up that rounds to the whole job leaves one step.
	if n, err := plan(func(s *job.Spec) { s.Schedule, s.Warmup = nn.ScheduleCosine, 3.999 }); err != nil || n.Local.WarmupSteps != 99 {
		t.Errorf("a long warm-up: %+v, %v", n.Local, err)
	}
	if _, err := plan(func(s *job.Spec) { s.Shifts = 6 }); !errors.Is(err, job.ErrSpec) {
		t.Errorf("shifts as wide as records: %v", err)
	}
}
