// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/nn/safetensors"
	"disdel/internal/points"
	"disdel/internal/store"
	"disdel/internal/store/dir"
)

// otherState writes a state file of the world's model with other metadata,
// groups or values than the one that belongs there.
func (x *world) otherState(meta map[string]string, prefixes ...string) []byte {
	x.t.Helper()
	var all []safetensors.Tensor
	for _, prefix := range prefixes {
		all = append(all, group{prefix, tinyModel.Params()}.tensors(make([]float32, tinyModel.ParamCount()))...)
	}
	var out bytes.Buffer
	if err := safetensors.Write(&out, meta, all); err != nil {
		x.t.Fatal(err)
	}
	return out.Bytes()
}

// TestErrors: whatever is wrong with a task or with what the store holds is an
// error that names it, with the reason that the controller goes by.
func TestErrors(t *testing.T) {
	step3 := map[string]string{metaStep: "3"}
	train := job.Task{Role: job.RoleTrain, From: 3, To: 6}
	average := job.Task{Role: job.RoleAverage, From: 3, To: 6}
	infer := job.Task{Role: job.RoleInfer, Dataset: &tiny, Model: "m", ShardTo: 2, Batch: 4}
	withDataset := func(task job.Task, change func(*job.Dataset)) job.Task {
		d := tiny
		change(&d)
		task.Dataset = &d
		return task
	}
	with := func(task job.Task, change func(*job.Task)) job.Task {
		change(&task)
		return task
	}
	none := func(*world) {}
	for _, c := range []struct {
		name   string
		task   job.Task
		damage func(x *world)
		reason job.Reason
		says   []string
	}{
		{"no role", job.Task{}, none, job.BadTask, []string{`role ""`, "controller's version"}},
		{"unknown role", job.Task{Role: "dance"}, none, job.BadTask, []string{`"dance"`}},

		{"no such replica", with(train, func(k *job.Task) { k.Replica = 2 }), none, job.BadTask, []string{"replica 2", "2 replicas"}},
		{"negative replica", with(train, func(k *job.Task) { k.Replica = -1 }), none, job.BadTask, []string{"replica -1"}},
		{"backwards", with(train, func(k *job.Task) { k.To = 3 }), none, job.BadTask, []string{"steps 3 to 3"}},
		{"negative step", with(train, func(k *job.Task) { k.From = -3 }), none, job.BadTask, []string{"steps -3 to 6"}},
		{"across rounds", with(train, func(k *job.Task) { k.To = 7 }), none, job.BadTask, []string{"steps 3 to 7", "ends at step 6"}},
		{"across rounds without time", with(train, func(k *job.Task) { k.To, k.Meet = 8, true }), none, job.BadTask, []string{"steps 3 to 8 in 0s", "meeting the others"}},
		{"into a round", with(train, func(k *job.Task) { k.To, k.Meet, k.Budget = 7, true, 1 }), none, job.BadTask, []string{"steps 3 to 7", "a round's end"}},
		{"beyond the plan", with(train, func(k *job.Task) { k.From, k.To = 8, 9 }), none, job.BadTask, []string{"steps 8 to 9"}},
		{"far beyond the plan", with(train, func(k *job.Task) { k.From, k.To = 1<<62, 1<<62+1 }), none, job.BadTask, []string{"steps 46"}},
		{"part of a round", with(average, func(k *job.Task) { k.To = 5 }), none, job.BadTask, []string{"steps 3 to 5 are no round"}},
		{"average from nowhere", with(average, func(k *job.Task) { k.From, k.To = 8, 11 }), none, job.BadTask, []string{"no round"}},

		{"no plan", train, func(x *world) { x.replace(x.keys.Numerics(), []byte("{")) }, job.BadTask, []string{x0(func(x *world) string { return x.keys.Numerics() })}},
		{"another plan", train, func(x *world) { x.replace(x.keys.Numerics(), []byte("{}")) }, job.BadTask, []string{"has digest", "the task wants"}},
		{"a plan without end", train, func(x *world) { x.replace(x.keys.Numerics(), make([]byte, maxNumericsBytes+1)) }, job.Corrupt, []string{"more than"}},
		{"the plan is gone", train, func(x *world) { _ = x.st.Delete(x.ctx, x.keys.Numerics()) }, job.StoreFailed, []string{"numerics", "not found", "--worker-store"}},

		{"no state", train, func(x *world) { _ = x.st.Delete(x.ctx, x.keys.Global(3), x.keys.Global(6)) }, job.StoreFailed, []string{"000000003/global", "not found"}},
		{"not a state", train, func(x *world) { x.replace(x.keys.Global(3), []byte("not a state")) }, job.Corrupt, []string{"000000003/global", "header"}},
		{"empty state", train, func(x *world) { x.replace(x.keys.Global(3), nil) }, job.Corrupt, []string{"truncated"}},
		{"truncated state", train, func(x *world) {
			raw := x.object(x.keys.Global(3))
			x.replace(x.keys.Global(3), raw[:len(raw)*3/4])
		}, job.Corrupt, []string{"000000003/global", "truncated"}},
		{"state of another plan", train, func(x *world) {
			x.replace(x.keys.Global(3), x.otherState(map[string]string{metaNumerics: "abc", metaStep: "3"}, "", prefixM, prefixV, prefixOuter))
		}, job.Corrupt, []string{"belongs to plan abc", "want plan " + "%.12s"}},
		{"state of another step", train, func(x *world) {
			x.replace(x.keys.Global(3), x.otherState(map[string]string{metaNumerics: x.keys.Plan, metaStep: "6"}, "", prefixM, prefixV, prefixOuter))
		}, job.Corrupt, []string{"step 6", "step 3"}},
		{"state without metadata", train, func(x *world) { x.replace(x.keys.Global(3), x.otherState(nil, "")) }, job.Corrupt, []string{"belongs to plan  step"}},
		{"state with too little", train, func(x *world) {
			step3[metaNumerics] = x.keys.Plan
			x.replace(x.keys.Global(3), x.otherState(step3, "", prefixM, prefixV))
		}, job.Corrupt, []string{"tensors; want"}},
		{"state with too much", average, func(x *world) {
			step6 := map[string]string{metaNumerics: x.keys.Plan, metaStep: "6"}
			x.replace(x.keys.Replica(1, 6), x.otherState(step6, "", prefixM, prefixV, prefixOuter))
		}, job.Corrupt, []string{"000000006/replica-0001", "tensors; want"}},
		{"state in another order", average, func(x *world) {
			step6 := map[string]string{metaNumerics: x.keys.Plan, metaStep: "6"}
			x.replace(x.keys.Replica(1, 6), x.otherState(step6, prefixM, "", prefixV))
		}, job.Corrupt, []string{"tensor 0 is m."}},
		{"a replica's state is missing", average, func(x *world) { _ = x.st.Delete(x.ctx, x.keys.Replica(1, 6), x.keys.Global(6)) }, job.StoreFailed, []string{"000000006/replica-0001"}},
		{"the last average is missing", average, func(x *world) { _ = x.st.Delete(x.ctx, x.keys.Global(3), x.keys.Global(6)) }, job.StoreFailed, []string{"000000003/global"}},

		{"a shard is missing", train, func(x *world) { _ = x.st.Delete(x.ctx, tiny.ShardKey(job.TrainPart, 0)) }, job.StoreFailed, []string{"data/tiny/8/train/000000", "not found"}},
		{"a shard is garbage", train, func(x *world) { x.replace(tiny.ShardKey(job.TrainPart, 0), []byte("no shard")) }, job.Corrupt, []string{"data/tiny/8/train/000000"}},
		{"a shard is cut off", train, func(x *world) {
			raw := x.object(tiny.ShardKey(job.TrainPart, 0))
			x.replace(tiny.ShardKey(job.TrainPart, 0), raw[:len(raw)-1])
		}, job.Corrupt, []string{"data/tiny/8/train/000000"}},
		{"a shard of other images", train, func(x *world) {
			x.replace(tiny.ShardKey(job.TrainPart, 0), shardOf(shard.Header{Records: 8, H: 2, W: 8, C: 1, Classes: 3}))
		}, job.Corrupt, []string{"2x8x1", "want 4x4x1"}},
		{"a shard with too few records", train, func(x *world) {
			x.replace(tiny.ShardKey(job.TrainPart, 0), shardOf(shard.Header{Records: 7, H: 4, W: 4, C: 1, Classes: 3}))
		}, job.Corrupt, []string{"data/tiny/8/train/000000"}},

		{"infer without a data set", with(infer, func(k *job.Task) { k.Dataset = nil }), none, job.BadTask, []string{"no data set"}},
		{"infer with an empty data set", withDataset(infer, func(d *job.Dataset) { *d = job.Dataset{} }), none, job.BadTask, []string{"no data set"}},
		{"infer beyond the shards", with(infer, func(k *job.Task) { k.ShardTo = 3 }), none, job.BadTask, []string{"shards 0 to 3 of 2"}},
		{"infer nothing", with(infer, func(k *job.Task) { k.ShardFrom = 2 }), none, job.BadTask, []string{"shards 2 to 2"}},
		{"infer a negative piece", with(infer, func(k *job.Task) { k.Piece = -1 }), none, job.BadTask, []string{"piece -1"}},
		{"infer without a batch", with(infer, func(k *job.Task) { k.Batch = 0 }), none, job.BadTask, []string{"batch 0"}},
		{"no model", infer, none, job.StoreFailed, []string{"m: ", "not found"}},
		{"a state as the model", with(infer, func(k *job.Task) { k.Model = "s" }), func(x *world) { x.replace("s", x.object(x.keys.Global(3))) }, job.Corrupt, []string{"model s", metaModel}},
		{"more than the model", infer, func(x *world) {
			x.replace("m", x.otherState(map[string]string{metaModel: string(tinyModel.Canonical())}, "", prefixM))
		}, job.Corrupt, []string{"model m", "tensors; want"}},
		{"model of another data set", withDataset(infer, func(d *job.Dataset) { d.Classes = 4 }), func(x *world) { x.replace("m", x.object(x.keys.Final())) }, job.BadTask, []string{"knows 3 classes", "tiny has 4x4x1 and 4"}},
		{"model of larger images", withDataset(infer, func(d *job.Dataset) { d.Height = 5 }), func(x *world) { x.replace("m", x.object(x.keys.Final())) }, job.BadTask, []string{"4x4x1", "5x4x1"}},
		{"model cut off", infer, func(x *world) { raw := x.object(x.keys.Final()); x.replace("m", raw[:len(raw)-4]) }, job.Corrupt, []string{"model m: ", "dense_", "truncated"}},
		{"model with a tail", infer, func(x *world) { x.replace("m", append(x.object(x.keys.Final()), 0)) }, job.Corrupt, []string{"after the last tensor"}},

		{"evaluate nothing", job.Task{Role: job.RoleEvaluate, Dataset: &tiny}, none, job.Corrupt, []string{"0 records", "test part has 10"}},
		{"evaluate without a data set", job.Task{Role: job.RoleEvaluate}, none, job.BadTask, []string{"no data set"}},
		{"evaluate what is missing", job.Task{Role: job.RoleEvaluate, Dataset: &tiny, Pieces: 1}, none, job.StoreFailed, []string{"counts/000000", "not found"}},
		{"evaluate garbage", job.Task{Role: job.RoleEvaluate, Dataset: &tiny, Pieces: 1}, func(x *world) { x.replace(x.keys.Counts(0), []byte("x")) }, job.Corrupt, []string{"counts/000000"}},
		{"evaluate other classes", job.Task{Role: job.RoleEvaluate, Dataset: &tiny, Pieces: 1}, func(x *world) {
			x.replace(x.keys.Counts(0), []byte(`{"records":10,"confusion":[[10]]}`))
		}, job.Corrupt, []string{"1 classes; want 3"}},
		{"evaluate ragged counts", job.Task{Role: job.RoleEvaluate, Dataset: &tiny, Pieces: 1}, func(x *world) {
			x.replace(x.keys.Counts(0), []byte(`{"records":10,"confusion":[[1,2,3],[4],[0,0,0]]}`))
		}, job.Corrupt, []string{"class 1 has 1 columns"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newWorld(t, t.Context(), tinyPlan())
			x.job(never)
			x.replace("unrelated", []byte("so that Delete has nothing else to do"))
			c.damage(x)
			c.task.Job, c.task.Plan = worldJob, x.keys.Plan
			before := len(x.objects())
			result, err := x.w.Do(t.Context(), c.task)
			if err == nil {
				t.Fatalf("no error; result %+v", result)
			}
			if got := reasonOf(err); got != c.reason {
				t.Errorf("reason %s; want %s (%v)", got, c.reason, err)
			}
			for _, part := range c.says {
				part = strings.ReplaceAll(part, "%.12s", fmt.Sprintf("%.12s", x.keys.Plan))
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if after := len(x.objects()); after != before {
				t.Errorf("the failed task left %d objects", after-before)
			}
		})
	}
}

// x0 asks a world like the one of the case.
func x0(ask func(*world) string) string {
	n := tinyPlan()
	digest, err := n.Digest()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return ask(&world{keys: job.Keys{Job: worldJob, Plan: digest}})
}

func shardOf(h shard.Header) []byte {
	var out bytes.Buffer
	if err := shard.Write(&out, h, make([]byte, h.Records*h.RecordBytes()), make([]uint16, h.Records)); err != nil {
		panic("BUG: " + err.Error())
	}
	return out.Bytes()
}

// TestKernel_Asked: a task's form of kernels counts, and one that is not there is
// refused, as is one of another set than the plan's.
func TestKernel_Asked(t *testing.T) {
	t.Parallel()
	n := tinyPlan()
	n.KernelSet = kernel.FMA().Name
	task := job.Task{Role: job.RoleTrain, To: 3}
	var want []byte
	for _, form := range kernel.Forms() {
		x := newWorld(t, t.Context(), n)
		task.Job, task.Plan, task.Kernel = worldJob, x.keys.Plan, form
		_, err := x.w.Do(t.Context(), task)
		switch set, unsupported := kernel.Form(form); {
		case unsupported != nil:
			if !errors.Is(err, errTask) || !errors.Is(err, kernel.ErrUnsupported) {
				t.Errorf("%s: %v", form, err)
			}
		case set.Name != n.KernelSet:
			if !errors.Is(err, errTask) || !strings.Contains(err.Error(), "this worker has "+set.Name) {
				t.Errorf("%s: %v", form, err)
			}
		case err != nil:
			t.Errorf("%s: %v", form, err)
		default:
			got := x.object(x.keys.Replica(0, 3))
			if want == nil {
				want = got
			} else if !bytes.Equal(got, want) {
				t.Errorf("%s has other bits", form)
			}
		}
	}
	x := newWorld(t, t.Context(), n)
	task.Kernel = "sse"
	if _, err := x.w.Do(t.Context(), task); !errors.Is(err, errTask) || !strings.Contains(err.Error(), "avx2, avx512, generic, reference") {
		t.Errorf("a form that is none: %v", err)
	}
	if points.Stride > 1 { // a probe trains, which takes the reference long
		return
	}
	result, err := x.w.Do(t.Context(), job.Task{Role: job.RoleProbe, Job: "probe", Kernel: kernel.FormReference})
	if err != nil || result.Probe.KernelSet != "fma-1" || result.Probe.Kernel != kernel.FormReference {
		t.Errorf("a probe of the reference: %+v, %v", result.Probe, err)
	}
}

// TestErrors_Plan: a worker refuses plans that it cannot carry out as they are
// meant.
func TestErrors_Plan(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*job.Numerics)
		says   string
	}{
		{"another kernel set", func(n *job.Numerics) { n.KernelSet = "fma-9" }, "kernel set fma-9, this worker has " + kernel.Best().Name},
		{"a later version", func(n *job.Numerics) { n.Version++ }, "numerics version 2"},
		{"no replicas", func(n *job.Numerics) { n.Replicas = 0 }, "0 replicas"},
		{"no rounds", func(n *job.Numerics) { n.RoundSteps = 0 }, "rounds of 0"},
		{"no steps", func(n *job.Numerics) { n.Steps = 0 }, "0 steps"},
		{"no epochs", func(n *job.Numerics) { n.StepsPerEpoch = 0 }, "0 steps an epoch"},
		{"no batch", func(n *job.Numerics) { n.LocalBatch = 0 }, "batch"},
		{"no shards", func(n *job.Numerics) { n.Dataset.ShardRecords = 0 }, "0 records a shard"},
		{"a model that is none", func(n *job.Numerics) { n.Model = []byte(`{"layers":[]}`) }, "nn: bad model"},
		{"a learning rate that is none", func(n *job.Numerics) { n.Local.LearningRate = -1 }, "learning rate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := tinyPlan()
			c.change(&n)
			x := newWorld(t, t.Context(), n)
			_, err := x.w.Do(t.Context(), job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, To: 3})
			if err == nil || reasonOf(err) != job.BadTask || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v; want one with reason %s that says %q", err, job.BadTask, c.says)
			}
		})
	}
}

