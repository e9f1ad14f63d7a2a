// SPDX-License-Identifier: Apache-2.0

//go:build linux

package worker_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
	"disdel/internal/points"
	"disdel/internal/store/dir"
	"disdel/internal/worker"
)

const (
	// slackBytes and slackPercent are how much more than it takes an invocation
	// may be predicted to take, whichever is more.
	slackBytes   = 2 * job.MB
	slackPercent = 15 // of what it takes
)

// buildWorker builds the worker as it is shipped.
func buildWorker(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "disdel-worker")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "disdel/cmd/disdel-worker")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the worker: %v\n%s", err, out)
	}
	return program
}

// TestMemory_PredictedIsEnoughAndNotMuchMore is the promise of the planner: no
// invocation of a real worker takes more memory than was predicted for it, nor
// much less.
func TestMemory_PredictedIsEnoughAndNotMuchMore(t *testing.T) {
	t.Parallel()
	program := buildWorker(t)
	for _, c := range points.Some([]struct {
		name, enforcement string
		spec              job.Spec
	}{
		{"shards, mlp", "", job.Spec{Dataset: madeUp, Model: "mlp", Replicas: 1, Containers: 1, Epochs: 1, Rounds: 3}},
		{"shards, cnn", "", job.Spec{Dataset: madeUp, Model: "cnn", Replicas: 1, Containers: 1, Epochs: 1, Rounds: 2}},
		{"shards, more replicas than containers", "", job.Spec{Dataset: madeUp, Model: "mlp", Replicas: 3, Containers: 1, Epochs: 1}},
		{"everything in memory", "", job.Spec{Dataset: madeUp, Model: "mlp", Strategy: job.BruteForce, Epochs: 1}},
		{"a batch larger than the data", "", job.Spec{Replicas: 1, Batch: 4096, Epochs: 2}},
		{"many rounds", "", job.Spec{Replicas: 2, Rounds: 40, Epochs: 2}},
		{"many rounds, watched", process.Watched, job.Spec{Replicas: 2, Rounds: 40, Epochs: 2}},
		{"mlp", "", job.Spec{Model: "mlp", Epochs: 1}},
		{"large batches", "", job.Spec{Replicas: 8, LocalBatch: 64, Epochs: 1}},
		{"larger batches", process.Watched, job.Spec{Model: "mlp", Replicas: 3, LocalBatch: 256, Rounds: 1, Epochs: 2}},
		{"gradients", "", job.Spec{Sync: job.SyncStep, Replicas: 3, Epochs: 1}},
		{"gradients, one round an invocation", "", job.Spec{Sync: job.SyncStep, Replicas: 3, Containers: 2, Epochs: 1}},
		{"one replica", "", job.Spec{Replicas: 1, Epochs: 1}},
		{"four threads", "", job.Spec{Dataset: madeUp, Model: "cnn", Replicas: 1, Epochs: 1, Rounds: 2, Threads: 4}},
		{"cnn-deep", "", job.Spec{Model: "cnn-deep", Replicas: 2, LocalBatch: 64, Epochs: 1, Rounds: 1}},
		{"resnet20", "", job.Spec{Model: "resnet20", Replicas: 2, LocalBatch: 64, Epochs: 1, Rounds: 4}},
		{"resnet20, made again", "", job.Spec{Model: "resnet20", Replicas: 2, LocalBatch: 64, Epochs: 1, Rounds: 4, Minimize: job.LeastMemory}},
		{"lenet5", "", job.Spec{Dataset: madeUp, Model: "lenet5", Replicas: 2, Epochs: 1, Rounds: 4}},
		{"many replicas in one container", process.Watched, job.Spec{Replicas: 60, Containers: 1, LocalBatch: 8, Epochs: 1}},
	}) {
		t.Run(c.name, func(t *testing.T) {
			checkMemory(t, c.name, train(t, program, c.enforcement, c.spec))
		})
	}
}

// checkMemory holds every invocation of a job to its prediction and its limit.
func checkMemory(t *testing.T, name string, record job.Record) {
	t.Helper()
	least, most := map[job.Role]job.Bytes{}, map[job.Role]job.Bytes{}
	for i, a := range record.Actions {
		slack := a.Predicted - a.Peak
		if old, ok := least[a.Role]; !ok || slack < old {
			least[a.Role] = slack
		}
		most[a.Role] = max(most[a.Role], slack)
		switch {
		case a.Peak <= 0 || a.Predicted <= 0:
			t.Errorf("%s: invocation %d, %s: peak %v, predicted %v; want both known", name, i, a.Role, a.Peak, a.Predicted)
		case slack < 0:
			t.Errorf("%s: invocation %d, %s: took %v, %v more than the predicted %v", name, i, a.Role, a.Peak, -slack, a.Predicted)
		case slack > max(slackBytes, a.Peak*slackPercent/100):
			t.Errorf("%s: invocation %d, %s: took %v, %v less than the predicted %v", name, i, a.Role, a.Peak, slack, a.Predicted)
		case a.Peak > a.MemoryLimit:
			t.Errorf("%s: invocation %d, %s: took %v of %v", name, i, a.Role, a.Peak, a.MemoryLimit)
		}
	}
	t.Logf("%s: %d invocations, %d rounds; predicted more than taken: from %v to %v", name, len(record.Actions), record.Rounds, least, most)
}

