// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/nn/kernel"
	"disdel/internal/platform"
	"disdel/internal/store"
)

// deaf is a platform that never answers the first Await.
type deaf struct {
	*cloud
	once      sync.Once
	cancelled []platform.Activation
}

func (d *deaf) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	hang := false
	d.once.Do(func() { hang = true })
	if hang {
		<-ctx.Done()
		return platform.Outcome{}, ctx.Err()
	}
	return d.cloud.Await(ctx, id)
}

func (d *deaf) Cancel(ctx context.Context, id platform.Activation) error {
	d.cancelled = append(d.cancelled, id)
	return d.cloud.Cancel(ctx, id)
}

// TestAwaitThatHangs: an outcome that never comes counts as a loss in the end,
// and its invocation is ended.
func TestAwaitThatHangs(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		d := &deaf{cloud: w.cloud}
		cfg := w.config()
		cfg.Platform = d
		began := time.Now()
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		if took := time.Since(began); took > 15*time.Minute {
			t.Errorf("it took %v to give up", took)
		}
		if record.Actions[0].Outcome != string(platform.Lost) || len(d.cancelled) != 1 {
			t.Errorf("the call without an outcome: %s, %d were cancelled", record.Actions[0].Outcome, len(d.cancelled))
		}
	})
}

// TestRemoveFails: a job whose actions cannot be removed ends all the same, and
// the caller hears of both.
func TestRemoveFails(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		cfg := w.config()
		cfg.Platform = stubborn{w.cloud}
		record, err := control.Run(t.Context(), cfg, r.created())
		if !errors.Is(err, platform.ErrUnavailable) || record.Status != job.Succeeded {
			t.Fatalf("%s, %v; want a job that succeeded and the error of Remove", record.Status, err)
		}
		if _, err := control.Resume(t.Context(), w.config(), jobID); !errors.Is(err, control.ErrEnded) {
			t.Errorf("resume: %v, want ErrEnded", err)
		}
		w.checkEnded(record, job.Succeeded, digest)
	})
}

type stubborn struct{ *cloud }

func (stubborn) Remove(context.Context, string) error { return platform.ErrUnavailable }

// memory remembers probes.
type memory struct {
	probe  *job.Probe
	err    error
	loads  int
	stored int
}

func (m *memory) Load(context.Context) (job.Probe, bool, error) {
	m.loads++
	if m.err != nil || m.probe == nil {
		return job.Probe{}, false, m.err
	}
	return *m.probe, true, nil
}

func (m *memory) Save(_ context.Context, p job.Probe) error {
	m.stored++
	if m.err == nil {
		m.probe = &p
	}
	return m.err
}

// TestProbes: the first job measures and the next does not; a cache that is
// broken costs a measurement, not the job.
func TestProbes(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	kept := &memory{}
	form := kernel.FormGeneric
	if best := kernel.Best().Name; best == "fma-1" {
		form = kernel.FormAVX2 // so that the job's bits are those of the others
	}
	for i, test := range []struct {
		memory *memory
		probes int
		kernel string
	}{
		{kept, 1, ""},
		{kept, 0, "auto"},
		{&memory{err: errors.New("the disk is full")}, 1, ""},
		{kept, 1, form}, // other kernels are other rates
		{kept, 0, form},
	} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, noFaults)
			cfg := w.config()
			cfg.Probes = test.memory
			created := r.created()
			created.Spec.Kernel = test.kernel
			record, err := control.Run(t.Context(), cfg, created)
			if err != nil {
				t.Fatal(err)
			}
			w.checkEnded(record, job.Succeeded, digest)
			probes := 0
			for _, a := range record.Actions {
				if a.Role == job.RoleProbe {
					probes++
				}
			}
			if probes != test.probes || test.memory.loads == 0 {
				t.Errorf("job %d: %d probes, want %d", i, probes, test.probes)
			}
		})
	}
	if kept.stored != 2 {
		t.Errorf("saved %d times, want once for each form", kept.stored)
	}
}

// TestInference runs the trained model under all faults: the result is that of
// the evaluation after training.
func TestInference(t *testing.T) {
	r := recipes[0]
	golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		trained, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		m, err := control.FindModel(t.Context(), w.store, "tiny", "", nil)
		if err != nil || m.Digest != trained.Model.Digest || m.Accuracy != trained.Accuracy || m.Job != jobID {
			t.Fatalf("model %+v, %v", m, err)
		}
		for f := none; f < outOfMemory; f++ {
			id := job.ID("infer-" + strings.Repeat("x", int(f)))
			w.cloud.choose = func(_ job.Task, nth int, _ job.Bytes) fault {
				if nth > 0 {
					return none
				}
				return f
			}
			spec := job.Spec{Kind: job.Infer, Dataset: "tiny"}.WithDefaults()
			record, err := control.Run(t.Context(), w.config(), control.Created{Job: id, Spec: spec, Dataset: dataset(), Model: &m})
			if err != nil || record.Status != job.Succeeded {
				t.Fatalf("fault %d: %s %s, %v", f, record.Status, record.Error, err)
			}
			if record.Accuracy != trained.Accuracy || record.Loss != trained.Loss || record.Records != dataset().Test {
				t.Errorf("fault %d: accuracy %v, loss %v; after training %v, %v", f, record.Accuracy, record.Loss, trained.Accuracy, trained.Loss)
			}
			if left, err := w.store.List(t.Context(), job.Keys{Job: id}.Scratch()); err != nil || len(left) > 0 {
				t.Errorf("fault %d: left behind: %v, %v", f, left, err)
			}
		}
		w.cloud.tasks.Wait()
	})
}

