// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
)

// maxRevisions is the most that the controller allows (package control).
const maxRevisions = 12

// anyInput draws jobs small enough to compile quickly, and limits around what
// they need, so that all ways a plan can end are met.
func anyInput(t *rapid.T) input {
	in := mnistLike()
	in.spec.Kind = rapid.SampledFrom([]job.Kind{job.Train, job.Train, job.Infer}).Draw(t, "kind")
	if in.spec.Kind == job.Train {
		side := rapid.IntRange(3, 28).Draw(t, "side")
		in.data.Height, in.data.Width = side, side
		in.data.Channels = rapid.SampledFrom([]int{1, 3}).Draw(t, "channels")
		in.data.Classes = rapid.IntRange(2, 20).Draw(t, "classes")
		in.spec.Model = rapid.SampledFrom([]string{"cnn", "cnn", "mlp", "cnn-deep", "lenet5", "resnet20"}).Draw(t, "model")
		in.spec.Epochs = rapid.IntRange(0, 20).Draw(t, "epochs")
		in.spec.Batch = rapid.IntRange(0, 300).Draw(t, "batch")
		in.spec.Replicas = rapid.SampledFrom([]int{0, 0, 1, 2, 3, 8, 70}).Draw(t, "replicas")
		in.spec.LocalBatch = rapid.SampledFrom([]int{0, 0, 1, 7, 200}).Draw(t, "localBatch")
		in.spec.Rounds = rapid.SampledFrom([]int{0, 0, 1, 2, 5, 100}).Draw(t, "rounds")
		in.data.Train = rapid.IntRange(1, 70_000).Draw(t, "train")
		in.spec.Minimize = rapid.SampledFrom([]job.Objective{"", job.LeastTime, job.LeastMemory, job.LeastCost}).Draw(t, "minimize")
		in.spec.Estimator = rapid.SampledFrom([]job.Estimator{"", "", job.Exact, job.Thesis}).Draw(t, "estimator")
		in.spec.Strategy = rapid.SampledFrom([]job.Strategy{"", "", "", job.Distributed, job.Single, job.BruteForce}).Draw(t, "strategy")
		if in.spec.Sequential() {
			in.spec.Replicas, in.spec.LocalBatch, in.spec.Rounds = 0, 0, 0
		}
		if in.spec.Strategy == job.BruteForce {
			in.spec.Minimize, in.spec.Estimator = "", ""
		}
	}
	in.data.Test = rapid.IntRange(1, 12_000).Draw(t, "test")
	in.data.ShardRecords = rapid.IntRange(1, 3000).Draw(t, "shard")
	in.spec.Containers = rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "containers")
	in.spec.Threads = rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5}).Draw(t, "threads")
	in.spec.Memory = rapid.SampledFrom([]job.Bytes{0, 0, 0, 11, 30, 128, 600}).Draw(t, "memory") * job.MB
	in.spec.Timeout = rapid.SampledFrom([]time.Duration{0, 0, 20 * time.Millisecond, time.Second, time.Hour}).Draw(t, "timeout")
	in.limits.MemoryMin = rapid.SampledFrom([]job.Bytes{0, 11, 128}).Draw(t, "min") * job.MB
	in.limits.MemoryMax = rapid.SampledFrom([]job.Bytes{0, 12, 20, 40, 512}).Draw(t, "max") * job.MB
	in.limits.MemoryStep = rapid.SampledFrom([]job.Bytes{0, 1, 7, 128}).Draw(t, "step") * job.MB
	in.limits.PoolMemory = rapid.SampledFrom([]job.Bytes{0, 13, 50, 300, 2048}).Draw(t, "pool") * job.MB
	in.limits.Concurrency = rapid.SampledFrom([]int{0, 1, 3, 100}).Draw(t, "concurrency")
	in.limits.Processors = rapid.SampledFrom([]int{0, 1, 2, 16}).Draw(t, "processors")
	in.limits.TimeoutMin = rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond}).Draw(t, "timeoutMin")
	in.limits.TimeoutMax = rapid.SampledFrom([]time.Duration{0, time.Minute, 5 * time.Minute}).Draw(t, "timeoutMax")
	return in
}

