// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"errors"
	"testing"
	"time"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
)

// sequentialPlan is one of a single replica, whose last step is short.
func sequentialPlan() job.Numerics {
	n := tinyPlan()
	n.Replicas, n.LocalBatch, n.StepsPerEpoch, n.Epochs = 1, 5, 5, 3
	n.Steps, n.RoundSteps, n.Outer = 15, 15, job.Nesterov{LearningRate: 1}
	return n
}

// TestTrain_WholeAndWindowsGiveTheSameBits: how many records are held decides
// nothing.
func TestTrain_WholeAndWindowsGiveTheSameBits(t *testing.T) {
	n := tuned(sequentialPlan())
	reference := newWorld(t, t.Context(), n)
	reference.train(0, 0, n.Steps)
	want := reference.objects()
	for _, task := range []job.Task{{Whole: true}, {Window: 1}, {Window: 3}, {Window: 8}, {Window: 1000}} {
		x := newWorld(t, t.Context(), n)
		task.Role, task.To = job.RoleTrain, n.Steps
		if r := x.do(task); r.Step != n.Steps || r.Records != n.Epochs*tiny.Train {
			t.Errorf("%+v: stopped at step %d after %d records", task, r.Step, r.Records)
		}
		sameObjects(t, want, x.objects())
	}
	// The second half of what is done with another window.
	x := newWorld(t, t.Context(), n)
	x.do(job.Task{Role: job.RoleTrain, To: 7, Window: 2})
	x.do(job.Task{Role: job.RoleTrain, From: 7, To: n.Steps, Whole: true})
	sameObjects(t, want, x.objects())
}

// TestInfer_WindowsCountTheSame: the counts of inference are those of whole
// shards.
func TestInfer_WindowsCountTheSame(t *testing.T) {
	n := sequentialPlan()
	var want []byte
	for _, window := range []int{0, 1, 3, 8} {
		x := newWorld(t, t.Context(), n)
		x.train(0, 0, n.Steps)
		x.average(0, n.Steps)
		d := tiny
		x.do(job.Task{Role: job.RoleInfer, Model: x.keys.Final(), Dataset: &d, ShardTo: 2, Batch: 3, Window: window})
		got := x.object(x.keys.Counts(0))
		if window == 0 {
			want = got
		}
		if string(got) != string(want) {
			t.Errorf("window of %d: counts %s; want %s", window, got, want)
		}
	}
}

// TestTrain_WholeIsRefused: what makes no sense.
func TestTrain_WholeIsRefused(t *testing.T) {
	x := newWorld(t, t.Context(), sequentialPlan())
	for name, task := range map[string]job.Task{
		"budget": {Whole: true, Budget: time.Second},
		"window": {Window: -1},
	} {
		task.Role, task.Job, task.Plan, task.To = job.RoleTrain, worldJob, x.keys.Plan, 1
		if _, err := x.w.Do(t.Context(), task); !errors.Is(err, errTask) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlan_WholeIsTheWorkers: planner and worker count the same bytes for a
// whole training part, and the planner counts no fewer for a window.
func TestPlan_WholeIsTheWorkers(t *testing.T) {
	limits := job.Limits{MemoryDefault: 256 * job.MB, TimeoutDefault: 1 << 36, Processors: 1}
	n := sequentialPlan()
	own := training{plan: n, optimizer: nn.Optimizer(n.Local)}
	spec := job.Spec{Kind: job.Train, Dataset: tiny.Name, Strategy: job.BruteForce}.WithDefaults()
	r, err := plan.Train(spec, n, limits, job.Probe{})
	if err != nil {
		t.Fatal(err)
	}
	if e, want := r.Roles[job.RoleTrain], wholeBytes(own.stream(0)); e.Data != job.Bytes(want) {
		t.Errorf("the planner counts %d bytes for the records, the worker %d", e.Data, want)
	}
	// Least memory, to the byte, takes a window.
	spec = job.Spec{Kind: job.Train, Dataset: tiny.Name, Minimize: job.LeastMemory}.WithDefaults()
	n.Dataset.Height, n.Dataset.Width, n.Dataset.ShardRecords, n.Dataset.Train = 64, 64, 500, 900
	n.Model = []byte(`{"name":"thin","input":{"h":64,"w":64,"c":1},"classes":3,"layers":[` +
		`{"kind":"avgpool","pool":16},{"kind":"flatten"},{"kind":"dense","units":3}]}`)
	limits.MemoryStep = 1
	if r, err = plan.Train(spec, n, limits, job.Probe{}); err != nil {
		t.Fatal(err)
	}
	stream := (&training{plan: n, optimizer: own.optimizer}).stream(0)
	stream.Window = r.Window
	if e := r.Roles[job.RoleTrain]; r.Window < 1 || r.Window >= 500 || e.Data < job.Bytes(stream.Bytes()) || e.Data > job.Bytes(stream.Bytes())+64 {
		t.Errorf("window of %d: planned with %d bytes, takes %d", r.Window, e.Data, stream.Bytes())
	}
	// All of the memory is used, and nothing beyond it.
	s := own.stream(0)
	memory := make([]byte, wholeBytes(s))
	if a := newWhole(memory, s); cap(a.window.Pixels) != largestPiece(s.Pieces)*s.RecordBytes || len(a.values) != shard.Records(s.Pieces)*s.RecordBytes {
		t.Errorf("%d bytes for a piece, %d values", cap(a.window.Pixels), len(a.values))
	}
}
