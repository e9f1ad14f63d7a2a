// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
)

// dropping is a model that also depends on the places of records in a batch.
var dropping = nn.Spec{
	Name: "dropping", Input: nn.Shape{H: 4, W: 4, C: 1}, Classes: 3,
	Layers: []nn.Layer{
		{Kind: nn.KindConv2D, Filters: 2, Kernel: 3},
		{Kind: nn.KindReLU},
		{Kind: nn.KindDropout, Rate: 0.3},
		{Kind: nn.KindFlatten},
		{Kind: nn.KindDense, Units: 3},
	},
}

// stepPlan is a plan of replicas that divide batches of seven of the 22 records:
// the last of an epoch has one, so that most replicas have none of it.
func stepPlan(t tester, model nn.Spec, optimizer string, replicas int) job.Numerics {
	t.Helper()
	o, err := nn.ParseOptimizer(optimizer, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	n := tinyPlan()
	n.Model, n.Local, n.Outer = model.Canonical(), job.Optimizer(o), job.Nesterov{LearningRate: 1}
	n.Sync, n.Replicas, n.Batch, n.LocalBatch, n.StepsPerEpoch, n.RoundSteps = job.SyncStep, replicas, 7, (7-1)/replicas+1, 4, 1
	n.Steps = n.StepsPerEpoch * n.Epochs
	return n
}

// TestStepwise_IsSequentialTraining: any number of replicas that average the
// gradients of every step learn what one learns that takes whole batches, but for
// rounding; one replica learns exactly that.
func TestStepwise_IsSequentialTraining(t *testing.T) {
	// Eight steps differ by the order of sums alone. Adam divides by the root of
	// a mean of squares: a gradient near zero may be moved by its rounding error,
	// at most the learning rate a step.
	const tolerance = 1e-5
	for _, optimizer := range append(nn.Optimizers(), "sgd, tuned") {
		planned := func(replicas int) job.Numerics {
			name, how, _ := strings.Cut(optimizer, ", ")
			n := stepPlan(t, dropping, name, replicas)
			if how != "" {
				n = tuned(n)
			}
			return n
		}
		sequential := planned(1)
		sequential.Sync, sequential.LocalBatch, sequential.RoundSteps = "", sequential.Batch, sequential.Steps
		x := newWorld(t, t.Context(), sequential)
		x.job(never)
		want, _ := x.tensorsOf(x.keys.Final())
		start := make([]float32, dropping.ParamCount())
		nn.InitWeights(dropping, sequential.Seed, start)
		for _, replicas := range []int{1, 2, 3, 5, 7} {
			x := newWorld(t, t.Context(), planned(replicas))
			x.job(never)
			got, _ := x.tensorsOf(x.keys.Final())
			moved := 0.0
			for _, p := range dropping.Params() {
				if replicas == 1 && !slices.Equal(got[p.Name], want[p.Name]) {
					t.Errorf("%s, one replica: %s is %v; want %v", optimizer, p.Name, got[p.Name], want[p.Name])
				}
				for i, v := range got[p.Name] {
					if off := math.Abs(float64(v) - float64(want[p.Name][i])); off > tolerance {
						t.Errorf("%s, %d replicas: %s[%d] is %v; want %v", optimizer, replicas, p.Name, i, v, want[p.Name][i])
					}
					moved = max(moved, math.Abs(float64(v)-float64(start[p.Offset+i])))
				}
			}
			if moved < 1000*tolerance {
				t.Errorf("%s: nothing moved more than %v: the test tests nothing", optimizer, moved)
			}
		}
	}
}

// TestStepwise_SameBytes: the model does not depend on who averages, nor on how
// the work is cut.
func TestStepwise_SameBytes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := stepPlan(r, dropping, rapid.SampledFrom(nn.Optimizers()).Draw(r, "optimizer"), rapid.IntRange(1, 7).Draw(r, "replicas"))
		n.Seed = rapid.Uint64().Draw(r, "seed")
		if rapid.Bool().Draw(r, "tuned") {
			n = tuned(n)
		}
		alone := newWorld(r, t.Context(), n)
		want := alone.job(never)
		synctest.Test(t, func(t *testing.T) {
			x := newWorld(r, t.Context(), n)
			late := rapid.SliceOfN(rapid.IntRange(0, 50), n.Replicas, n.Replicas).Draw(r, "milliseconds late")
			digest := ""
			for _, result := range x.together(func(replica int) time.Duration { return time.Duration(late[replica]) * ms }) {
				digest = max(digest, result.Digest)
			}
			if digest != want || want == "" {
				r.Errorf("model %s, want %s", digest, want)
			}
			sameObjects(r, x.objects(), alone.objects())
		})
	})
}

