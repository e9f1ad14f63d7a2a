// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/store"
)

// TestState_DoesNotDependOnCuts: wherever the work of a replica is cut, whatever
// the number of threads and the pieces of a step, every object in the store has the
// bytes that it has when every step is stored.
func TestState_DoesNotDependOnCuts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := tinyPlan()
		n.Replicas = rapid.IntRange(1, 4).Draw(r, "replicas")
		n.LocalBatch = rapid.IntRange(1, 8).Draw(r, "batch")
		n.StepsPerEpoch = rapid.IntRange(1, 6).Draw(r, "steps an epoch")
		n.Steps = n.StepsPerEpoch * n.Epochs
		n.RoundSteps = rapid.IntRange(1, n.Steps+2).Draw(r, "steps a round")
		n.Seed = rapid.Uint64().Draw(r, "seed")
		if rapid.Bool().Draw(r, "tuned") {
			n = tuned(n)
		}
		every := newWorld(r, t.Context(), n)
		want := every.job(always)

		cut := newWorld(r, t.Context(), n)
		cut.equip = func(task job.Task) job.Task {
			task.Threads, task.Spin = rapid.IntRange(0, 3).Draw(r, "threads"), rapid.Bool().Draw(r, "spin")
			task.MicroBatch = rapid.IntRange(0, 9).Draw(r, "micro-batch")
			return task
		}
		got := cut.job(func(int, int) bool { return rapid.Bool().Draw(r, "cut") })
		if got != want || got == "" {
			r.Errorf("model %s; want %s", got, want)
		}
		sameObjects(r, cut.objects(), every.objects())
	})
}

// TestTrain_HandsOver: a budget that is used up ends a slice after a step, and
// the rest goes on from there to the same state.
func TestTrain_HandsOver(t *testing.T) {
	whole := newWorld(t, t.Context(), tinyPlan())
	whole.train(1, 0, 3)
	parts := newWorld(t, t.Context(), tinyPlan())
	for step := range 3 {
		r := parts.do(job.Task{Role: job.RoleTrain, Replica: 1, From: step, To: 3, Budget: 1})
		want := job.NeedTime
		if step == 2 {
			want = ""
		}
		if r.Step != step+1 || r.Reason != want {
			t.Fatalf("from step %d: step %d, reason %q; want step %d, reason %q", step, r.Step, r.Reason, step+1, want)
		}
		if r.Records != 3 || r.LossSum <= 0 || r.StepTime <= 0 {
			t.Errorf("from step %d: %+v; want the loss and the time of 3 records", step, r)
		}
	}
	key := whole.keys.Replica(1, 3)
	if !bytes.Equal(whole.object(key), parts.object(key)) {
		t.Error("the state depends on hand-overs")
	}
}

// TestRepeat_WritesNothingNew: tasks that run again, late and in another order,
// leave the store as it was.
func TestRepeat_WritesNothingNew(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	digest := x.job(always)
	infer := job.Task{Role: job.RoleInfer, Model: x.keys.Final(), Dataset: &tiny, ShardTo: tiny.Shards(job.TestPart), Batch: 4}
	x.do(infer)
	before := x.objects()
	for round := x.plan.Rounds() - 1; round >= 0; round-- {
		start, end := round*x.plan.RoundSteps, x.plan.RoundEnd(round)
		if got := x.average(start, end); end == x.plan.Steps && got != digest {
			t.Errorf("the repeated average made %s; want %s", got, digest)
		}
		for replica := x.plan.Replicas - 1; replica >= 0; replica-- {
			x.train(replica, start, end)
		}
	}
	x.do(infer)
	after := x.objects()
	sameObjects(t, before, after)
	if len(after) != len(before) {
		t.Errorf("%d objects; want %d", len(after), len(before))
	}
}

