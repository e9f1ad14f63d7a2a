// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"disdel/internal/control"
	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn/kernel"
	"disdel/internal/platform"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

func TestMain(m *testing.M) {
	// Jobs leave megabytes of garbage behind; collecting it less often halves
	// the time of the tests.
	debug.SetGCPercent(800)
	goleak.VerifyTestMain(m)
}

var kernelSet = kernel.Best().Name

const jobID = job.ID("sim")

// recipe is what differs between the jobs that are simulated.
type recipe struct {
	replicas, rounds, epochs, containers int
	strategy                             job.Strategy
	sync                                 job.Sync
}

// recipes are small: what matters is the order of things, not the arithmetic.
var recipes = []recipe{
	{replicas: 2, rounds: 3, epochs: 2},
	{replicas: 3, rounds: 2, epochs: 2, containers: 2},
	{replicas: 1, rounds: 1, epochs: 1},
	{replicas: 4, rounds: 1, epochs: 2, containers: 1},
	{replicas: 2, rounds: 6, epochs: 2},
	oneByOne,
	{replicas: 3, rounds: 4, epochs: 2},
	{strategy: job.Single, epochs: 2},
	{strategy: job.BruteForce, epochs: 2},
	stepwise,
}

// stepwise averages gradients: every step is a round.
var stepwise = recipe{replicas: 3, epochs: 2, sync: job.SyncStep}

// oneByOne is the first recipe without room for two replicas at once: its
// replicas do not meet, and get the same model.
var oneByOne = recipe{replicas: 2, rounds: 3, epochs: 2, containers: 1}

func dataset() job.Dataset {
	return job.Dataset{
		Name: "tiny", Digest: "tiny", Height: 4, Width: 4, Channels: 1, Classes: 2, ClassNames: []string{"dark", "light"},
		Scale: 1.0 / 255, Train: 22, Test: 13, ShardRecords: 8,
	}
}

func (r recipe) created() control.Created {
	spec := job.Spec{
		Kind: job.Train, Dataset: "tiny", Model: "cnn", Epochs: r.epochs, LocalBatch: 4,
		Replicas: r.replicas, Rounds: r.rounds, Containers: r.containers, Seed: 7, Strategy: r.strategy,
	}
	if spec.Sequential() {
		spec.Batch, spec.LocalBatch = spec.LocalBatch, 0
	}
	if r.sync == job.SyncStep {
		spec.Sync, spec.LocalBatch, spec.Batch = r.sync, 0, 8
	}
	return control.Created{Job: jobID, Spec: spec.WithDefaults(), Dataset: dataset()}
}

// world is a store with the data, and the platforms in front of it.
type world struct {
	t     *testing.T
	store *mem.Store
	cloud *cloud
}

