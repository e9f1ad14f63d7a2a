// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
)

// anyWork draws a training job whose shards are large beside its model, so that
// windows matter, and limits around what it needs.
func anyWork(t *rapid.T) (w *work, spec job.Spec, limits job.Limits) {
	side := rapid.SampledFrom([]int{8, 16}).Draw(t, "side")
	d := job.Dataset{
		Name: "x", Height: side, Width: side, Channels: 3, Classes: 4,
		Train: rapid.SampledFrom([]int{1, 50, 9000, 90_000}).Draw(t, "train"), Test: rapid.SampledFrom([]int{1, 500, 20_000}).Draw(t, "test"),
		ShardRecords: rapid.SampledFrom([]int{1, 1000, 20_000}).Draw(t, "shard"),
	}
	spec = job.Spec{
		Kind: job.Train, Dataset: "x", Model: "mlp", Epochs: rapid.IntRange(1, 5).Draw(t, "epochs"),
		Replicas:   rapid.IntRange(1, min(40, d.Train)).Draw(t, "replicas"),
		Minimize:   rapid.SampledFrom([]job.Objective{job.LeastTime, job.LeastMemory, job.LeastCost}).Draw(t, "minimize"),
		Containers: rapid.SampledFrom([]int{0, 0, 1, 3, 50}).Draw(t, "containers"),
		Threads:    rapid.SampledFrom([]int{0, 0, 0, 2}).Draw(t, "threads"),
		LocalBatch: rapid.SampledFrom([]int{0, 0, 0, 5000}).Draw(t, "localBatch"),
		Memory:     rapid.SampledFrom([]job.Bytes{0, 0, 0, 20, 40}).Draw(t, "memory") * job.MB,
	}.WithDefaults()
	limits = job.Limits{
		MemoryMin:     rapid.SampledFrom([]job.Bytes{0, 1, 30}).Draw(t, "min") * job.MB,
		MemoryMax:     rapid.SampledFrom([]job.Bytes{0, 14, 18, 25, 60}).Draw(t, "max") * job.MB,
		MemoryStep:    rapid.SampledFrom([]job.Bytes{1, job.MB, 4 * job.MB}).Draw(t, "step"),
		PoolMemory:    rapid.SampledFrom([]job.Bytes{0, 20, 70, 500}).Draw(t, "pool") * job.MB,
		Concurrency:   rapid.SampledFrom([]int{0, 2, 7}).Draw(t, "concurrency"),
		Processors:    rapid.IntRange(0, 9).Draw(t, "processors"),
		MemoryDefault: 256 * job.MB, TimeoutDefault: time.Minute,
	}
	probe := job.Probe{
		KernelSet: "k", Package: 9 * job.MB, FLOPS: 1e9,
		StoreRate: rapid.SampledFrom([]float64{0, 1e6, 1e9}).Draw(t, "store"),
	}
	n, err := Numerics(spec, d, probe.KernelSet)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseModel(n.Model)
	if err != nil {
		t.Fatal(err)
	}
	if w, err = newWork(d, m, probe, atMost(n.Replicas, spec.Containers), false); err != nil {
		t.Fatal(err)
	}
	if err := w.train(n); err != nil {
		t.Fatal(err)
	}
	w.budget = rapid.SampledFrom([]time.Duration{10 * time.Millisecond, 30 * time.Second}).Draw(t, "budget")
	return w, spec, limits
}