// checkLimits: invariant 1 of the package.
func checkLimits(t *rapid.T, in input, r job.Resources) {
	l, s := in.limits, in.spec.WithDefaults()
	step := l.MemoryStep
	if step == 0 {
		step = job.MB
	}
	bad := func(what string) { t.Fatalf("%s: %+v within %+v, spec %+v", what, r, l, s) }
	switch {
	case r.Memory <= 0 || r.Memory%step != 0 && s.Memory == 0:
		bad("memory is no multiple of the step")
	case r.Memory < l.MemoryMin || l.MemoryMax > 0 && r.Memory > l.MemoryMax:
		bad("memory is outside the limits")
	case l.PoolMemory > 0 && r.Memory*job.Bytes(r.Containers) > l.PoolMemory:
		bad("the containers do not fit into the pool")
	case r.Containers < 1 || l.Concurrency > 0 && r.Containers > l.Concurrency:
		bad("containers are outside the limits")
	case r.Timeout < l.TimeoutMin || l.TimeoutMax > 0 && r.Timeout > l.TimeoutMax:
		bad("timeout is outside the limits")
	case (s.Strategy != job.BruteForce || r.Revision == 0) && (s.Memory > 0 && r.Memory != s.Memory || s.Timeout > 0 && r.Timeout != s.Timeout):
		bad("what the user fixed was changed")
	case s.Containers > 0 && r.Containers > s.Containers:
		bad("more containers than the user asked for")
	case s.Sequential() && r.Budget != 0:
		bad("one worker hands over")
	case !s.Sequential() && (r.Budget <= 0 || r.Budget > r.Timeout/2):
		bad("a slice takes more than half of the timeout")
	case r.Window < 0 || r.Window >= in.data.ShardRecords:
		bad("a window that holds more than a part of a shard")
	case r.InferPieces < 1 || r.InferPieces > in.data.Shards(job.TestPart) || r.InferBatch < 1 || r.InferBatch > in.data.Test:
		bad("pieces of the test part")
	case s.Threads > 0 && r.Threads != s.Threads || r.Threads < 1 || s.Threads == 0 && r.Threads > max(1, l.Processors/r.Containers):
		bad("threads")
	case r.Spin && r.Threads*r.Containers > l.Processors:
		bad("threads spin without processors of their own")
	case len(r.Explanation) == 0 || r.Seconds < 0:
		bad("explanation or time")
	}
	for role, e := range r.Roles {
		if min(e.Fit, e.Package, e.Data, e.Model, e.Safety) < 0 || r.Revision == 0 && role != job.RoleProbe && s.Strategy != job.BruteForce && e.Total() > r.Memory {
			bad("estimate of " + string(role))
		}
	}
}

func checkInfeasible(t *rapid.T, in input, err error) {
	var short *plan.Infeasible
	switch {
	case errors.As(err, &short):
		if !errors.Is(err, plan.ErrInfeasible) || short.Limit == "" || short.Need == short.Have || !strings.Contains(err.Error(), short.Detail) {
			t.Fatalf("%+v: %v", short, err)
		}
	case errors.Is(err, job.ErrSpec), errors.Is(err, plan.ErrModel):
	default:
		t.Fatalf("%+v: an error of no known kind: %v", in, err)
	}
}

func TestP1_NeverOverLimit(t *testing.T) {
	feasible := 0
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		out := in.plan()
		if out.err != nil {
			checkInfeasible(t, in, out.err)
			return
		}
		feasible++
		checkLimits(t, in, out.resources)
		if again := in.plan(); again.err != nil || !reflect.DeepEqual(out.resources, again.resources) || !reflect.DeepEqual(out.numerics, again.numerics) {
			t.Fatalf("equal arguments, plans\n%v\n%v", out, again)
		}
	})
	if feasible == 0 {
		t.Error("no input was feasible: the test tests nothing")
	}
}

