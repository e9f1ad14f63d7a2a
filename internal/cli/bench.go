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
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

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
	cmd.AddCommand(a.benchTrainCommand())
	return cmd
}

func (a *app) benchTrainCommand() *cobra.Command {
	var vary, cases []string
	var raw string
	var asJSON, quiet bool
	seeds := 1
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
is the largest such difference over its peak.

Jobs use a store of their own in a folder for temporary files, which is deleted
in the end, unless a flag of train says --store.`,
		Example: `  disdel bench train digits --case workers=1 --case workers=2 --case workers=4 --seeds 5
  disdel bench train mnist cifar10 --vary model=cnn,mlp --vary batch=32,64,128
  disdel bench train mnist --case "workers=4 rounds=1" --case workers=4 -- --epochs 2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) == 0 || dash == 0 {
				return fmt.Errorf("%s: want the name of one data set at least", commandName(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			datasets, extra := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				datasets, extra = args[:dash], args[dash:]
			}
			all, err := experiment(datasets, vary, cases, seeds)
			if err != nil {
				return usageError{err}
			}
			var samples io.WriteCloser
			if raw != "" {
				if samples, err = os.OpenFile(raw, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
					return fmt.Errorf("--raw: %w", err)
				}
			}
			return a.benchTrain(cmd.Context(), all, seeds, extra, samples, asJSON, quiet)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&vary, "vary", nil, "a flag of train and the values that it takes, as FLAG=VALUE,VALUE; can be repeated")
	f.StringArrayVar(&cases, "case", nil, `flags of train that are compared with those of the first case, as "FLAG=VALUE FLAG=VALUE"; can be repeated`)
	f.Var(countValue{&seeds}, "seeds", "how many seeds, from 1 on")
	f.StringVar(&raw, "raw", "", "file to which each run is appended as one line of JSON")
	f.BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	f.BoolVar(&quiet, "quiet", false, "no progress on stderr")
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

// benchTrain runs the jobs and prints what they took. Each run is written to raw, which
// may be nil and is closed in the end.
func (a *app) benchTrain(ctx context.Context, all []bench.Configuration, seeds int, extra []string, raw io.WriteCloser, asJSON, quiet bool) (err error) {
	keep := func(bench.Sample) error { return nil }
	if raw != nil {
		defer func() {
			if closeErr := raw.Close(); closeErr != nil {
				err = errors.Join(err, fmt.Errorf("--raw: %w", closeErr))
			}
		}()
		keep = func(s bench.Sample) error { return json.NewEncoder(raw).Encode(s) }
	}
	folder, err := os.MkdirTemp("", "disdel-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	done, total := 0, len(all)*seeds
	failed := 0
	run := func(ctx context.Context, args []string) (bench.Sample, error) {
		done++
		if !quiet {
			fmt.Fprintf(a.stderr, "disdel: run %d of %d: %s\n", done, total, printable(strings.Join(args, " ")))
		}
		s, err := a.timeTrain(ctx, append(args, extra...), folder)
		if err == nil && s.Record.Status != job.Succeeded {
			failed++
			a.warn(fmt.Errorf("%s: %s", strings.Join(args, " "), s.Record.Error))
		}
		return s, err
	}
	samples, err := bench.Run(ctx, all, seeds, run, keep)
	if err != nil && len(samples) == 0 {
		return err
	}
	rows := bench.Summarise(all, samples)
	machine := bench.ThisMachine()
	if asJSON {
		err = errors.Join(err, report.JSON(a.stdout, map[string]any{"machine": machine, "rows": rows}))
	} else {
		err = errors.Join(err, report.Bench(a.page(), machine, rows))
	}
	if err == nil && failed > 0 {
		return fmt.Errorf("%d of %d runs failed", failed, total)
	}
	return err
}

// timeTrain runs one job in a process of its own, with a store in the folder.
func (a *app) timeTrain(ctx context.Context, args []string, folder string) (s bench.Sample, err error) {
	self, err := a.program()
	if err != nil {
		return s, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"train", "--json", "--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "DISDEL_STORE=dir://"+folder)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = benchGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err = cmd.Run()
	s.Wall = time.Since(began)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == ExitUsage:
		text, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "disdel: "), "\nRun '")
		return s, usagef("train %s: %s", strings.Join(args, " "), text)
	case err != nil && !(errors.As(err, &exit) && exit.ExitCode() == ExitFailed):
		return s, fmt.Errorf("train %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	if err := json.Unmarshal(stdout.Bytes(), &s.Record); err != nil {
		return s, fmt.Errorf("train %s printed no record: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return s, nil
}
