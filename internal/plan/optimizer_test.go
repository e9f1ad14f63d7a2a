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
