// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/bench"
	"disdel/internal/control"
	"disdel/internal/image"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/pool/docker"
	"disdel/internal/report"
)

// benchPlatformOptions are the flags of bench platform.
type benchPlatformOptions struct {
	platforms          []string
	cold, warm, rounds int
	atOnce, times      int
	json, quiet        bool
}

// maxBenchCalls bounds what bench platform is asked for.
const maxBenchCalls = 100_000

func (a *app) benchPlatformCommand() *cobra.Command {
	o := &benchPlatformOptions{cold: 20, warm: 200, rounds: 20, atOnce: 200, times: 5}
	cmd := &cobra.Command{
		Use:   "platform",
		Short: "Time what calls take beside the work itself",
		Long: `Platform measures what the embedded platform takes beside the work itself, with
child processes and, if --platforms names it, with Docker containers: calls of a task
that does nothing, each in a new container (cold) and all in one (warm), and what
the training invocations of a job on digits take beside their training steps. With
docker it also measures the engine alone, with a program of three instructions.

Then it starts "disdel platform serve" with child processes, and makes --at-once
calls over HTTP at the same time, --times times. Of those it tells how many were
throttled or failed, how long the others took, queueing for a container included,
and the resident memory of the server.

All times are those of the caller, from the call to the outcome.`,
		Example: `  disdel bench platform
  disdel bench platform --platforms process,docker --json
  disdel bench platform --at-once 0`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range o.platforms {
				if name != platformProcess && name != platformDocker {
					return usagef("--platforms %q: want %s or %s", name, platformProcess, platformDocker)
				}
			}
			for _, c := range []struct {
				flag  string
				count int
			}{{"--cold", o.cold}, {"--warm", o.warm}, {"--rounds", o.rounds}, {"--times", o.times}} {
				if c.count < 1 || c.count > maxBenchCalls {
					return usagef("%s %d: want 1 to %d", c.flag, c.count, maxBenchCalls)
				}
			}
			if o.atOnce < 0 || o.atOnce > maxAtOnce {
				return usagef("--at-once %d: want 0 to %d", o.atOnce, maxAtOnce)
			}
			return a.benchPlatform(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.platforms, "platforms", []string{platformProcess}, "what containers are: process, docker")
	f.Var(countValue{&o.cold}, "cold", "calls that start a container each")
	f.Var(countValue{&o.warm}, "warm", "calls that find one")
	f.Var(countValue{&o.rounds}, "rounds", "rounds of the job, with an invocation for each of its two replicas in each")
	f.IntVar(&o.atOnce, "at-once", o.atOnce, "calls that are made at once; 0 leaves this out")
	f.Var(countValue{&o.times}, "times", "how often")
	f.BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	f.BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
	return cmd
}

func (a *app) benchPlatform(ctx context.Context, o *benchPlatformOptions) (err error) {
	folder, err := os.MkdirTemp("", "disdel-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	say := func(format string, args ...any) {
		if !o.quiet {
			fmt.Fprintf(a.stderr, "disdel: "+format+"\n", args...)
		}
	}
	var rows []bench.PlatformRow
	for _, name := range o.platforms {
		say("measuring %s", name)
		row, err := a.timePlatform(ctx, o, name, folder)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, row)
	}
	var crowd *bench.Crowd
	if o.atOnce > 0 {
		say("making %d calls at once", o.atOnce)
		if crowd, err = a.timeCrowd(ctx, o, folder); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	machine := bench.ThisMachine()
	if o.json {
		return report.JSON(a.stdout, map[string]any{"machine": machine, "rows": rows, "crowd": crowd})
	}
	return report.Platforms(a.page(), machine, rows, crowd)
}

// timePlatform measures one kind of containers.
func (a *app) timePlatform(ctx context.Context, b *benchPlatformOptions, name, folder string) (row bench.PlatformRow, err error) {
	o := &options{platform: name, store: "dir://" + filepath.Join(folder, name), quiet: true}
	e, err := a.open(ctx, o)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	limits, err := e.config.Platform.Limits(ctx)
	if err != nil {
		return row, err
	}
	row.Platform, row.Enforcement = name, limits.Enforcement
	if row.Cold, row.Warm, err = timeNothing(ctx, b, e, limits); err != nil {
		return row, err
	}
	if row.Outside, err = a.timeOutside(ctx, b, o, e); err != nil {
		return row, err
	}
	if name == platformDocker {
		row.Empty, err = a.timeEmpty(ctx, b, folder)
	}
	return row, err
}

// timeNothing makes calls of a task that does nothing.
func timeNothing(ctx context.Context, b *benchPlatformOptions, e *execution, limits job.Limits) (cold, warm bench.Latency, err error) {
	p := e.config.Platform
	params, err := json.Marshal(job.Task{Role: job.RoleNothing})
	if err != nil {
		return cold, warm, fmt.Errorf("bench: %w", err)
	}
	call := func(pkg string) (time.Duration, error) {
		began := time.Now()
		id, err := p.Invoke(ctx, platform.Call{Package: pkg, Action: "nothing", Params: params})
		if err != nil {
			return 0, err
		}
		out, err := p.Await(ctx, id)
		if err == nil && out.Kind != platform.Success {
			err = fmt.Errorf("a task that does nothing: %s: %s", out.Kind, out.Message)
		}
		return time.Since(began), err
	}
	const pkg = "disdel-bench"
	defer func() { err = errors.Join(err, p.Remove(context.WithoutCancel(ctx), pkg)) }()
	deploy := func() error {
		return p.Deploy(ctx, platform.Package{Name: pkg, Init: e.config.Init, Actions: []platform.Action{
			{Name: "nothing", Memory: limits.MemoryDefault, Timeout: limits.TimeoutDefault},
		}})
	}
	var first, next []time.Duration
	for range b.cold {
		if err := errors.Join(p.Remove(ctx, pkg), deploy()); err != nil {
			return cold, warm, err
		}
		took, err := call(pkg)
		if err != nil {
			return cold, warm, err
		}
		first = append(first, took)
	}
	for range b.warm {
		took, err := call(pkg)
		if err != nil {
			return cold, warm, err
		}
		next = append(next, took)
	}
	return bench.Latencies(first), bench.Latencies(next), nil
}

// timeOutside trains on digits, one round an invocation, and sums up what warm
// training invocations took beside their steps.
func (a *app) timeOutside(ctx context.Context, b *benchPlatformOptions, o *options, e *execution) (bench.Latency, error) {
	o.spec = job.Spec{Kind: job.Train, Dataset: "digits", Model: "cnn", Epochs: 5, Batch: 64, Replicas: 2, Rounds: b.rounds, Containers: 1}.WithDefaults()
	asked, err := a.ask(ctx, o)
	if err != nil {
		return bench.Latency{}, err
	}
	id, err := job.NewID(time.Now(), rand.Reader)
	if err != nil {
		return bench.Latency{}, err
	}
	watched := &stopwatch{Platform: e.config.Platform, began: map[platform.Activation]time.Time{}}
	cfg := e.config
	cfg.Platform, cfg.Stage = watched, stager(e.store, asked.set, asked.dataset)
	record, err := control.Run(ctx, cfg, control.Created{Job: id, Spec: asked.spec, Dataset: asked.dataset})
	if err == nil && record.Status != job.Succeeded {
		err = fmt.Errorf("train digits: %s: %s", record.Status, record.Error)
	}
	if err == nil && len(watched.outside) == 0 {
		err = errors.New("train digits: no training invocation was warm")
	}
	return bench.Latencies(watched.outside), err
}

// stopwatch times the training invocations of a job.
type stopwatch struct {
	platform.Platform

	mu      sync.Mutex
	began   map[platform.Activation]time.Time // of training invocations
	outside []time.Duration
}

// Invoke implements platform.Platform.
func (s *stopwatch) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	var task job.Task
	if err := json.Unmarshal(call.Params, &task); err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	now := time.Now()
	id, err := s.Platform.Invoke(ctx, call)
	if err == nil && task.Role == job.RoleTrain {
		s.mu.Lock()
		s.began[id] = now
		s.mu.Unlock()
	}
	return id, err
}