// allowed says in its own words whether a container of the candidate's memory is
// large enough, and so many of them are within the limits.
func (c candidate) allowed(t *rapid.T, w *work, spec job.Spec, limits job.Limits) bool {
	roles, err := w.roles(c.shape)
	if err != nil {
		t.Fatal(err)
	}
	for role, e := range roles {
		if role != job.RoleProbe && e.Total() > c.memory {
			return false
		}
	}
	total := c.memory * job.Bytes(c.containers)
	return c.memory >= limits.MemoryMin && c.memory%limits.MemoryStep == 0 &&
		(limits.MemoryMax == 0 || c.memory <= limits.MemoryMax) &&
		(limits.PoolMemory == 0 || total <= limits.PoolMemory) &&
		(limits.Concurrency == 0 || c.containers <= limits.Concurrency) &&
		(spec.Containers == 0 || c.containers <= spec.Containers) &&
		(spec.Memory == 0 || c.memory == spec.Memory) &&
		(spec.Threads == 0 || c.threads == spec.Threads) &&
		(!c.span || c.containers >= w.replicas())
}

// TestSearch_IsNeverWorseThanTryingEverything: no way to run the job within the
// limits is better than the chosen one, and where there is none there is none.
func TestSearch_IsNeverWorseThanTryingEverything(t *testing.T) {
	found, infeasible, windows := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w, spec, limits := anyWork(t)
		best, why, err := w.choose(spec, limits)
		measure := func(c candidate) float64 {
			switch spec.Minimize {
			case job.LeastMemory:
				return float64(c.atOnce())
			case job.LeastCost:
				return c.gbSeconds
			default:
				return c.seconds
			}
		}
		exists := false
		for _, s := range everyShape(w, spec, limits) {
			c := candidate{shape: s.shape, parts: s.parts}
			need := job.Bytes(0)
			roles, rolesErr := w.roles(c.shape)
			if rolesErr != nil {
				t.Fatal(rolesErr)
			}
			for role, e := range roles {
				if role != job.RoleProbe {
					need = max(need, e.Total())
				}
			}
			c.memory = max(need, limits.MemoryMin).CeilTo(limits.MemoryStep)
			if spec.Memory > 0 {
				c.memory = spec.Memory
			}
			for c.containers = 1; c.containers <= w.units(); c.containers++ {
				if spec.Threads == 0 && c.threads > 1 && c.threads != limits.Processors/c.containers || !c.allowed(t, w, spec, limits) {
					continue
				}
				exists = true
				if spec.Containers > 0 {
					continue // fixed: fewer are no choice
				}
				p := w.predict(c, limits)
				if err == nil && measure(p) < measure(best)-0.001 {
					t.Fatalf("chose %+v, but there is %+v (minimize %s)", best, p, spec.Minimize)
				}
			}
		}
		var short *Infeasible
		switch {
		case (err == nil) != exists:
			t.Fatalf("error %v, but there is a way: %v", err, exists)
		case err != nil && !errors.As(err, &short):
			t.Fatal(err)
		case err != nil:
			infeasible++
		case !best.allowed(t, w, spec, limits):
			t.Fatalf("%v is not within %+v, spec %+v", best, limits, spec)
		case len(why) < 4:
			t.Fatalf("explained by %q", why)
		default:
			found++
			if best.window > 0 {
				windows++
			}
		}
	})
	if found == 0 || infeasible == 0 || windows == 0 {
		t.Errorf("%d plans, %d with windows, %d infeasible: the test tests too little", found, windows, infeasible)
	}
}

// everyShape lists all that a container's memory may depend on.
func everyShape(w *work, spec job.Spec, limits job.Limits) (all []candidate) {
	for threads := 1; threads <= max(limits.Processors, spec.Threads, 1); threads++ {
		for micro := w.cut; ; micro = pieceBelow(micro) {
			for _, parts := range windowParts {
				for _, span := range []bool{false, true} {
					if span && w.numerics.Rounds() == 1 {
						continue
					}
					c := candidate{shape: shape{choice: choice{threads: threads, micro: micro}, span: span}, parts: parts}
					if parts > 1 {
						c.window = w.window(parts)
					}
					all = append(all, c)
					if w.model.spec.Remakes() {
						c.remake = true
						all = append(all, c)
					}
				}
			}
			if micro <= 1 {
				break
			}
		}
	}
	return all
}

