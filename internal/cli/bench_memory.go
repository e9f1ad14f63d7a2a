// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/bench"
	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
	"disdel/internal/platform"
	"disdel/internal/platform/pool"
	"disdel/internal/report"
	"disdel/internal/store"
	"disdel/internal/worker"
)

const (
	// trialMemory is the memory limit of workers whose memory is measured, so large
	// that none is short of it.
	trialMemory = 4 * job.GB
	// trialTimeout bounds one of their calls, at most.
	trialTimeout = 5 * time.Minute
	// trialRounds and trialRoundSteps are how long they train: as often as all that
	// a worker keeps of a round and a step has been there.
	trialRounds, trialRoundSteps = 2, 2
)

func (a *app) benchMemoryCommand() *cobra.Command {
	var seed uint64 = 1
	var asJSON, quiet bool
	cases, models := 200, nn.Names()
	cmd := &cobra.Command{
		Use:   "memory",
		Short: "Compare predicted with measured memory of training workers",
		Long: `Memory draws models, shapes of records, batch sizes and optimizers from a seed,
predicts the memory of a worker that trains each as a plan does, and measures one: a
process of its own for each case, which goes through two rounds.

It prints how far predictions are above the peaks and the extreme cases. It fails if
a worker took more than was predicted for it, or if the excess is more than promised:
1 MB or 3 % in the median of 20 cases or more, 2 MB or 10 % at most, whichever is more.`,
		Example: `  disdel bench memory
  disdel bench memory --cases 20 --seed 7 --models cnn,mlp --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cases > bench.MaxRuns {
				return usagef("--cases %d: want %d at most", cases, bench.MaxRuns)
			}
			if len(models) == 0 {
				return usagef("--models: want one at least")
			}
			for _, model := range models {
				if _, err := nn.Named(model, nn.Shape{H: 32, W: 32, C: 3}, benchClasses); err != nil {
					return usageError{fmt.Errorf("--models: %w", err)}
				}
			}
			return a.benchMemory(cmd.Context(), bench.MemoryCases(seed, cases, models, nn.Optimizers()), asJSON, quiet)
		},
	}
	f := cmd.Flags()
	f.Var(countValue{&cases}, "cases", "how many cases")
	f.Var(seedValue{&seed}, "seed", "seed of the cases")
	f.StringSliceVar(&models, "models", models, "models to draw from")
	f.BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	f.BoolVar(&quiet, "quiet", false, "no progress on stderr")
	return cmd
}

func (a *app) benchMemory(ctx context.Context, cases []bench.MemoryCase, asJSON, quiet bool) (err error) {
	b, err := a.openTrials(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var runs []bench.MemoryRun
	runErr := error(nil)
	for i, c := range cases {
		if !quiet {
			fmt.Fprintf(a.stderr, "disdel: case %d of %d: %s\n", i+1, len(cases), c)
		}
		t, err := b.predict(c, trialRounds, trialRoundSteps)
		if err == nil {
			var out platform.Outcome
			if out, err = b.run(ctx, t, trialMemory); err == nil && out.Kind != platform.Success {
				err = fmt.Errorf("the worker ended with %s: %s%s", out.Kind, out.Message, out.Result)
			}
			runs = append(runs, bench.MemoryRun{Case: c, Predicted: t.predicted, Peak: out.Usage.Peak, Seconds: t.took.Seconds()})
		}
		if err != nil {
			runErr = fmt.Errorf("%s: %w", c, err)
			break
		}
	}
	if runErr != nil {
		return runErr
	}
	machine, summary := bench.ThisMachine(), bench.SummariseMemory(runs)
	if asJSON {
		err = report.JSON(a.stdout, map[string]any{"machine": machine, "summary": summary, "runs": runs, "probe": b.measured})
	} else {
		err = report.Memory(a.page(), machine, runs)
	}
	if err == nil && !summary.Kept {
		err = errors.New("predictions are not what was promised")
	}
	return err
}

// trials are workers that train made-up records, one after the other.
type trials struct {
	pool   *pool.Pool
	store  store.Store
	init   map[string]string
	limits job.Limits
	folder string // to be deleted, "" where the store is elsewhere
	path   string // the worker's program
	done   int
	// timeout bounds a call.
	timeout time.Duration
	// measured is a worker, as jobs measure it.
	measured job.Probe
}

// trial is one of them.
type trial struct {
	c         bench.MemoryCase
	numerics  job.Numerics
	task      job.Task
	predicted job.Bytes
	took      time.Duration // of the prediction
}

// openTrials starts the embedded platform, with a store of its own in a folder for
// temporary files if url is "", and measures a worker.
func (a *app) openTrials(ctx context.Context, url string) (_ *trials, err error) {
	b := &trials{timeout: trialTimeout}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if url == "" {
		if b.folder, err = os.MkdirTemp("", "disdel-bench-"); err != nil {
			return nil, err
		}
		url = store.SchemeDir + "://" + filepath.Join(b.folder, "store")
	}
	b.init = map[string]string{worker.StoreEnv: url}
	if b.store, err = a.openStore(ctx, url); err != nil {
		return nil, err
	}
	o := &options{pool: pool.Config{MemoryMin: job.MB, MemoryMax: trialMemory, PoolMemory: trialMemory, TimeoutMax: trialTimeout, TimeoutDefault: trialTimeout}}
	if b.pool, b.path, err = a.openPlatform(ctx, o); err != nil {
		return nil, err
	}
	if b.limits, err = b.pool.Limits(ctx); err != nil {
		return nil, err
	}
	b.measured, err = b.probe(ctx)
	return b, err
}

func (b *trials) close() (err error) {
	if b.pool != nil {
		err = b.pool.Close()
	}
	if b.store != nil {
		err = errors.Join(err, b.store.Close())
	}
	if b.folder != "" {
		err = errors.Join(err, os.RemoveAll(b.folder))
	}
	return err
}

// call makes one call of a worker that nothing called before.
func (b *trials) call(ctx context.Context, task job.Task, memory job.Bytes) (out platform.Outcome, err error) {
	b.done++
	pkg := fmt.Sprintf("disdel-bench-%d-%d", os.Getpid(), b.done)
	action := platform.Action{Name: "worker", Memory: memory, Timeout: b.timeout}
	if err := b.pool.Deploy(ctx, platform.Package{Name: pkg, Init: b.init, Actions: []platform.Action{action}}); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, b.pool.Remove(context.WithoutCancel(ctx), pkg)) }()
	params, err := json.Marshal(task)
	if err != nil {
		return out, err
	}
	activation, err := b.pool.Invoke(ctx, platform.Call{Package: pkg, Action: action.Name, Params: params})
	if err != nil {
		return out, err
	}
	return b.pool.Await(ctx, activation)
}

// probe measures a worker as jobs do.
func (b *trials) probe(ctx context.Context) (p job.Probe, err error) {
	id, err := job.NewID(time.Now(), rand.Reader)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, clearScratch(ctx, b.store, id)) }()
	out, err := b.call(ctx, job.Task{Role: job.RoleProbe, Job: id}, trialMemory)
	if err != nil {
		return p, err
	}
	var result job.TaskResult
	if err := json.Unmarshal(out.Result, &result); err != nil || result.Probe == nil {
		return p, fmt.Errorf("the probe ended with %s: %s%s", out.Kind, out.Message, out.Result)
	}
	return result.Probe.Seen(out.Usage.Peak), nil
}

// predict plans a case, in rounds of some steps, as a job's is planned.
func (b *trials) predict(c bench.MemoryCase, rounds, roundSteps int) (t trial, err error) {
	t.c = c
	id, err := job.NewID(time.Now(), rand.Reader)
	if err != nil {
		return t, err
	}
	d := job.Dataset{
		Name: "bench", Digest: "bench", Height: c.Height, Width: c.Width, Channels: c.Channels, Classes: c.Classes, Scale: 1.0 / 256,
		Train: c.Records, Test: 1, ShardRecords: c.ShardRecords,
	}
	spec := job.Spec{
		Kind: job.Train, Dataset: d.Name, Model: c.Model, Epochs: 1, Batch: c.Batch, LocalBatch: c.Batch, Optimizer: c.Optimizer,
		Replicas: 1, Containers: 1, Threads: 1, Rounds: 1, Timeout: trialTimeout,
	}.WithDefaults()
	began := time.Now()
	if t.numerics, err = plan.Numerics(spec, d, b.measured.KernelSet); err != nil {
		return t, err
	}
	t.numerics.RoundSteps, t.numerics.Steps = roundSteps, rounds*roundSteps
	r, err := plan.Train(spec, t.numerics, b.limits, b.measured)
	if err != nil {
		return t, err
	}
	t.predicted, t.took = r.Roles[job.RoleTrain].Total(), time.Since(began)
	digest, err := t.numerics.Digest()
	if err != nil {
		return t, err
	}
	t.task = r.Equip(job.Task{
		Role: job.RoleTrain, Job: id, Plan: digest, To: t.numerics.RoundEnd(r.SpanRounds - 1), Meet: r.SpanRounds > 1, Budget: r.Budget,
	})
	return t, nil
}

// run stages what a case needs, trains it in a worker under a memory limit, and
// deletes what it left.
func (b *trials) run(ctx context.Context, t trial, memory job.Bytes) (out platform.Outcome, err error) {
	d := t.numerics.Dataset
	var keys []string
	put := func(key string, write func(io.Writer) error) error {
		keys = append(keys, key)
		_, err := b.store.PutIfAbsent(ctx, key, write)
		return err
	}
	defer func() {
		err = errors.Join(err, clearScratch(ctx, b.store, t.task.Job), b.store.Delete(context.WithoutCancel(ctx), keys...))
	}()
	seed := uint32(1)
	for i := range d.Shards(job.TrainPart) {
		records := min(d.ShardRecords, d.Train-i*d.ShardRecords)
		header := shard.Header{Records: records, H: d.Height, W: d.Width, C: d.Channels, Classes: d.Classes}
		pixels, labels := make([]byte, int64(records)*int64(header.RecordBytes())), make([]uint16, records)
		for j := range pixels {
			seed = seed*1664525 + 1013904223
			pixels[j] = byte(seed >> 24)
		}
		for j := range labels {
			labels[j] = uint16(j % d.Classes)
		}
		if err := put(d.ShardKey(job.TrainPart, i), func(w io.Writer) error { return shard.Write(w, header, pixels, labels) }); err != nil {
			return out, err
		}
	}
	raw, err := json.Marshal(t.numerics)
	if err != nil {
		return out, err
	}
	if err := put(job.Keys{Job: t.task.Job, Plan: t.task.Plan}.Numerics(), func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	}); err != nil {
		return out, err
	}
	return b.call(ctx, t.task, memory)
}