// Await implements platform.Platform.
func (s *stopwatch) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	out, err := s.Platform.Await(ctx, id)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	began, ok := s.began[id]
	if err != nil || !ok || out.Kind != platform.Success || out.Usage.Cold || out.Usage.Warmed {
		return out, err
	}
	result, bad := job.DecodeAnswer(out.Result)
	if bad == nil && result.Steps > 0 {
		// Two replicas share a container: the time in the queue is the other's work.
		s.outside = append(s.outside, now.Sub(began)-out.Usage.Wait-result.StepTime)
	}
	return out, err
}

// timeEmpty times the engine alone.
func (a *app) timeEmpty(ctx context.Context, b *benchPlatformOptions, folder string) (*bench.Latency, error) {
	program, err := image.Empty(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "empty")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		return nil, fmt.Errorf("write an empty program: %w", err)
	}
	img, err := image.Build(path)
	if err != nil {
		return nil, err
	}
	host := a.getenv(dockerHostEnv)
	reference := strings.Replace(contentReference(img), workerImage, emptyImage, 1)
	if err := loadImage(ctx, host, img, reference); err != nil {
		return nil, err
	}
	defer func() { _ = docker.Forget(context.WithoutCancel(ctx), host, reference) }() // a few hundred bytes
	var all []time.Duration
	for range b.cold {
		took, err := docker.RunOnce(ctx, host, reference)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	l := bench.Latencies(slices.Clone(all))
	return &l, nil
}

// emptyImage is the name of the image of the empty program.
const emptyImage = "disdel/empty"