// TestSearch_MoreMemoryIsNeverSlower: where memory is what limits.
func TestSearch_MoreMemoryIsNeverSlower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec, limits := anyWork(t)
		spec.Memory, spec.Containers, spec.Minimize = 0, 0, job.LeastTime
		before, _, err := w.choose(spec, limits)
		if err != nil {
			return
		}
		more := job.Bytes(rapid.IntRange(0, 200).Draw(t, "more")) * job.MB
		if limits.MemoryMax > 0 {
			limits.MemoryMax += more
		}
		if limits.PoolMemory > 0 {
			limits.PoolMemory += more
		}
		after, _, err := w.choose(spec, limits)
		if err != nil || after.seconds > before.seconds+0.001 {
			t.Fatalf("%v; with %v more: %v, %v", before, more, after, err)
		}
	})
}

// TestSpread_IsWhatASimulationGives: units start when a container is free, and
// those that run share the processors.
func TestSpread_IsWhatASimulationGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units, containers := rapid.IntRange(0, 50).Draw(t, "units"), rapid.IntRange(1, 60).Draw(t, "containers")
		processors := rapid.IntRange(1, 20).Draw(t, "processors")
		var clock, busy float64
		waiting := units
		var left []float64 // work of those that run
		for waiting > 0 || len(left) > 0 {
			for waiting > 0 && len(left) < containers {
				left, waiting = append(left, 1), waiting-1
			}
			least := math.Inf(1)
			for _, l := range left {
				least = min(least, l)
			}
			share := min(1, float64(processors)/float64(len(left)))
			clock += least / share
			busy += float64(len(left)) * least / share
			var still []float64
			for _, l := range left {
				if l-least > 1e-9 {
					still = append(still, l-least)
				}
			}
			left = still
		}
		wall, all := spread(units, containers, processors)
		if math.Abs(wall-clock) > 1e-6 || math.Abs(all-busy) > 1e-6 {
			t.Fatalf("%d units in %d containers on %d processors: %v and %v, simulated %v and %v", units, containers, processors, wall, all, clock, busy)
		}
	})
}

// TestAccuracy_DefaultsCostLittle: what the planner chooses by itself is within
// its price; what costs more is the user's choice, and is told.
func TestAccuracy_DefaultsCostLittle(t *testing.T) {
	told := 0
	rapid.Check(t, func(t *rapid.T) {
		d := job.Dataset{
			Name: "x", Height: 8, Width: 8, Channels: 1, Classes: 4, Test: 10, ShardRecords: 1000,
			Train: int(math.Pow(10, rapid.Float64Range(0, 5.5).Draw(t, "train"))),
		}
		spec := job.Spec{
			Kind: job.Train, Dataset: "x", Epochs: rapid.IntRange(1, 50).Draw(t, "epochs"), Batch: rapid.IntRange(1, 500).Draw(t, "batch"),
		}.WithDefaults()
		n, err := Numerics(spec, d, "k")
		if err != nil {
			t.Fatal(err)
		}
		if cost, note := AccuracyCost(n); cost > accuracyPrice || cost < 0 || (cost > 0) != (note != "") {
			t.Fatalf("%d replicas of local batch %d for %d steps: costs %v, %q", n.Replicas, n.LocalBatch, n.Steps, cost, note)
		}
		n.Replicas, n.LocalBatch = rapid.IntRange(1, 1024).Draw(t, "replicas"), rapid.IntRange(1, 500).Draw(t, "localBatch")
		n.Steps = rapid.IntRange(1, 5000).Draw(t, "steps")
		n.RoundSteps = rapid.IntRange(1, n.Steps).Draw(t, "roundSteps")
		cost, note := AccuracyCost(n)
		if cost < 0 || cost > 1 || (cost > 0) != (note != "") || n.Replicas == 1 && cost != 0 {
			t.Fatalf("%+v: costs %v, %q", n, cost, note)
		}
		if cost > 0 {
			told++
		}
	})
	if told == 0 {
		t.Error("nothing ever costs accuracy")
	}
}