// Whatever runs out, in any order, replanning ends, keeps to the limits and
// never changes what it was not asked to.
func TestP1_ReplanningEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		out := in.plan()
		if out.err != nil {
			return
		}
		spec, r := in.spec.WithDefaults(), out.resources
		// Without any largest action memory grows for ever; the controller
		// then bounds the number of plans.
		for r.Revision < maxRevisions {
			before := r
			roles := maps.Clone(r.Roles)
			var err error
			var next job.Resources
			role := rapid.SampledFrom(slices.Sorted(maps.Keys(r.Roles))).Draw(t, "role")
			memory := rapid.Bool().Draw(t, "memory")
			if memory {
				next, err = plan.AfterOutOfMemory(r, spec, in.limits, role)
			} else {
				next, err = plan.AfterTimeout(r, spec, in.limits, role)
			}
			if !reflect.DeepEqual(r, before) || !maps.Equal(r.Roles, roles) {
				t.Fatal("the old plan was changed")
			}
			if err != nil {
				checkInfeasible(t, in, err)
				if memory && (spec.Memory == 0 || spec.Strategy == job.BruteForce) {
					largest := plan.LargestMemory(in.limits)
					if largest == 0 || r.Memory < largest {
						t.Fatalf("gave up at %v, there is %v: %v", r.Memory, largest, err)
					}
				}
				return
			}
			checkLimits(t, in, next)
			// Where there is no more memory, steps are computed in smaller pieces, or outputs
			// are made again.
			pieces := memory && role == job.RoleTrain && (next.MicroBatch < r.MicroBatch || next.Remake && !r.Remake)
			if next.Revision != r.Revision+1 || next.Containers > r.Containers || next.InferPieces != r.InferPieces ||
				memory && !pieces && next.Memory <= r.Memory || (!memory || pieces) && next.Memory != r.Memory {
				t.Fatalf("after %+v came %+v", r, next)
			}
			if brute := spec.Strategy == job.BruteForce; !memory && (brute && next.Timeout <= r.Timeout || !brute && next.Budget >= r.Budget) {
				t.Fatalf("the time after %+v: %+v", r, next)
			}
			if memory && !pieces && spec.Strategy != job.BruteForce && next.Roles[role].Total() <= r.Memory {
				t.Fatalf("%s did not fit into %v, and the estimate is still %v", role, r.Memory, next.Roles[role].Total())
			}
			r = next
		}
	})
}

// Where a plan exists, one exists with more memory, a larger pool or more
// containers allowed, and it is no slower.
func TestP1_MoreIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		if in.plan().err != nil {
			return
		}
		more := in
		if in.limits.MemoryMax > 0 {
			more.limits.MemoryMax += job.Bytes(rapid.IntRange(0, 600).Draw(t, "moreMemory")) * job.MB
		}
		if in.limits.PoolMemory > 0 {
			more.limits.PoolMemory += job.Bytes(rapid.IntRange(0, 600).Draw(t, "morePool")) * job.MB
		}
		if in.limits.Concurrency > 0 {
			more.limits.Concurrency += rapid.IntRange(0, 9).Draw(t, "moreCalls")
		}
		out := more.plan()
		if out.err != nil {
			t.Fatalf("feasible within %+v, within %+v: %v", in.limits, more.limits, out.err)
		}
		// What is compared is rounded to milliseconds.
		least := in.plan().resources
		if in.spec.Containers == 0 && in.spec.WithDefaults().Minimize == job.LeastTime && out.resources.Seconds > least.Seconds+0.001 {
			t.Fatalf("%.3f s within %+v, %.3f s within %+v", least.Seconds, in.limits, out.resources.Seconds, more.limits)
		}
	})
}

// Invariant 2: what only says where and how a job runs does not change a bit.
func TestP2_NumericsDependOnSpecAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, other := anyInput(t), anyInput(t)
		in.spec.Kind = job.Train
		numerics := func(spec job.Spec, kernelSet string) (string, error) {
			n, err := plan.Numerics(spec.WithDefaults(), in.data, kernelSet)
			if err != nil {
				return "", err
			}
			return n.Digest()
		}
		changed := in.spec
		changed.Memory, changed.Timeout, changed.Containers = other.spec.Memory, other.spec.Timeout, other.spec.Containers
		a, errA := numerics(in.spec, "k")
		b, errB := numerics(changed, "k")
		if a != b || (errA == nil) != (errB == nil) {
			t.Fatalf("memory, timeout or containers change the bits: %s, %v; %s, %v", a, errA, b, errB)
		}
		if c, err := numerics(in.spec, "l"); err == nil && c == a {
			t.Fatal("two kernel sets share a plan")
		}
		changed.Seed++
		if c, err := numerics(changed, "k"); err == nil && c == a {
			t.Fatal("two seeds share a plan")
		}
	})
}

