// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/bench"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/report"
	"disdel/internal/store"
	"disdel/internal/worker"
)

const (
	workerBatch = 64
	// leastTried, mostTried and limitStep are the limits that are tried.
	leastTried = 8 * job.MB
	mostTried  = 32 * job.MB
	limitStep  = job.MB
	// trialSlower is how many times as long as the slowest run without a limit one
	// under a limit may take, and trialLeast how long it always may. One that takes
	// longer reads its own program again and again, and does not count as finishing.
	trialSlower = 20
	trialLeast  = time.Second
)

func (a *app) benchWorkerCommand() *cobra.Command {
	runs, steps := 5, 100
	var url string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Measure the memory and the start of a training worker",
		Long: `Worker trains the model cnn on 640 records of 28x28x1, batch 64, in workers that are
started for it, one after the other: their peak of resident memory, the time from
the start of the process to the end of its first step, and the smallest kernel limit
of memory under which one finishes, in no more than 20 times the time that it takes without.

Before each run under a limit the worker's program is taken out of the kernel's cache
of files, so that reading it counts too; the result says whether that worked, which
it does not where another process runs it.`,
		Example: `  disdel bench worker
  disdel bench worker --store redis://localhost:6379 --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if steps > maxEngineSteps {
				return usagef("--steps %d: want %d at most", steps, maxEngineSteps)
			}
			if url != "" {
				if _, _, err := store.ParseURL(url); err != nil {
					return usagef("--store: %w", err)
				}
			}
			return a.benchWorker(cmd.Context(), url, runs, steps, asJSON)
		},
	}
	f := cmd.Flags()
	f.Var(countValue{&runs}, "runs", "workers without a limit")
	f.Var(countValue{&steps}, "steps", "steps that each trains")
	f.StringVar(&url, "store", "", "a store in place of a folder for temporary files")
	f.BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	return cmd
}

func (a *app) benchWorker(ctx context.Context, url string, runs, steps int, asJSON bool) (err error) {
	b, err := a.openTrials(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	c := bench.MemoryCase{
		Model: "cnn", Height: 28, Width: 28, Channels: 1, Classes: benchClasses, Batch: workerBatch, Optimizer: job.DefaultOptimizer,
		Records: benchRecords, ShardRecords: benchRecords,
	}
	r := bench.WorkerResult{Steps: steps, Records: c.Records, Batch: c.Batch, Enforcement: b.limits.Enforcement, Cold: true}
	r.Store, _, _ = strings.Cut(b.init[worker.StoreEnv], ":")
	info, err := os.Stat(b.path)
	if err != nil {
		return fmt.Errorf("the worker's program: %w", err)
	}
	r.ProgramBytes = job.Bytes(info.Size())
	run := func(ctx context.Context, memory job.Bytes) (platform.Outcome, error) {
		t, err := b.predict(c, 1, steps)
		if err != nil {
			return platform.Outcome{}, err
		}
		r.Predicted = t.predicted
		return b.run(ctx, t, memory)
	}
	var process, peak, first []float64
	var slowest time.Duration
	for range runs {
		out, err := run(ctx, trialMemory)
		if err != nil {
			return err
		}
		var result job.TaskResult
		if err := json.Unmarshal(out.Result, &result); out.Kind != platform.Success || err != nil {
			return fmt.Errorf("the worker ended with %s: %s%s", out.Kind, out.Message, out.Result)
		}
		if self, ok := job.SelfOf(out.Result); ok {
			process = append(process, float64(self.Peak))
		}
		slowest = max(slowest, out.Usage.Init+out.Usage.Duration)
		peak = append(peak, float64(out.Usage.Peak))
		first = append(first, (out.Usage.Init + result.FirstStep).Seconds())
	}
	r.Process, r.Peak, r.FirstStep = bench.SpreadOf(process), bench.SpreadOf(peak), bench.SpreadOf(first)
	b.timeout = min(b.timeout, max(trialLeast, trialSlower*slowest))
	r.Least, err = bench.LeastLimit(ctx, leastTried, mostTried, limitStep, func(ctx context.Context, limit job.Bytes) (bool, error) {
		// Where it cannot be forgotten the runs are those of a warm cache.
		gone, err := forget(b.path)
		r.Cold = r.Cold && gone && err == nil
		out, err := run(ctx, limit)
		return out.Kind == platform.Success, err
	})
	if err != nil {
		return err
	}
	if asJSON {
		return report.JSON(a.stdout, map[string]any{"machine": bench.ThisMachine(), "worker": r})
	}
	return report.Worker(a.page(), bench.ThisMachine(), r)
}