func newWorld(t *testing.T, choose chooser) *world {
	s := mem.New()
	d := dataset()
	for _, part := range []job.Part{job.TrainPart, job.TestPart} {
		for i := range d.Shards(part) {
			n := min(d.ShardRecords, d.Records(part)-i*d.ShardRecords)
			pixels, labels := make([]byte, n*int(d.RecordBytes())), make([]uint16, n)
			for r := range n {
				labels[r] = uint16((i + r) % d.Classes)
				for p := range int(d.RecordBytes()) {
					pixels[r*int(d.RecordBytes())+p] = byte(100*int(labels[r]) + (i*37+r*11+p*5)%90)
				}
			}
			header := shard.Header{Records: n, H: d.Height, W: d.Width, C: d.Channels, Classes: d.Classes}
			if _, err := s.PutIfAbsent(t.Context(), d.ShardKey(part, i), func(w io.Writer) error {
				return shard.Write(w, header, pixels, labels)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &world{t: t, store: s, cloud: newCloud(s, choose)}
}

// config is that of a controller that nothing happens to.
func (w *world) config() control.Config {
	return control.Config{Platform: w.cloud, Store: w.store.Share(), ControllerPeak: func() job.Bytes { return job.MB }}
}

// history reads the event log.
func (w *world) history() []control.Event {
	entries, err := w.store.Log(context.Background(), job.Keys{Job: jobID}.Log(), store.Head{})
	if err != nil {
		w.t.Fatal(err)
	}
	var all []control.Event
	for _, entry := range entries {
		var events []control.Event
		if err := json.Unmarshal(entry.Payload, &events); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, events...)
	}
	return all
}

// resume resumes the job until it has ended.
func (w *world) resume() job.Record {
	w.t.Helper()
	for range 50 {
		record, err := control.Resume(w.t.Context(), w.config(), jobID)
		switch {
		case err == nil, errors.Is(err, control.ErrEnded):
			return record
		case errors.Is(err, control.ErrNoJob):
			if record, err = control.Run(w.t.Context(), w.config(), recipes[0].created()); err == nil {
				return record
			}
		}
		w.t.Logf("resume: %v", err)
	}
	w.t.Fatal("the job does not end, however often it is resumed")
	return job.Record{}
}

// checkEnded checks what must hold after every job that has ended.
func (w *world) checkEnded(record job.Record, status job.Status, digest string) {
	w.t.Helper()
	w.cloud.tasks.Wait()
	if record.Status != status {
		w.t.Errorf("status %s (%s), want %s", record.Status, record.Error, status)
	}
	if status == job.Succeeded {
		if record.Model.Digest != digest {
			w.t.Errorf("model %s, want that of the run without faults, %s", record.Model.Digest, digest)
		}
		models, err := control.Models(context.Background(), w.store, nil)
		if err != nil || len(models) != 1 || models[0].Digest != digest {
			w.t.Errorf("models in the store: %v, %v; want the trained one once", models, err)
		}
		if _, err := control.FindModel(context.Background(), w.store, "tiny", digest[:8], nil); err != nil {
			w.t.Error(err)
		}
		if entries, err := w.store.Log(context.Background(), job.ModelsLog, store.Head{}); err != nil || len(entries) != 1 {
			w.t.Errorf("the list of models has %d entries, %v; want 1", len(entries), err)
		}
		if object, err := w.store.Get(context.Background(), job.ModelKey(digest)); err != nil {
			w.t.Error(err)
		} else if err := object.Close(); err != nil {
			w.t.Error(err)
		}
		if record.Records != dataset().Test {
			w.t.Errorf("evaluated on %d records, want %d", record.Records, dataset().Test)
		}
	}
	if left, err := w.store.List(context.Background(), job.Keys{Job: jobID}.Scratch()); err != nil || len(left) > 0 {
		w.t.Errorf("left behind in the store: %v, %v", left, err)
	}
	for replica := range record.Replicas {
		key := job.Keys{Job: jobID}.Progress(replica)
		if _, err := w.store.Status(context.Background(), key); !errors.Is(err, store.ErrNotFound) {
			w.t.Errorf("left behind in the store: status %s, %v", key, err)
		}
	}
	if n := w.cloud.packageCount(); n > 0 {
		w.t.Errorf("%d packages left behind on the platform", n)
	}
	history := w.history()
	checkHistory(w.t, history)
	last := history[len(history)-1]
	if last.Finished == nil {
		w.t.Fatal("the log does not end with the job's end")
	}
	state, err := control.Load(context.Background(), w.store, jobID)
	if err != nil {
		w.t.Fatal(err)
	}
	if state.Running != 0 {
		w.t.Errorf("the job has ended with %d attempts running", state.Running)
	}
	for _, a := range record.Actions {
		if a.Outcome == "running" {
			w.t.Errorf("the record says that %s of replica %d is still running", a.Role, a.Replica)
		}
	}
	got, want := mustJSON(record), mustJSON(state.Record())
	if string(got) != string(want) {
		w.t.Errorf("record:\n%s\nthat of the log:\n%s", got, want)
	}
}

// checkHistory checks what holds for every log, ended or not.
func checkHistory(t *testing.T, history []control.Event) {
	t.Helper()
	type attempt struct {
		task  job.Task
		ended bool
	}
	var attempts []attempt
	var numerics *job.Numerics
	var limits job.Limits
	resources := job.Resources{Containers: 1}
	running, averaged := 0, 0
	for i, e := range history {
		problem := func(format string, args ...any) {
			t.Errorf("event %d (%s): %s", i, mustJSON(e), fmt.Sprintf(format, args...))
		}
		if (i == 0) != (e.Created != nil) {
			problem("a log starts with one created event")
		}
		if i > 0 && e.At.Before(history[i-1].At) {
			problem("time goes back")
		}
		switch {
		case e.Created != nil:
			limits = e.Created.Limits
		case e.Planned != nil:
			numerics, resources = e.Planned.Numerics, e.Planned.Resources
		case e.Replanned != nil:
			if e.Replanned.Resources.Revision != resources.Revision+1 {
				problem("revision %d follows %d", e.Replanned.Resources.Revision, resources.Revision)
			}
			resources = e.Replanned.Resources
		case e.Resumed != nil:
			for a := range attempts {
				attempts[a].ended = true
			}
			running = 0
		case e.Invoked != nil:
			if e.Invoked.Attempt != len(attempts) {
				problem("attempt %d follows %d", e.Invoked.Attempt, len(attempts))
			}
			if e.Invoked.Limit > limits.MemoryMax || e.Invoked.Limit < limits.MemoryMin {
				problem("memory %v is outside the limits", e.Invoked.Limit)
			}
			attempts = append(attempts, attempt{task: e.Invoked.Task})
			if running++; running > resources.Containers {
				problem("%d at once, planned are %d", running, resources.Containers)
			}
			if n := numerics; n != nil && e.Invoked.Task.Role == job.RoleTrain {
				to := n.RoundEnd(averaged / n.RoundSteps)
				if e.Invoked.Task.Meet {
					to = n.Steps
				}
				if from := e.Invoked.Task.From; from < min(averaged, n.Steps-1) || e.Invoked.Task.To != to || e.Invoked.Task.Meet != (resources.SpanRounds > 1) {
					problem("trains from %d to %d after the average at %d", from, e.Invoked.Task.To, averaged)
				}
			}
		case e.Ended != nil:
			a := &attempts[e.Ended.Attempt]
			if a.ended {
				problem("ends a second time")
			}
			a.ended = true
			running--
			if e.Ended.Kind == platform.Success && a.task.Role == job.RoleAverage {
				if a.task.From != averaged {
					problem("averages from %d after the average at %d", a.task.From, averaged)
				}
				averaged = a.task.To
			}
			if e.Ended.Kind == platform.Success && e.Ended.Result.Round > 0 {
				averaged = max(averaged, numerics.RoundEnd(e.Ended.Result.Round-1))
			}
		case e.Finished != nil:
			if i != len(history)-1 {
				problem("something follows")
			}
			for n, a := range attempts {
				if !a.ended {
					problem("attempt %d never ended", n)
				}
			}
			if e.Finished.Status == job.Succeeded && averaged != numerics.Steps {
				problem("averaged up to step %d of %d", averaged, numerics.Steps)
			}
		}
	}
}

// golden is the digest of the model without faults, for each recipe.
func golden(t *testing.T, r recipe) (digest string) {
	t.Helper()
	if digest, ok := goldens[r]; ok {
		return digest
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil || record.Status != job.Succeeded {
			t.Fatalf("run without faults: %s %s, %v", record.Status, record.Error, err)
		}
		digest = record.Model.Digest
		w.checkEnded(record, job.Succeeded, digest)
	})
	goldens[r] = digest
	return digest
}

// goldens is used from the test's own goroutine only: these tests are not
// parallel, since the machine is busy with one of them.
var goldens = map[recipe]string{}

// bubble runs a test in virtual time, and fails it if the job takes a day of
// that: nothing may wait for ever.
func bubble(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		run(t)
		if took := time.Since(began); took > 24*time.Hour {
			t.Errorf("the job took %v", took)
		}
	})
}