// TestAccuracy_HarderIsNeverCheaper: the expected cost never falls when replicas are
// added, local batches grow, or steps or rounds are taken away, all else equal.
func TestAccuracy_HarderIsNeverCheaper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := job.Numerics{
			Replicas: rapid.IntRange(2, 1024).Draw(t, "replicas"), Batch: rapid.IntRange(1, 500).Draw(t, "batch"),
			LocalBatch: rapid.IntRange(1, 500).Draw(t, "localBatch"), Steps: rapid.IntRange(1, 5000).Draw(t, "steps"),
		}
		n.RoundSteps = rapid.IntRange(1, n.Steps).Draw(t, "roundSteps")
		before, _ := AccuracyCost(n)
		harder := n
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			harder.Replicas += rapid.IntRange(1, 1024).Draw(t, "more")
		case 1:
			harder.LocalBatch += rapid.IntRange(1, 500).Draw(t, "more")
		case 2:
			harder.Steps = rapid.IntRange(1, n.Steps).Draw(t, "fewer")
			harder.RoundSteps = min(n.RoundSteps, harder.Steps)
		case 3:
			harder.RoundSteps = rapid.IntRange(n.RoundSteps, n.Steps).Draw(t, "longer")
		}
		if after, note := AccuracyCost(harder); after < before {
			t.Fatalf("%+v costs %v, the harder %+v %v: %s", n, before, harder, after, note)
		}
	})
}

// TestAccuracy_Extremes: jobs so small that one round is left cost no less than the
// measured ones with more steps, and average plainly.
func TestAccuracy_Extremes(t *testing.T) {
	digits := job.Dataset{Name: "digits", Height: 8, Width: 8, Channels: 1, Classes: 10, Train: 1437, Test: 360, ShardRecords: 1000}
	for _, c := range []struct {
		spec  job.Spec
		least float64 // measured with disdel, in points
	}{
		{job.Spec{Replicas: 256}, 71.4},
		{job.Spec{Replicas: 300}, 71.4},
		{job.Spec{Replicas: 512}, 71.4},
		{job.Spec{Replicas: 900}, 71.4},
		{job.Spec{Replicas: 1024}, 71.4},
		{job.Spec{Replicas: 4, LocalBatch: 64, Epochs: 1}, 22.1}, // with five epochs
	} {
		c.spec.Kind, c.spec.Dataset = job.Train, "digits"
		n, err := Numerics(c.spec.WithDefaults(), digits, "k")
		if err != nil {
			t.Fatal(err)
		}
		if cost, note := AccuracyCost(n); cost < c.least/100 || cost > 1 {
			t.Errorf("%d replicas for %d steps: %v, %q; want %v points at least", n.Replicas, n.Steps, cost, note, c.least)
		}
		if n.Rounds() == 1 && n.Outer != (job.Nesterov{LearningRate: 1}) {
			t.Errorf("%d replicas for %d steps: one round with %+v", n.Replicas, n.Steps, n.Outer)
		}
	}
}

// TestAccuracy_OwnRow: a plan with exactly what was measured is told about, unless a
// setting that is no harder cost more.
func TestAccuracy_OwnRow(t *testing.T) {
	for _, s := range settings {
		n := job.Numerics{Replicas: s.replicas, Batch: 64, LocalBatch: int(s.spread * 64 / float64(s.replicas)), Steps: s.steps}
		n.RoundSteps = (s.steps + s.rounds - 1) / s.rounds
		if cost, note := AccuracyCost(n); cost*100 < s.mean()-100*negligible || cost > 0 && strings.HasPrefix(note, "at least") && cost*100 <= s.mean() {
			t.Errorf("%+v: costs %v, %q", s, cost, note)
		}
	}
}