// TestFindModel: the newest by default, by the start of its digest otherwise.
func TestFindModel(t *testing.T) {
	w := newWorld(t, noFaults)
	if _, err := control.FindModel(t.Context(), w.store, "tiny", "", nil); !errors.Is(err, control.ErrNoModel) || !strings.Contains(err.Error(), "none is trained on tiny") {
		t.Errorf("empty store: %v", err)
	}
	var head store.Head
	for _, m := range []control.Model{
		{Digest: "aa1", Dataset: "tiny", Job: "1"},
		{Digest: "ab2", Dataset: "tiny", Job: "2"},
		{Digest: "aa1", Dataset: "tiny", Job: "3"},
		{Digest: "cc3", Dataset: "other", Job: "4"},
	} {
		var err error
		if head, err = w.store.Append(t.Context(), job.ModelsLog, head, mustJSON(m)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]job.ID{"": "3", "aa": "3", "ab2": "2"} {
		if m, err := control.FindModel(t.Context(), w.store, "tiny", prefix, nil); err != nil || m.Job != want {
			t.Errorf("model %q: of job %s, %v; want that of %s", prefix, m.Job, err, want)
		}
	}
	for prefix, want := range map[string]string{"a": "2 models", "cc": "none on tiny", "ab22": "none on tiny"} {
		if m, err := control.FindModel(t.Context(), w.store, "tiny", prefix, nil); !errors.Is(err, control.ErrNoModel) || !strings.Contains(err.Error(), want) {
			t.Errorf("model %q: %+v, %v; want %q", prefix, m, err, want)
		}
	}
	if models, err := control.Models(t.Context(), w.store, nil); err != nil || len(models) != 3 {
		t.Errorf("%d models, %v; want each digest once", len(models), err)
	}
	if _, err := control.Resume(t.Context(), w.config(), "nothing"); !errors.Is(err, control.ErrNoJob) {
		t.Errorf("resume of no job: %v", err)
	}
	if _, err := control.Run(t.Context(), w.config(), control.Created{Job: "../x"}); err == nil {
		t.Error("a job with a bad id runs")
	}
}

// TestSweep: states that nothing will read again go while the job runs: what it
// takes in the store does not grow with the number of rounds.
func TestSweep(t *testing.T) {
	r := recipes[4]
	golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, handOvers)
		most := 0
		cfg := w.config()
		cfg.Observe = func(control.State) {
			left, err := w.store.List(context.Background(), job.Keys{Job: jobID}.Scratch())
			if err != nil {
				t.Error(err)
			}
			most = max(most, len(left))
		}
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil || record.Rounds < 6 {
			t.Fatalf("%d rounds, %v", record.Rounds, err)
		}
		// The plan, the averages of this round and the one before, and two states
		// of each replica: what it goes on from and what it has reached.
		if limit := 3 + 2*r.replicas; most > limit || most < 3 {
			t.Errorf("%d objects at once, want at most %d", most, limit)
		}
	})
}

// tardy is a platform on which replica 1's calls arrive when the package has
// been removed.
type tardy struct {
	*cloud
	removed chan struct{}
}

func (p *tardy) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	if strings.Contains(string(call.Params), `"replica":1`) {
		<-p.removed
	}
	return p.cloud.Invoke(ctx, call)
}

func (p *tardy) Remove(ctx context.Context, pkg string) error {
	err := p.cloud.Remove(ctx, pkg)
	close(p.removed)
	return err
}

// TestStoppingIsNoFailure: that a controller which gives up removes its actions
// is not held against the calls that it was about to make.
func TestStoppingIsNoFailure(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		broken, breakNow, times := errors.New("broken for a moment"), false, 0
		cfg := w.config()
		cfg.Platform = &tardy{cloud: w.cloud, removed: make(chan struct{})}
		cfg.Store = &brittle{Store: w.store.Share(), gate: func(string) error {
			if breakNow && times == 0 {
				times++
				return broken
			}
			return nil
		}}
		cfg.Observe = func(s control.State) { breakNow = len(s.Reached) > 0 && s.Reached[0] > 0 }
		if _, err := control.Run(t.Context(), cfg, r.created()); !errors.Is(err, broken) {
			t.Fatalf("run: %v, want that the store is broken", err)
		}
		refused := 0
		for _, e := range w.history() {
			if e.Ended != nil && strings.Contains(e.Ended.Message, platform.ErrNotFound.Error()) {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%d calls came too late, want 1: the test tests nothing", refused)
		}
		w.checkEnded(w.resume(), job.Succeeded, digest)
	})
}