// TestErrors_Job: a job id that is no part of a key never becomes one.
func TestErrors_Job(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	for _, role := range []job.Role{job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate} {
		for _, id := range []job.ID{"", "../../etc", "A", "-x"} {
			_, err := x.w.Do(t.Context(), job.Task{Role: role, Job: id, Plan: x.keys.Plan, Dataset: &tiny, To: 3})
			if err == nil || reasonOf(err) != job.BadTask {
				t.Errorf("%s of job %q: error %v; want reason %s", role, id, err, job.BadTask)
			}
		}
	}
}

// flipBit changes the lowest bit of one byte of a file.
func flipBit(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestErrors_FlippedBits: damage to any object that a task reads is an error.
func TestErrors_FlippedBits(t *testing.T) {
	folder := t.TempDir()
	st, err := dir.Open(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	src := newWorld(t, t.Context(), tinyPlan())
	src.job(never)
	for _, key := range []string{src.keys.Numerics(), src.keys.Global(3), src.keys.Final(), tiny.ShardKey(job.TrainPart, 0), tiny.ShardKey(job.TestPart, 0), tiny.ShardKey(job.TestPart, 1)} {
		raw := src.object(key)
		if _, err := st.PutIfAbsent(t.Context(), key, func(out io.Writer) error { _, err := out.Write(raw); return err }); err != nil {
			t.Fatal(err)
		}
	}
	w := New(Config{})
	w.store = st
	tasks := map[string]job.Task{
		src.keys.Numerics():             {Role: job.RoleTrain, From: 3, To: 6},
		src.keys.Global(3):              {Role: job.RoleTrain, From: 3, To: 6},
		tiny.ShardKey(job.TrainPart, 0): {Role: job.RoleTrain, From: 3, To: 6},
		src.keys.Final():                {Role: job.RoleInfer, Dataset: &tiny, Model: src.keys.Final(), ShardTo: 2, Batch: 4},
		tiny.ShardKey(job.TestPart, 0):  {Role: job.RoleInfer, Dataset: &tiny, Model: src.keys.Final(), ShardTo: 2, Batch: 4},
	}
	for key, task := range tasks {
		task.Job, task.Plan = worldJob, src.keys.Plan
		path := filepath.Join(folder, "objects", filepath.FromSlash(key)+"@")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size := int(info.Size())
		for _, at := range []int{0, 7, size / 3, size / 2, size - 1} {
			flipBit(t, path, at)
			result, err := w.Do(t.Context(), task)
			if err == nil || reasonOf(err) != job.Corrupt || !strings.Contains(err.Error(), key) {
				t.Errorf("%s with byte %d of %d changed: %+v, %v; want an error about it", key, at, size, result, err)
			}
			flipBit(t, path, at)
		}
	}
	// Unharmed again, everything works: the errors were those of the damage.
	for key, task := range tasks {
		task.Job, task.Plan = worldJob, src.keys.Plan
		if _, err := w.Do(t.Context(), task); err != nil {
			t.Errorf("%s mended: %v", key, err)
		}
	}
}

// refusing is a store that takes nothing.
type refusing struct{ store.Store }

func (refusing) PutIfAbsent(context.Context, string, func(io.Writer) error) (bool, error) {
	return false, fmt.Errorf("put: disk full: %w", store.ErrUnavailable)
}

// TestErrors_StoreIsFull: what a task found out is not reported as done when the
// store does not take it.
func TestErrors_StoreIsFull(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	x.job(never)
	x.w.store = refusing{x.st}
	for _, task := range []job.Task{
		{Role: job.RoleTrain, From: 3, To: 6},
		{Role: job.RoleAverage, From: 3, To: 6},
		{Role: job.RoleAverage, From: 6, To: 8},
		{Role: job.RoleInfer, Dataset: &tiny, Model: x.keys.Final(), ShardTo: 2, Batch: 4},
		{Role: job.RoleProbe},
	} {
		task.Job, task.Plan = worldJob, x.keys.Plan
		if _, err := x.w.Do(t.Context(), task); err == nil || reasonOf(err) != job.StoreFailed || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%s: error %v; want the store's", task.Role, err)
		}
	}
}

// TestInfer_NotFinite: a model whose losses overflow is not tried again.
func TestInfer_NotFinite(t *testing.T) {
	x := newWorld(t, t.Context(), tinyPlan())
	spec, err := nn.ParseSpec(deepModel())
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float32, spec.ParamCount())
	for i := range weights {
		weights[i] = 1e38
	}
	x.put("m", func(out io.Writer) error {
		return safetensors.Write(out, map[string]string{metaModel: string(deepModel())}, group{"", spec.Params()}.tensors(weights))
	})
	_, err = x.w.Do(t.Context(), job.Task{Role: job.RoleInfer, Job: worldJob, Dataset: &tiny, Model: "m", ShardTo: 2, Batch: 4})
	if err == nil || reasonOf(err) != job.NonFinite || !strings.Contains(err.Error(), "tiny shard 0") {
		t.Errorf("error %v; want one with reason %s about the shard", err, job.NonFinite)
	}
}

// TestReasonOf: only what may pass is tried again, and a failure in reading wins
// over the damage that it looks like.
func TestReasonOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want job.Reason
	}{
		{store.ErrUnavailable, job.StoreFailed},
		{store.ErrNotFound, job.StoreFailed},
		{context.Canceled, job.StoreFailed},
		{context.DeadlineExceeded, job.StoreFailed},
		{errors.Join(shard.ErrFormat, store.ErrUnavailable), job.StoreFailed},
		{store.ErrCorrupt, job.Corrupt},
		{shard.ErrFormat, job.Corrupt},
		{safetensors.ErrFormat, job.Corrupt},
		{errObject, job.Corrupt},
		{nn.ErrNonFinite, job.NonFinite},
		{errTask, job.BadTask},
		{store.ErrUnauthorised, job.Internal},
		{store.ErrLimit, job.Internal},
		{nn.ErrInput, job.Internal},
		{io.ErrShortWrite, job.Internal},
	} {
		if got := reasonOf(fmt.Errorf("somewhere: %w", c.err)); got != c.want {
			t.Errorf("%v: %s; want %s", c.err, got, c.want)
		}
	}
}
