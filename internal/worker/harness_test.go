// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/nn/safetensors"
	"disdel/internal/points"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

// listenRole names the variable with the arguments of a worker that is started
// as the program of an image.
const listenRole = "DISDEL_TEST_ARGS"

// The test program is also the worker that tests start as a process.
func TestMain(m *testing.M) {
	if Wanted() || os.Getenv(loopEnv) != "" || os.Getenv(listenRole) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := Main(ctx, strings.Fields(os.Getenv(listenRole)), os.Stderr)
		stop()
		os.Exit(code)
	}
	if err := points.Checks(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// tiny is a data set of 22 training and 10 test records of 4x4 pixels in shards
// of 8, and the model that learns it.
var tiny = job.Dataset{
	Name: "tiny", Digest: "tiny", Height: 4, Width: 4, Channels: 1, Classes: 3, Scale: 1.0 / 256,
	ClassNames: []string{"a", "b", "c"}, Train: 22, Test: 10, ShardRecords: 8,
}

var tinyModel = nn.Spec{
	Name: "tiny", Input: nn.Shape{H: 4, W: 4, C: 1}, Classes: 3,
	Layers: []nn.Layer{
		{Kind: nn.KindConv2D, Filters: 2, Kernel: 3},
		{Kind: nn.KindReLU},
		{Kind: nn.KindFlatten},
		{Kind: nn.KindDense, Units: 3},
	},
}

// records are a part of the tiny data set.
func records(part job.Part) (pixels []byte, labels []uint16) {
	n := tiny.Records(part)
	rnd := rand.New(rand.NewPCG(7, uint64(n)))
	pixels, labels = make([]byte, n*int(tiny.RecordBytes())), make([]uint16, n)
	for i := range pixels {
		pixels[i] = byte(rnd.Uint32())
	}
	for i := range labels {
		labels[i] = uint16(rnd.IntN(tiny.Classes))
	}
	return pixels, labels
}

// tinyPlan is a plan of two rounds of three steps and one of two.
func tinyPlan() job.Numerics {
	return job.Numerics{
		Version: job.NumericsVersion, KernelSet: kernel.Best().Name, Dataset: tiny, Model: tinyModel.Canonical(),
		Seed: 5, Epochs: 2, Batch: 3, LocalBatch: 3, Replicas: 2, StepsPerEpoch: 4, Steps: 8, RoundSteps: 3,
		Local: job.Optimizer{Kind: nn.KindAdam, LearningRate: 0.01, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7},
		Outer: job.Nesterov{LearningRate: 0.7, Momentum: 0.9},
	}
}

// tuned is the plan with all that a job can add to plain training.
func tuned(n job.Numerics) job.Numerics {
	n.Local.Schedule, n.Local.ScheduleSteps, n.Local.WarmupSteps = nn.ScheduleCosine, n.Steps+1, 1
	n.Local.L2, n.Local.ClipNorm = 0.01, 0.5
	n.LabelSmoothing, n.Flips, n.Shifts = 0.1, true, 2
	return n
}

// world is a worker with a store that holds a data set and a plan.
type world struct {
	t    tester
	ctx  context.Context
	st   store.Store
	w    *Worker
	plan job.Numerics
	keys job.Keys
	// equip changes training tasks, if it is not nil.
	equip func(job.Task) job.Task
}

const worldJob = job.ID("job-1")

func newWorld(t tester, ctx context.Context, plan job.Numerics) *world {
	t.Helper()
	st := mem.New()
	x := &world{t: t, ctx: ctx, st: st, w: New(Config{}), plan: plan}
	x.w.store = st
	for _, part := range []job.Part{job.TrainPart, job.TestPart} {
		x.cut(tiny, part)
	}
	digest, err := plan.Digest()
	if err != nil {
		t.Fatal(err)
	}
	x.keys = job.Keys{Job: worldJob, Plan: digest}
	raw, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	x.put(x.keys.Numerics(), func(out io.Writer) error { _, err := out.Write(raw); return err })
	return x
}

// cut puts a part of the tiny data set into the store in shards as d has them.
func (x *world) cut(d job.Dataset, part job.Part) {
	x.t.Helper()
	pixels, labels := records(part)
	size := int(d.RecordBytes())
	for i := range d.Shards(part) {
		from, to := i*d.ShardRecords, min((i+1)*d.ShardRecords, d.Records(part))
		h := shard.Header{Records: to - from, H: d.Height, W: d.Width, C: d.Channels, Classes: d.Classes}
		x.put(d.ShardKey(part, i), func(out io.Writer) error {
			return shard.Write(out, h, pixels[from*size:to*size], labels[from:to])
		})
	}
}

func (x *world) put(key string, write func(io.Writer) error) {
	x.t.Helper()
	if created, err := x.st.PutIfAbsent(x.ctx, key, write); err != nil || !created {
		x.t.Fatalf("put %s: %v, %v", key, created, err)
	}
}

// replace puts other bytes under a key.
func (x *world) replace(key string, raw []byte) {
	x.t.Helper()
	if err := x.st.Delete(x.ctx, key); err != nil {
		x.t.Fatal(err)
	}
	x.put(key, func(out io.Writer) error { _, err := out.Write(raw); return err })
}

func (x *world) object(key string) []byte {
	x.t.Helper()
	r, err := x.st.Get(x.ctx, key)
	if err != nil {
		x.t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		x.t.Fatal(err)
	}
	return raw
}

// objects are all objects under the job's scratch space.
func (x *world) objects() map[string][]byte {
	x.t.Helper()
	keys, err := x.st.List(x.ctx, x.keys.Scratch())
	if err != nil {
		x.t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, key := range keys {
		all[key] = x.object(key)
	}
	return all
}

func (x *world) do(task job.Task) job.TaskResult {
	x.t.Helper()
	task.Job, task.Plan = worldJob, x.keys.Plan
	result, err := x.w.Do(x.ctx, task)
	if err != nil {
		x.t.Fatalf("%+v: %v", task, err)
	}
	return result
}

func (x *world) train(replica, from, to int) {
	x.t.Helper()
	task := job.Task{Role: job.RoleTrain, Replica: replica, From: from, To: to}
	if x.equip != nil {
		task = x.equip(task)
	}
	if r := x.do(task); r.Step != to || r.Reason != "" {
		x.t.Fatalf("replica %d trained to step %d (%s); want %d", replica, r.Step, r.Reason, to)
	}
}

func (x *world) average(from, to int) (digest string) {
	x.t.Helper()
	return x.do(job.Task{Role: job.RoleAverage, From: from, To: to}).Digest
}

// job carries the whole plan out, cutting the work where cut says so, and
// returns the model's digest.
func (x *world) job(cut func(replica, step int) bool) (digest string) {
	x.t.Helper()
	for round := range x.plan.Rounds() {
		start, end := round*x.plan.RoundSteps, x.plan.RoundEnd(round)
		for replica := range x.plan.Replicas {
			from := start
			for step := start + 1; step <= end; step++ {
				if step == end || cut(replica, step) {
					x.train(replica, from, step)
					from = step
				}
			}
		}
		digest = x.average(start, end)
	}
	return digest
}

func never(int, int) bool  { return false }
func always(int, int) bool { return true }

// tensorsOf reads a safetensors file into values by name.
func (x *world) tensorsOf(key string) (map[string][]float32, map[string]string) {
	x.t.Helper()
	r, err := safetensors.NewReader(bytes.NewReader(x.object(key)))
	if err != nil {
		x.t.Fatal(err)
	}
	all := map[string][]float32{}
	for _, info := range r.Header().Tensors {
		all[info.Name] = make([]float32, info.Len)
		if err := r.ReadNext(all[info.Name]); err != nil {
			x.t.Fatal(err)
		}
	}
	return all, r.Header().Metadata
}

// sameObjects fails unless every object of some is in all with the same bytes.
func sameObjects(t tester, some, all map[string][]byte) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(some)) {
		if other, ok := all[key]; !ok || !bytes.Equal(some[key], other) {
			t.Errorf("%s: %d bytes differ from the other run's %d (there: %v)", key, len(some[key]), len(other), ok)
		}
	}
}

var _ tester = (*testing.T)(nil)