func TestNumerics_Arithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		in.spec.Kind = job.Train
		spec := in.spec.WithDefaults()
		n, err := plan.Numerics(spec, in.data, "k")
		if err != nil {
			checkInfeasible(t, in, err)
			return
		}
		total, most := 0, 0
		for replica := range n.Replicas {
			total += n.ReplicaRecords(replica)
			most = max(most, n.ReplicaRecords(replica))
		}
		switch {
		case total != in.data.Train:
			t.Fatalf("%d of %d records belong to a replica", total, in.data.Train)
		case n.StepsPerEpoch*n.LocalBatch < most || (n.StepsPerEpoch-1)*n.LocalBatch >= most:
			t.Fatalf("%d steps of %d for %d records", n.StepsPerEpoch, n.LocalBatch, most)
		case n.Steps != n.StepsPerEpoch*spec.Epochs || n.RoundSteps < 1 || n.RoundSteps > n.Steps:
			t.Fatalf("%d steps, %d an epoch, in rounds of %d", n.Steps, n.StepsPerEpoch, n.RoundSteps)
		case spec.Replicas > 0 && n.Replicas != spec.Replicas, spec.LocalBatch > 0 && n.LocalBatch != spec.LocalBatch:
			t.Fatalf("what the user fixed was changed: %+v", n)
		case spec.Rounds > 0 && n.Rounds() > spec.Rounds:
			t.Fatalf("%d rounds, the user wants %d", n.Rounds(), spec.Rounds)
		case spec.LocalBatch == 0 && (n.LocalBatch < 1 || n.LocalBatch > spec.Batch):
			t.Fatalf("local batch %d of %d", n.LocalBatch, spec.Batch)
		case spec.LocalBatch == 0 && n.LocalBatch > 1 && n.Replicas*n.LocalBatch > 4*spec.Batch:
			t.Fatalf("%d replicas of local batch %d are more than 4 batches of %d", n.Replicas, n.LocalBatch, spec.Batch)
		}
	})
}

func TestInfeasible_Wraps(t *testing.T) {
	in := mnistLike()
	in.data.Train, in.data.ShardRecords = 0, 1000
	if err := in.plan().err; !errors.Is(err, job.ErrSpec) {
		t.Errorf("no training records: %v", err)
	}
	in = mnistLike()
	in.data.ShardRecords = 0
	if err := in.plan().err; !errors.Is(err, job.ErrSpec) {
		t.Errorf("shards of no records: %v", err)
	}
	in.spec.Kind = job.Infer
	if err := in.plan().err; !errors.Is(err, job.ErrSpec) {
		t.Errorf("inference over shards of no records: %v", err)
	}
	if _, err := plan.Infer(mnistLike().spec, mnistLike().data, []byte("{"), mnistLike().limits, mnistLike().probe); err == nil {
		t.Error("a model that is no JSON has a plan")
	}
	if _, err := plan.Train(mnistLike().spec, job.Numerics{}, mnistLike().limits, mnistLike().probe); err == nil {
		t.Error("an empty numerics plan has a resource plan")
	}
}

// TestInfer_PredictionsAreCounted: a worker that keeps its predictions is planned
// with eight bytes for each record of the largest piece, and nothing else changes.
func TestInfer_PredictionsAreCounted(t *testing.T) {
	in := mnistLike()
	in.data.Test, in.data.ShardRecords, in.limits.Processors = 10_000, 1000, 3
	model, err := nn.Named("mlp", nn.Shape{H: in.data.Height, W: in.data.Width, C: in.data.Channels}, in.data.Classes)
	if err != nil {
		t.Fatal(err)
	}
	for containers, records := range map[int]job.Bytes{1: 10_000, 2: 5000, 3: 4000} {
		spec := job.Spec{Kind: job.Infer, Dataset: in.data.Name, Containers: containers}.WithDefaults()
		without, err := plan.Infer(spec, in.data, model.Canonical(), in.limits, in.probe)
		if err != nil {
			t.Fatal(err)
		}
		spec.Output = "/tmp/predictions.csv"
		with, err := plan.Infer(spec, in.data, model.Canonical(), in.limits, in.probe)
		if err != nil {
			t.Fatal(err)
		}
		a, b := with.Roles[job.RoleInfer], without.Roles[job.RoleInfer]
		if a.Data-b.Data != 8*records || a.Fit != b.Fit || a.Model != b.Model || with.InferPieces != without.InferPieces {
			t.Errorf("%d containers: planned %+v, without an output %+v", containers, a, b)
		}
	}
}