// TestAverage_IsDiLoCo compares each average with one computed value by value,
// in another formulation of Nesterov's step.
func TestAverage_IsDiLoCo(t *testing.T) {
	n := tinyPlan()
	n.Replicas = 3 // of 7, 7 and 8 records
	x := newWorld(t, t.Context(), n)
	x.job(never)

	old, outer := map[string][]float32{}, map[string][]float32{}
	weights := make([]float32, tinyModel.ParamCount())
	nn.InitWeights(tinyModel, n.Seed, weights)
	for _, p := range tinyModel.Params() {
		old[p.Name] = weights[p.Offset : p.Offset+p.Len]
		outer[p.Name] = make([]float32, p.Len)
	}
	for round := range n.Rounds() {
		end := n.RoundEnd(round)
		mean := map[string][]float64{}
		for replica := range n.Replicas {
			from, to := shard.Owned(n.Dataset.Train, n.Replicas, replica)
			state, _ := x.tensorsOf(x.keys.Replica(replica, end))
			for name, values := range state {
				if mean[name] == nil {
					mean[name] = make([]float64, len(values))
				}
				for i, v := range values {
					mean[name][i] += float64(v) * float64(to-from) / float64(n.Dataset.Train)
				}
			}
		}
		key := x.keys.Global(end)
		if end == n.Steps {
			key = x.keys.Final()
		}
		got, _ := x.tensorsOf(key)
		for name := range old {
			for i := range old[name] {
				change := float64(old[name][i]) - mean[name][i]
				momentum := n.Outer.Momentum*float64(outer[name][i]) + change
				moved := n.Outer.LearningRate*change + n.Outer.LearningRate*n.Outer.Momentum*momentum
				near(t, fmt.Sprintf("round %d, %s[%d]", round, name, i), got[name][i], float64(old[name][i])-moved)
				if end < n.Steps {
					near(t, fmt.Sprintf("round %d, momentum of %s[%d]", round, name, i), got[prefixOuter+name][i], momentum)
					for _, prefix := range []string{prefixM, prefixV} {
						near(t, fmt.Sprintf("round %d, %s%s[%d]", round, prefix, name, i), got[prefix+name][i], mean[prefix+name][i])
					}
				}
			}
			old[name], outer[name] = got[name], got[prefixOuter+name]
		}
	}
}

// near allows for one rounding to float32.
func near(t *testing.T, what string, got float32, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 1e-7*math.Abs(want)+1e-12 {
		t.Errorf("%s is %v; want %v", what, got, want)
	}
}

// TestAverage_Plain: one round with rate 1 and no momentum is the thesis's
// weighted mean, whatever the weights were before.
func TestAverage_Plain(t *testing.T) {
	old := []float32{1, -3, 1e-20, 0, 4e30}
	mean := []float64{1e-13, 2.5, 1, -7e-30, 1}
	weights, outer := slices.Clone(old), make([]float32, len(old))
	outerStep(job.Nesterov{LearningRate: 1}, weights, outer, mean)
	for i := range weights {
		if weights[i] != float32(mean[i]) {
			t.Errorf("from %v: %v; want the mean %v", old[i], weights[i], float32(mean[i]))
		}
	}
}