// TestStepwise_Plan: planner and worker count the same bytes.
func TestStepwise_Plan(t *testing.T) {
	limits := job.Limits{MemoryDefault: 256 * job.MB, TimeoutDefault: 1 << 36, Processors: 1}
	for _, optimizer := range nn.Optimizers() {
		for _, replicas := range []int{1, 3, 7} {
			n := stepPlan(t, dropping, optimizer, replicas)
			own := training{plan: n, optimizer: nn.Optimizer(n.Local), count: dropping.ParamCount()}
			r, err := plan.Train(job.Spec{Kind: job.Train, Dataset: "tiny", Sync: job.SyncStep}.WithDefaults(), n, limits, job.Probe{})
			if err != nil {
				t.Fatal(err)
			}
			program, err := nn.Compile(dropping, nn.Config{Batch: own.localBatch(), Train: true, Optimizer: own.local(), KeepGradients: true})
			if err != nil {
				t.Fatal(err)
			}
			train, fit := r.Roles[job.RoleTrain], max(program.Sizes().Total, int64(own.averageBytes()))
			if train.Fit != job.Bytes(fit) || train.Data < job.Bytes(own.stream(replicas-1).Bytes()) {
				t.Errorf("%s, %d replicas: planned with %v and %v, takes %d and %d bytes",
					optimizer, replicas, train.Fit, train.Data, fit, own.stream(replicas-1).Bytes())
			}
			if got := r.Roles[job.RoleAverage].Model; got != job.Bytes(own.averageBytes()) {
				t.Errorf("%s: averaging is planned with %v, takes %d bytes", optimizer, got, own.averageBytes())
			}
		}
	}
}

// TestStepwise_Errors: plans that make no sense, and a sum that is not finite.
func TestStepwise_Errors(t *testing.T) {
	normed := dropping
	normed.Layers = append(slices.Clone(normed.Layers[:1]), nn.Layer{Kind: nn.KindBatchNorm}, normed.Layers[3], normed.Layers[4])
	for says, change := range map[string]func(*job.Numerics){
		`sync "often"`:     func(n *job.Numerics) { n.Sync = "often" },
		"rounds of 2":      func(n *job.Numerics) { n.RoundSteps = 2 },
		"batches of 0":     func(n *job.Numerics) { n.Batch = 0 },
		"0 steps an epoch": func(n *job.Numerics) { n.StepsPerEpoch = 0 },
		"9 steps an epoch": func(n *job.Numerics) { n.StepsPerEpoch = 9 },
		"batchnorm":        func(n *job.Numerics) { n.Model = normed.Canonical() },
	} {
		n := stepPlan(t, dropping, nn.KindAdam, 2)
		change(&n)
		x := newWorld(t, t.Context(), n)
		for _, role := range []job.Role{job.RoleTrain, job.RoleAverage} {
			_, err := x.w.Do(t.Context(), job.Task{Role: role, Job: worldJob, Plan: x.keys.Plan, To: 1})
			if reasonOf(err) != job.BadTask || !strings.Contains(fmt.Sprint(err), says) {
				t.Errorf("%s: %v; want one that says %q", role, err, says)
			}
		}
	}

	n := stepPlan(t, dropping, nn.KindAdam, 2)
	n.Local.LearningRate, n.Model = 1e6, deepModel()
	x := newWorld(t, t.Context(), n)
	var err error
	for step := 0; step < n.Steps && err == nil; step++ {
		for replica := 0; replica < n.Replicas && err == nil; replica++ {
			_, err = x.w.Do(t.Context(), job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, Replica: replica, From: step, To: step + 1})
		}
		if err == nil {
			_, err = x.w.Do(t.Context(), job.Task{Role: job.RoleAverage, Job: worldJob, Plan: x.keys.Plan, From: step, To: step + 1})
		}
	}
	if reasonOf(err) != job.NonFinite || !strings.Contains(fmt.Sprint(err), "step 2 (epoch 1) of replica 0: lower the learning rate from 1e+06") {
		t.Errorf("diverged with %v", err)
	}
}