// TestPieces_SameModel: a job that has memory for a piece of a step only makes the
// model of one that has memory for the whole step, in the memory that it has.
func TestPieces_SameModel(t *testing.T) {
	t.Parallel()
	program := buildWorker(t)
	spec := job.Spec{Dataset: madeUp, Model: "cnn", Replicas: 1, LocalBatch: 1500, Epochs: 1, Threads: 1}
	whole := train(t, program, "", spec)
	spec.Memory = 32 * job.MB
	pieces := train(t, program, "", spec)
	if whole.Model.Digest != pieces.Model.Digest || whole.Model.Digest == "" {
		t.Errorf("in pieces the model is %s, whole it is %s", pieces.Model.Digest, whole.Model.Digest)
	}
	peak := func(r job.Record) (peak job.Bytes) {
		for _, a := range r.Actions {
			if a.Role == job.RoleTrain {
				peak = max(peak, a.Peak)
			}
		}
		return peak
	}
	if whole, pieces := peak(whole), peak(pieces); whole <= spec.Memory || pieces > spec.Memory {
		t.Errorf("training whole steps took %v, pieces %v; want pieces within %v and whole steps beyond", whole, pieces, spec.Memory)
	}
}

// TestMemory_AveragingDoesNotGrowWithReplicas: states are read one after the
// other, so averaging 64 replicas takes what averaging 2 takes, where all is
// planned and where it is measured. Watched, a container's memory is that of its
// process alone: a group also counts what the kernel remembers of the files that
// the container has made, and forgets when it needs the memory.
func TestMemory_AveragingDoesNotGrowWithReplicas(t *testing.T) {
	// Between runs the worker's own memory differs by about this much.
	const spread = 400 * job.KB
	program := buildWorker(t)
	peak, predicted := map[int]job.Bytes{}, map[int]job.Bytes{}
	most := 64
	if points.Stride > 1 {
		most = 16
	}
	for _, replicas := range []int{2, most} {
		// A model whose average takes more than training it does.
		record := train(t, program, process.Watched, job.Spec{
			Dataset: madeUpFew, Model: "mlp", Replicas: replicas, Containers: 1, LocalBatch: 2, Rounds: 2, Epochs: 1,
		})
		calls := 0
		for _, a := range record.Actions {
			if a.Role != job.RoleAverage {
				continue
			}
			calls++
			peak[replicas], predicted[replicas] = max(peak[replicas], a.Peak), a.Predicted
		}
		if calls != 2 {
			t.Errorf("%d replicas: %d averages, want 2", replicas, calls)
		}
	}
	probed := predicted[2] - predicted[most] // each job measures anew
	if max(probed, -probed) > spread {
		t.Errorf("predicted %v for 2 replicas, %v for %d", predicted[2], predicted[most], most)
	}
	if grown := peak[most] - peak[2]; grown > spread {
		t.Errorf("averaging 2 replicas took %v, %d %v: %v more", peak[2], most, peak[most], grown)
	}
	t.Logf("2 replicas: %v of %v; %d: %v of %v", peak[2], predicted[2], most, peak[most], predicted[most])
}

// train runs a training job with everything real, on digits unless the spec says
// otherwise.
func train(t *testing.T, program, enforcement string, spec job.Spec) job.Record {
	t.Helper()
	ctx := t.Context()
	spec.Kind, spec.Dataset, spec.Seed = job.Train, cmp.Or(spec.Dataset, "digits"), 1
	spec = spec.WithDefaults()
	st, err := dir.Open(ctx, filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	driver, err := process.Open(ctx, process.Config{Command: []string{program}, Enforcement: enforcement})
	if err != nil {
		t.Fatal(err)
	}
	platform, err := pool.Open(ctx, pool.Config{MemoryMin: 16 * job.MB}, driver)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := platform.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	record, err := control.Run(ctx, control.Config{
		Platform: platform, Store: st, Init: map[string]string{worker.StoreEnv: st.URL()},
	}, control.Created{Job: "memory", Spec: spec, Dataset: stage(t, ctx, st, spec.Dataset)})
	if err != nil {
		t.Fatal(err)
	}
	if record.Status != job.Succeeded {
		t.Fatalf("the job %s: %s", record.Status, record.Error)
	}
	return record
}

// madeUp names a data set of several shards in both parts, madeUpFew one of few
// records.
const (
	madeUp    = "made-up"
	madeUpFew = "made-up-few"
)

func makeUp(name string, train, test int) *data.Set {
	info := data.Info{
		Name: name, Title: name, H: 28, W: 28, C: 1, Classes: 10, Train: train, Test: test, Scale: 1.0 / 255,
		ClassNames: []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
	}
	random := rand.New(rand.NewPCG(1, 2))
	split := func(records int) (s data.Split) {
		for range records {
			s.Labels = append(s.Labels, uint16(random.IntN(info.Classes)))
		}
		s.Pixels = make([]byte, records*info.RecordBytes())
		for i := range s.Pixels {
			s.Pixels[i] = byte(random.Uint32())
		}
		return s
	}
	return &data.Set{Info: info, Train: split(info.Train), Test: split(info.Test)}
}

func stage(t *testing.T, ctx context.Context, st *dir.Store, name string) job.Dataset {
	t.Helper()
	set, err := makeUp(name, 3000, 9000), error(nil)
	switch name {
	case madeUp:
	case madeUpFew:
		set = makeUp(name, 256, 64)
	default:
		if set, err = data.Open(ctx, name, data.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	return cut(t, st, set)
}

// cut puts the shards of a data set into a store.
func cut(t *testing.T, st *dir.Store, set *data.Set) job.Dataset {
	t.Helper()
	i := set.Info
	d := job.Dataset{
		Name: i.Name, Digest: set.Digest(), Height: i.H, Width: i.W, Channels: i.C, Classes: i.Classes,
		ClassNames: i.ClassNames, Scale: i.Scale, Train: i.Train, Test: i.Test, ShardRecords: data.ShardRecords(i),
	}
	if err := data.Cut(set, d.ShardRecords, func(s data.Shard) error {
		_, err := st.PutIfAbsent(t.Context(), d.ShardKey(job.Part(s.Part), s.Index), s.Encode)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return d
}
