// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/bench"
	"disdel/internal/data/format"
	"disdel/internal/nn"
	"disdel/internal/report"
	"disdel/internal/worker"
)

const (
	// benchClasses is how many classes models have that are timed.
	benchClasses = 10
	// benchRecords is how many records engines go through: the thesis's shard of a
	// training action, in batches of 64 ten steps.
	benchRecords = 640
	// maxEngineSteps bounds the steps of a case.
	maxEngineSteps = 10_000_000
	// latencyFactor is how many times as many steps a case of batch 1 has.
	latencyFactor = 10
)

// engineOptions are the flags of bench engine.
type engineOptions struct {
	models, shapes   []string
	batches, threads []int
	modes            []string
	steps            bench.EngineSteps
	peers            []string
	script           string
	prototype        string
	json, quiet      bool
}

func (a *app) benchEngineCommand() *cobra.Command {
	o := &engineOptions{steps: bench.EngineSteps{Steps: 2000, Chunk: 100}}
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "Time training steps and inference, beside other frameworks",
		Long: `Engine times this program's engine, other frameworks and the fastest that the
processor can multiply and add, in one run.

Every engine is a process of its own, pinned to as many processors as it has
threads, the last ones, since most devices interrupt the first. All engines of a case
are alive at once and take turns, a chunk of steps each, so that a machine that gets
slower does so for all of them. "Times" is by how much this program's engine is faster, by the medians of chunks; "roofline" is the
share of the fastest rate that a processor reached in registers alone, measured
between the chunks. Latency is the mean over a chunk of the time of one call.

--peers names a Python interpreter in which TensorFlow, JAX or PyTorch are
installed; bench/peers/README.md in the source tree says how. What is not there is
reported as absent. --prototype names a program that takes the flags of, and prints
what, the prototype of the kernels does; it knows the model cnn alone.`,
		Example: `  disdel bench engine
  disdel bench engine --models cnn,mlp --batches 32,64 --threads 1,2 --peers ~/peers/bin/python
  disdel bench engine --modes infer --batches 1,256 --peers ~/peers/bin/python
  disdel bench engine --prototype "/tmp/proto -fuse -isa avx2" --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cases, specs, err := o.cases()
			if err != nil {
				return usageError{err}
			}
			return a.benchEngine(cmd.Context(), o, cases, specs)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.models, "models", []string{"cnn"}, "models: "+strings.Join(nn.Names(), ", "))
	f.StringSliceVar(&o.shapes, "shapes", []string{"28x28x1"}, "shapes of a record, as HxW or HxWxC")
	f.IntSliceVar(&o.batches, "batches", []int{64}, "batch sizes")
	f.IntSliceVar(&o.threads, "threads", []int{1, 2}, "numbers of threads")
	f.StringSliceVar(&o.modes, "modes", []string{bench.ModeTrain}, "train, infer")
	f.Var(countValue{&o.steps.Steps}, "steps", "steps that are timed of each engine; with a batch of 1 ten times as many")
	f.Var(countValue{&o.steps.Chunk}, "chunk", "steps that are timed at once")
	f.StringArrayVar(&o.peers, "peers", nil, "a Python interpreter with other frameworks; can be repeated")
	f.StringVar(&o.script, "script", filepath.Join("bench", "peers", "peers.py"), "the program that times them")
	f.StringVar(&o.prototype, "prototype", "", "a prototype of the kernels, with flags")
	f.BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	f.BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
	return cmd
}

// cases are all combinations of what the flags list, with the models' specs by
// model and shape.
func (o *engineOptions) cases() (cases []bench.EngineCase, specs map[[2]string]nn.Spec, err error) {
	specs = map[[2]string]nn.Spec{}
	for name, n := range map[string]int{"--models": len(o.models), "--shapes": len(o.shapes), "--batches": len(o.batches), "--threads": len(o.threads), "--modes": len(o.modes)} {
		if n == 0 {
			return nil, nil, fmt.Errorf("%s: want one at least", name)
		}
	}
	if s := o.steps; s.Chunk < 1 || s.Steps < s.Chunk || s.Steps > maxEngineSteps {
		return nil, nil, fmt.Errorf("--steps %d, --chunk %d: want a chunk of 1 at least, and steps of a chunk to %d", s.Steps, s.Chunk, maxEngineSteps)
	}
	processors := allowedProcessors()
	for _, n := range o.threads {
		if n < 1 || n > len(processors) {
			return nil, nil, fmt.Errorf("--threads %d: want 1 to %d, the processors that this program may use", n, len(processors))
		}
	}
	for _, mode := range o.modes {
		if mode != bench.ModeTrain && mode != bench.ModeInfer {
			return nil, nil, fmt.Errorf("--modes %q: want %s or %s", mode, bench.ModeTrain, bench.ModeInfer)
		}
	}
	for _, text := range o.shapes {
		shape, err := format.ParseShape(text)
		if err != nil {
			return nil, nil, fmt.Errorf("--shapes: %w", err)
		}
		for _, model := range o.models {
			spec, err := nn.Named(model, nn.Shape{H: shape.H, W: shape.W, C: shape.C}, benchClasses)
			if err != nil {
				return nil, nil, fmt.Errorf("--models: %w", err)
			}
			specs[[2]string{model, shape.String()}] = spec
			for _, batch := range o.batches {
				for _, threads := range o.threads {
					for _, mode := range o.modes {
						c := bench.EngineCase{Model: model, Shape: shape.String(), Batch: batch, Threads: threads, Mode: mode}
						program, err := stepsProgram(spec, c)
						if err != nil {
							return nil, nil, fmt.Errorf("--batches: %w", err)
						}
						work := program.FLOPs()
						c.Operations = float64(work.Forward+work.Backward) / float64(batch)
						cases = append(cases, c)
					}
				}
			}
		}
	}
	if len(cases) > bench.MaxRuns {
		return nil, nil, fmt.Errorf("%d cases, more than %d", len(cases), bench.MaxRuns)
	}
	return cases, specs, nil
}

func (a *app) benchEngine(ctx context.Context, o *engineOptions, cases []bench.EngineCase, specs map[[2]string]nn.Spec) error {
	self, err := a.program()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	spec := func(c bench.EngineCase) string { return string(specs[[2]string{c.Model, c.Shape}].Canonical()) }
	engines := []bench.Engine{{
		Name: bench.OwnEngine, Version: worker.Version(),
		Open: func(ctx context.Context, c bench.EngineCase) (bench.Stepper, error) {
			return startSteps(ctx, exec.CommandContext(ctx, self, stepsArgs(spec(c), c)...), c)
		},
	}}
	for _, python := range o.peers {
		found, err := a.frameworks(ctx, o, python, spec)
		if err != nil {
			return err
		}
		engines = append(engines, found...)
	}
	engines = onePerName(engines)
	if o.prototype != "" {
		command := strings.Fields(o.prototype)
		if len(command) == 0 {
			return usagef("--prototype: want a program")
		}
		if _, err := exec.LookPath(command[0]); err != nil {
			return usagef("--prototype: %w", err)
		}
		engines = append(engines, bench.Engine{
			Name: "prototype", Version: strings.Join(command[1:], " "), Whole: true,
			Open: func(_ context.Context, c bench.EngineCase) (bench.Stepper, error) {
				return newPrototype(command, c, o.steps.Chunk)
			},
		})
	}
	peaks := map[int]*stepsChild{}
	defer func() {
		for _, p := range peaks {
			_, _ = p.Close()
		}
	}()
	roofline := func(ctx context.Context, c bench.EngineCase) (float64, error) {
		p, ok := peaks[c.Threads]
		if !ok {
			var err error
			if p, err = startRoofline(ctx, self, c.Threads); err != nil {
				return 0, err
			}
			peaks[c.Threads] = p
		}
		return p.roofline(ctx)
	}
	var all []bench.EngineRun
	runErr := error(nil)
	for i, c := range cases {
		if !o.quiet {
			fmt.Fprintf(a.stderr, "disdel: case %d of %d: %s\n", i+1, len(cases), c)
		}
		steps := o.steps
		if c.Batch == 1 {
			steps.Steps, steps.Chunk = steps.Steps*latencyFactor, steps.Chunk*latencyFactor
		}
		runErr = bench.RunEngines(ctx, []bench.EngineCase{c}, engines, steps, roofline, func(runs []bench.EngineRun) error {
			all = append(all, runs...)
			return nil
		})
		if runErr != nil {
			break
		}
	}
	if len(all) == 0 {
		return runErr
	}
	machine, rows := bench.ThisMachine(), bench.SummariseEngines(all)
	if o.json {
		return errors.Join(runErr, report.JSON(a.stdout, map[string]any{"machine": machine, "rows": rows}))
	}
	return errors.Join(runErr, report.Engines(a.page(), machine, rows))
}

// frameworks are those that an interpreter says it has or has not.
func (a *app) frameworks(ctx context.Context, o *engineOptions, python string, spec func(bench.EngineCase) string) ([]bench.Engine, error) {
	if _, err := os.Stat(o.script); err != nil {
		return nil, usagef("--script: %w; it is in the source tree", err)
	}
	if _, err := exec.LookPath(python); err != nil {
		return nil, usagef("--peers: %w", err)
	}
	child, err := startChild(exec.CommandContext(ctx, python, o.script, "versions"), nil)
	if err != nil {
		return nil, fmt.Errorf("--peers: %w", err)
	}
	var engines []bench.Engine
	for {
		l, err := child.lines.Next()
		if err != nil {
			break // also when it failed, which wait says
		}
		name, missing := l.Framework, l.Event == bench.EventMissing
		engines = append(engines, bench.Engine{Name: name, Version: l.Version, Open: func(ctx context.Context, c bench.EngineCase) (bench.Stepper, error) {
			if missing {
				return nil, fmt.Errorf("%w: %s", bench.ErrAbsent, l.Error)
			}
			cmd := exec.CommandContext(ctx, python, o.script, "run", name, "--serve", "--spec", spec(c), "--mode", c.Mode,
				"--batch", strconv.Itoa(c.Batch), "--threads", strconv.Itoa(c.Threads), "--records", strconv.Itoa(benchRecords))
			s, err := startSteps(ctx, cmd, c)
			if err != nil && ctx.Err() == nil {
				// One that does not work here is no reason to lose the others.
				a.warn(fmt.Errorf("%s: %w", name, err))
				return nil, fmt.Errorf("%w: it did not start", bench.ErrAbsent)
			}
			return s, err
		}})
	}
	if err := child.wait(); err != nil {
		return nil, fmt.Errorf("--peers: %s %s: %w", python, o.script, err)
	}
	if len(engines) == 0 {
		return nil, fmt.Errorf("--peers: %s %s names no frameworks: %w", python, o.script, bench.ErrOutput)
	}
	return engines, nil
}

// onePerName leaves out a framework that one interpreter lacks and another has,
// and one that several have.
func onePerName(engines []bench.Engine) (kept []bench.Engine) {
	for _, e := range engines {
		at := slices.IndexFunc(kept, func(k bench.Engine) bool { return k.Name == e.Name })
		switch {
		case at < 0:
			kept = append(kept, e)
		case kept[at].Version == "" && e.Version != "":
			kept[at] = e
		}
	}
	return kept
}