// TestOneReplica_IsSequentialTraining: one replica and one round give, bit for
// bit, what a plain loop over the engine gives.
func TestOneReplica_IsSequentialTraining(t *testing.T) {
	n := tinyPlan()
	n.Replicas, n.StepsPerEpoch, n.LocalBatch = 1, 6, 4 // 22 records: the last batch has 2
	n.Steps = n.StepsPerEpoch * n.Epochs
	n.RoundSteps, n.Outer = n.Steps, job.Nesterov{LearningRate: 1}
	x := newWorld(t, t.Context(), n)
	x.job(never)

	program, err := nn.Compile(tinyModel, nn.Config{Batch: n.LocalBatch, Train: true, Optimizer: nn.Optimizer(n.Local)})
	if err != nil {
		t.Fatal(err)
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	instance, err := program.Bind(arena.Bytes(), kernel.Best())
	if err != nil {
		t.Fatal(err)
	}
	instance.Init(n.Seed)
	pixels, labels := records(job.TrainPart)
	step := 0
	for epoch := range n.Epochs {
		order := epochOrder(n.Seed, epoch)
		for len(order) > 0 {
			batch := order[:min(n.LocalBatch, len(order))]
			order = order[len(batch):]
			var px []byte
			var ls []uint16
			for _, record := range batch {
				px = append(px, pixels[record*16:(record+1)*16]...)
				ls = append(ls, labels[record])
			}
			step++
			if _, err := instance.Step(nn.StepInput{Pixels: px, Labels: ls, Scale: tiny.Scale, Step: step}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if step != n.Steps {
		t.Fatalf("%d steps; want %d", step, n.Steps)
	}
	got, _ := x.tensorsOf(x.keys.Final())
	for _, p := range tinyModel.Params() {
		if want := instance.Weights()[p.Offset : p.Offset+p.Len]; !slices.Equal(got[p.Name], want) {
			t.Errorf("%s is %v; want %v", p.Name, got[p.Name], want)
		}
	}
}

// epochOrder lists all training records as the only replica sees them.
func epochOrder(seed uint64, epoch int) (order []int) {
	shards := make([]uint32, tiny.Shards(job.TrainPart))
	o := shard.Order{Seed: seed}
	o.Pieces(epoch, shards)
	for _, index := range shards {
		first := int(index) * tiny.ShardRecords
		inside := make([]uint32, min(tiny.ShardRecords, tiny.Train-first))
		o.Records(epoch, int(index), inside)
		for _, i := range inside {
			order = append(order, first+int(i))
		}
	}
	return order
}

// TestModel_SaysAllThatRunningItTakes: metadata is complete and does not differ
// between runs.
func TestModel_SaysAllThatRunningItTakes(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	x.job(never)
	_, meta := x.tensorsOf(x.keys.Final())
	if got := slices.Sorted(maps.Keys(meta)); !slices.Equal(got, []string{metaDataset, metaModel, metaNumerics}) {
		t.Errorf("metadata has %v", got)
	}
	if spec, err := nn.ParseSpec([]byte(meta[metaModel])); err != nil || !bytes.Equal(spec.Canonical(), tinyModel.Canonical()) {
		t.Errorf("model is %s, %v", meta[metaModel], err)
	}
	var d job.Dataset
	if err := json.Unmarshal([]byte(meta[metaDataset]), &d); err != nil || fmt.Sprint(d) != fmt.Sprint(tiny) {
		t.Errorf("data set is %v, %v; want %v", d, err, tiny)
	}
	if meta[metaNumerics] != x.keys.Plan {
		t.Errorf("plan is %s; want %s", meta[metaNumerics], x.keys.Plan)
	}
	if strings.Contains(fmt.Sprint(meta), string(worldJob)) {
		t.Errorf("metadata names the job, so two runs of one plan differ: %v", meta)
	}
}

// deepModel has so many layers that weights of 10^6 overflow.
func deepModel() []byte {
	s := nn.Spec{Name: "deep", Input: tinyModel.Input, Classes: tiny.Classes, Layers: []nn.Layer{{Kind: nn.KindFlatten}}}
	for range 7 {
		s.Layers = append(s.Layers, nn.Layer{Kind: nn.KindDense, Units: 8})
	}
	s.Layers = append(s.Layers, nn.Layer{Kind: nn.KindDense, Units: tiny.Classes})
	return s.Canonical()
}

// TestTrain_Diverges: a loss that is not finite names the step, the replica and
// what to do.
func TestTrain_Diverges(t *testing.T) {
	n := tinyPlan()
	n.Local.LearningRate = 1e6
	n.Model = deepModel()
	x := newWorld(t, t.Context(), n)
	_, err := x.w.Do(t.Context(), job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, Replica: 1, From: 0, To: 3})
	if err == nil || reasonOf(err) != job.NonFinite {
		t.Fatalf("error %v; want one with reason %s", err, job.NonFinite)
	}
	for _, part := range []string{"step 2 ", "epoch 1", "replica 1", "1e+06", "lower the learning rate"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if left := slices.Sorted(maps.Keys(x.objects())); !slices.Equal(left, []string{x.keys.Numerics()}) {
		t.Errorf("a diverged slice left %v", left)
	}
}

// cancelling cancels when a shard is read.
type cancelling struct {
	store.Store
	cancel context.CancelFunc
}

func (s cancelling) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := s.Store.Get(context.WithoutCancel(ctx), key)
	if strings.HasPrefix(key, "data/") {
		s.cancel()
	}
	return r, err
}

// TestTrain_Cancelled: a call whose caller has gone ends between two steps and
// stores nothing.
func TestTrain_Cancelled(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	x.w.store = cancelling{x.st, cancel}
	_, err := x.w.Do(ctx, job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, From: 0, To: 3})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
	if left := x.objects(); len(left) != 1 {
		t.Errorf("a cancelled slice left %v", slices.Sorted(maps.Keys(left)))
	}
}
