// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"disdel/internal/bench"
	"disdel/internal/job"
	"disdel/internal/report"
)

// benchGrace is how long an interrupted job may take to clean up.
const benchGrace = 30 * time.Second

func (a *app) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this program on this machine",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.benchTrainCommand(), a.benchEngineCommand(), a.benchMemoryCommand(), a.benchPlatformCommand(), a.benchWorkerCommand(), a.benchStepsCommand())
	return cmd
}

// benchOptions are what one experiment is run with.
type benchOptions struct {
	seeds       int
	extra       []string // flags of train for every run
	infer       bool
	raw         io.WriteCloser // gets each run; nil is nobody
	json, quiet bool
}

func (a *app) benchTrainCommand() *cobra.Command {
	var vary, cases []string
	var raw string
	var o benchOptions
	o.seeds = 1
	cmd := &cobra.Command{
		Use:   "train DATASET... [-- FLAGS OF TRAIN]",
		Short: "Run training jobs with different flags and compare them",
		Long: `Train runs "disdel train" as a process of its own for every data set, every
combination of what --vary names, every --case and every seed, one after the
other, and measures it from outside. All configurations run with seed 1 before
any runs with seed 2.

The first case is what the others of the same data set and combination are
compared with: "points" is the difference of the mean accuracies in percentage
points, "times" the quotient of the least times.

"Predicted above peak" is by how much the memory that the plan predicted for a
call is above the call's measured peak, least and most over all calls; "at most"
is the largest such difference over its peak. "Outside" counts the calls whose peak
was above its prediction or its limit, or more than both 2 MB and 15 % of it below
its prediction.

With --infer "disdel infer" runs each trained model over the test part once more,
with those flags of train that it has too, and must reach the same accuracy.

Jobs use a store of their own in a folder for temporary files, which is deleted
in the end, unless a flag of train says --store.`,
		Example: `  disdel bench train digits --case workers=1 --case workers=2 --case workers=4 --seeds 5
  disdel bench train mnist cifar10 --vary model=cnn,mlp --vary batch=32,64,128
  disdel bench train mnist --case "workers=4 rounds=1" --case workers=4 -- --epochs 2
  disdel bench train mnist cifar10 --infer --case memory=256 --case "memory=256 store=redis://localhost"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) == 0 || dash == 0 {
				return fmt.Errorf("%s: want the name of one data set at least", commandName(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			datasets := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				datasets, o.extra = args[:dash], args[dash:]
			}
			all, err := experiment(datasets, vary, cases, o.seeds)
			if err != nil {
				return usageError{err}
			}
			if raw != "" {
				if o.raw, err = os.OpenFile(raw, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
					return fmt.Errorf("--raw: %w", err)
				}
			}
			return a.benchTrain(cmd.Context(), all, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&vary, "vary", nil, "a flag of train and the values that it takes, as FLAG=VALUE,VALUE; can be repeated")
	f.StringArrayVar(&cases, "case", nil, `flags of train that are compared with those of the first case, as "FLAG=VALUE FLAG=VALUE"; can be repeated`)
	f.Var(countValue{&o.seeds}, "seeds", "how many seeds, from 1 on")
	f.BoolVar(&o.infer, "infer", false, "run infer with each trained model too")
	f.StringVar(&raw, "raw", "", "file to which each run is appended as one line of JSON")
	f.BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	f.BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
	return cmd
}

func experiment(datasets, vary, cases []string, seeds int) ([]bench.Configuration, error) {
	var axes []bench.Axis
	for _, text := range vary {
		axis, err := bench.ParseAxis(text)
		if err != nil {
			return nil, fmt.Errorf("--vary: %w", err)
		}
		axes = append(axes, axis)
	}
	var settings [][]bench.Setting
	for _, text := range cases {
		one, err := bench.ParseSettings(text)
		if err != nil {
			return nil, fmt.Errorf("--case: %w", err)
		}
		settings = append(settings, one)
	}
	return bench.Matrix(datasets, axes, settings, seeds)
}

// benchTrain runs the jobs and prints what they took. It closes the file for the runs
// in the end.
func (a *app) benchTrain(ctx context.Context, all []bench.Configuration, o benchOptions) (err error) {
	keep := func(bench.Sample) error { return nil }
	if o.raw != nil {
		defer func() {
			if closeErr := o.raw.Close(); closeErr != nil {
				err = errors.Join(err, fmt.Errorf("--raw: %w", closeErr))
			}
		}()
		keep = func(s bench.Sample) error { return json.NewEncoder(o.raw).Encode(s) }
	}
	folder, err := os.MkdirTemp("", "disdel-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	done, total := 0, len(all)*o.seeds
	failed := 0
	run := func(ctx context.Context, args []string) (bench.Sample, error) {
		done++
		line := printable(bench.HidePasswords(strings.Join(args, " ")))
		if !o.quiet {
			fmt.Fprintf(a.stderr, "disdel: run %d of %d: %s\n", done, total, line)
		}
		s, err := a.timeTrain(ctx, append(args, o.extra...), folder, o.infer)
		if r := s.Failed(); err == nil && r != nil {
			failed++
			a.warn(fmt.Errorf("%s: %s %s: %s", line, r.Kind, r.Job, r.Error))
		}
		return s, err
	}
	samples, err := bench.Run(ctx, all, o.seeds, run, keep)
	if err != nil && len(samples) == 0 {
		return err
	}
	rows := bench.Summarise(all, samples)
	machine := bench.ThisMachine()
	if o.json {
		err = errors.Join(err, report.JSON(a.stdout, map[string]any{"machine": machine, "rows": rows}))
	} else {
		err = errors.Join(err, report.Bench(a.page(), machine, rows))
	}
	if err == nil && failed > 0 {
		return fmt.Errorf("%d of %d runs failed", failed, total)
	}
	return err
}

// timeTrain runs one training job, with a store in the folder, and where asked a job
// that runs its model.
func (a *app) timeTrain(ctx context.Context, args []string, folder string, infer bool) (s bench.Sample, err error) {
	if s.Record, s.Wall, err = a.timeJob(ctx, folder, "train", args); err != nil || !infer || s.Record.Status != job.Succeeded {
		return s, err
	}
	if args, err = a.inferArguments(args, s.Record.Model.Digest); err != nil {
		return s, err
	}
	again, wall, err := a.timeJob(ctx, folder, "infer", args)
	if err != nil {
		return s, err
	}
	s.Infer, s.InferWall = &again, wall
	if again.Status == job.Succeeded && (again.Accuracy != s.Record.Accuracy || again.Loss != s.Record.Loss) {
		return s, fmt.Errorf("%s: infer reached %v with loss %v, train %v with %v", again.Job, again.Accuracy, again.Loss, s.Record.Accuracy, s.Record.Loss)
	}
	return s, nil
}

// inferArguments are those of an infer with the model that a train with such
// arguments has made: the flags that both commands have.
func (a *app) inferArguments(train []string, digest string) ([]string, error) {
	from, to := a.trainCommand(), a.inferCommand()
	if err := from.ParseFlags(train); err != nil {
		return nil, usageError{err}
	}
	if from.Flags().Changed("job") {
		return nil, usagef("--infer takes flags of train, and no --job file")
	}
	args := append(slices.Clone(from.Flags().Args()), "--model="+digest)
	from.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "model", "json", "quiet":
		default:
			if to.Flags().Lookup(f.Name) != nil {
				args = append(args, "--"+f.Name+"="+f.Value.String())
			}
		}
	})
	return args, nil
}

// timeJob runs one job in a process of its own, with a store in the folder.
func (a *app) timeJob(ctx context.Context, folder, command string, args []string) (record job.Record, wall time.Duration, err error) {
	self, err := a.program()
	if err != nil {
		return record, 0, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append([]string{command, "--json", "--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "DISDEL_STORE=dir://"+folder)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = benchGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err = cmd.Run()
	wall = time.Since(began)
	var exit *exec.ExitError
	line := bench.HidePasswords(command + " " + strings.Join(args, " "))
	switch {
	case ctx.Err() != nil:
		return record, wall, ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == ExitUsage:
		text, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "disdel: "), "\nRun '")
		return record, wall, usagef("%s: %s", line, text)
	case err != nil && !(errors.As(err, &exit) && exit.ExitCode() == ExitFailed):
		return record, wall, fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(stderr.String()))
	}
	if err := json.Unmarshal(stdout.Bytes(), &record); err != nil {
		return record, wall, fmt.Errorf("%s printed no record: %w: %s", line, err, strings.TrimSpace(stderr.String()))
	}
	return record, wall, nil
}
