// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"fmt"
	"slices"
	"testing"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/plan"
)

// TestPlan_EstimatesAreTheWorkers: planner and worker, which do not know each
// other, count the same bytes for the model in training and in averaging, and
// the planner counts no fewer for the records.
func TestPlan_EstimatesAreTheWorkers(t *testing.T) {
	// The last one's records are augmented, which takes more.
	for i, optimizer := range append(nn.Optimizers(), nn.KindSGD) {
		for _, localBatch := range []int{1, 5, 7, 8, 4096} {
			limits := job.Limits{MemoryDefault: 256 * job.MB, TimeoutDefault: 1 << 36, Processors: 3 << i}
			n := tinyPlan()
			n.Replicas, n.LocalBatch = 3, localBatch // of 7, 7 and 8 records
			o, err := nn.ParseOptimizer(optimizer, 0)
			if err != nil {
				t.Fatal(err)
			}
			n.Local, n.Flips = job.Optimizer(o), i == len(nn.Optimizers())
			spec := job.Spec{Kind: job.Train, Dataset: n.Dataset.Name, Containers: n.Replicas}.WithDefaults()
			// So slow that threads and invocations of several rounds pay.
			r, err := plan.Train(spec, n, limits, job.Probe{FLOPS: 1e3})
			if err != nil {
				t.Fatal(err)
			}
			own := training{plan: n, model: tinyModel, optimizer: o, count: tinyModel.ParamCount()}
			if got, want := r.Roles[job.RoleAverage].Model, own.averageBytes(); got != job.Bytes(want) {
				t.Errorf("%s: averaging is planned with %v, takes %d bytes", optimizer, got, want)
			}
			for replica := range n.Replicas {
				stream := own.stream(replica)
				task := r.Equip(job.Task{Role: job.RoleTrain})
				if task.Threads != 1<<i {
					t.Fatalf("%d threads, want %d", task.Threads, 1<<i)
				}
				program, err := nn.Compile(own.model, own.config(task))
				if err != nil {
					t.Fatal(err)
				}
				e := r.Roles[job.RoleTrain]
				// Replicas run at once here, so that each may have to average.
				fit := max(program.Sizes().Total, int64(own.averageBytes()))
				if r.SpanRounds < 2 || e.Fit != job.Bytes(fit) || e.Data < job.Bytes(stream.Bytes()) {
					t.Errorf("%s, local batch %d: planned with %v and %v, replica %d takes %d and %d bytes",
						optimizer, localBatch, e.Fit, e.Data, replica, fit, stream.Bytes())
				}
			}
		}
	}
}

// TestTrain_LocalBatchBeyondTheRecords: a local batch larger than a replica is
// all of its records, with the bits of a program that is compiled for the whole
// batch.
func TestTrain_LocalBatchBeyondTheRecords(t *testing.T) {
	const batch = 500
	n := tinyPlan()
	n.LocalBatch, n.StepsPerEpoch, n.Steps, n.RoundSteps = batch, 1, 2, 2
	x := newWorld(t, t.Context(), n)
	x.train(1, 0, 1)
	got, _ := x.tensorsOf(x.keys.Replica(1, 1))

	program, err := nn.Compile(tinyModel, nn.Config{Batch: batch, Train: true, Optimizer: nn.Optimizer(n.Local)})
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
	stream, err := shard.NewStream(shard.StreamSpec{
		Pieces: shard.Pieces(tiny.Train, tiny.ShardRecords, n.Replicas, 1), RecordBytes: int(tiny.RecordBytes()),
		Seed: n.Seed, Replica: 1, Batch: batch, StepsPerEpoch: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := stream.Next(t.Context(), x.w.loader(tiny, job.TrainPart))
	if err != nil {
		t.Fatal(err)
	}
	if b.Len() != n.ReplicaRecords(1) {
		t.Fatalf("the batch has %d records", b.Len())
	}
	if _, err := instance.Step(nn.StepInput{Pixels: b.Pixels, Labels: b.Labels, Scale: tiny.Scale, Step: 1, Seed: n.Seed, Replica: 1}); err != nil {
		t.Fatal(err)
	}
	for _, p := range tinyModel.Params() {
		if want := instance.Weights()[p.Offset : p.Offset+p.Len]; !slices.Equal(got[p.Name], want) {
			t.Errorf("%s: %s", p.Name, fmt.Sprint("is ", got[p.Name], "; want ", want))
		}
	}
}
