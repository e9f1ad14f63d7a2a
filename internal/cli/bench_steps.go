// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/bench"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/worker"
)

const (
	// stepsCommand is the command of the process whose steps are timed, which people
	// do not start.
	stepsCommand = "steps"
	// rooflineCalls is how often the roofline is measured for one figure.
	rooflineCalls = 100
	// maxStderr is what is kept of what an engine says on stderr.
	maxStderr = 4 << 10
)

// stepsProgram is what this program's engine runs in a case.
func stepsProgram(spec nn.Spec, c bench.EngineCase) (*nn.Program, error) {
	return nn.Compile(spec, nn.Config{
		Batch: c.Batch, Train: c.Mode == bench.ModeTrain, Optimizer: nn.Adam(job.DefaultLearningRate), Threads: c.Threads, Spin: c.Threads > 1,
	})
}

func stepsArgs(spec string, c bench.EngineCase) []string {
	return []string{"bench", stepsCommand, "--spec", spec, "--mode", c.Mode, "--batch", strconv.Itoa(c.Batch), "--threads", strconv.Itoa(c.Threads)}
}

// benchStepsCommand takes steps as standard input tells it to, and prints what
// bench/peers/peers.py does.
func (a *app) benchStepsCommand() *cobra.Command {
	var text string
	var c bench.EngineCase
	cmd := &cobra.Command{
		Use:    stepsCommand,
		Short:  "Take steps as standard input says; bench engine starts this",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.Threads < 1 || c.Threads > nn.MaxThreads {
				return usagef("--threads %d: want 1 to %d", c.Threads, nn.MaxThreads)
			}
			runtime.GOMAXPROCS(c.Threads)
			if text == "" {
				return a.serveRoofline(cmd.Context(), os.Stdin, c.Threads)
			}
			spec, err := nn.ParseSpec([]byte(text))
			if err != nil {
				return usageError{err}
			}
			return a.serveSteps(cmd.Context(), os.Stdin, spec, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&text, "spec", "", "the model as JSON; without it the roofline is measured")
	f.StringVar(&c.Mode, "mode", bench.ModeTrain, "train or infer")
	f.IntVar(&c.Batch, "batch", 1, "records of a step")
	f.IntVar(&c.Threads, "threads", 1, "threads")
	return cmd
}

// serveSteps takes one step, and then as many as each line of in says.
func (a *app) serveSteps(ctx context.Context, in io.Reader, spec nn.Spec, c bench.EngineCase) (err error) {
	program, err := stepsProgram(spec, c)
	if err != nil {
		return usageError{err}
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	instance, err := program.Bind(arena.Bytes(), kernel.Best())
	if err != nil {
		return err
	}
	defer instance.Close()
	instance.Init(job.DefaultSeed)

	batches := max(1, benchRecords/c.Batch)
	size := spec.Input.Elements()
	pixels, labels := make([]byte, batches*c.Batch*size), make([]uint16, batches*c.Batch)
	seed := uint32(1)
	random := func() uint32 { seed = seed*1664525 + 1013904223; return seed >> 8 }
	for i := range pixels {
		pixels[i] = byte(random() >> 8)
	}
	for i := range labels {
		labels[i] = uint16(random() % uint32(spec.Classes))
	}
	done := 0
	step := func() error {
		at := done % batches * c.Batch
		x, y := pixels[at*size:][:c.Batch*size], labels[at:][:c.Batch]
		done++
		if c.Mode == bench.ModeInfer {
			_, err := instance.Predict(x, c.Batch, 1.0/256)
			return err
		}
		_, err := instance.Step(nn.StepInput{Pixels: x, Labels: y, Scale: 1.0 / 256, Step: done, Seed: job.DefaultSeed})
		return err
	}
	if err := step(); err != nil {
		return err
	}
	return a.serveChunks(ctx, in, func(n int) (operations float64, err error) {
		for range n {
			if err := step(); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
}

// serveRoofline multiplies and adds in registers alone, on so many threads at once.
func (a *app) serveRoofline(ctx context.Context, in io.Reader, threads int) error {
	return a.serveChunks(ctx, in, func(n int) (float64, error) {
		operations := make([]int64, threads)
		var wait sync.WaitGroup
		for t := range threads {
			wait.Go(func() {
				for range n {
					operations[t] += kernel.Peak()
				}
			})
		}
		wait.Wait()
		sum := 0.0
		for _, o := range operations {
			sum += float64(o)
		}
		return sum, nil
	})
}

// serveChunks says that it is ready, takes a chunk of steps for each number on in,
// and says in the end what memory it took.
func (a *app) serveChunks(ctx context.Context, in io.Reader, take func(n int) (operations float64, err error)) error {
	say := func(l bench.Line) error { return json.NewEncoder(a.stdout).Encode(l) }
	if err := say(bench.Line{Event: bench.EventReady, Framework: bench.OwnEngine, Version: worker.Version()}); err != nil {
		return err
	}
	for scanner := bufio.NewScanner(in); scanner.Scan(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSpace(scanner.Text()))
		if err != nil || n < 1 || n > maxEngineSteps*latencyFactor {
			return usagef("standard input: %.40q: want a number of steps", scanner.Text())
		}
		began := time.Now()
		operations, err := take(n)
		if err != nil {
			return err
		}
		if err := say(bench.Line{Event: bench.EventChunk, Steps: n, Seconds: time.Since(began).Seconds(), Operations: operations}); err != nil {
			return err
		}
	}
	peak, err := worker.ResidentPeak()
	if err != nil {
		peak = 0 // this system does not tell
	}
	return say(bench.Line{Event: bench.EventEnd, Peak: peak})
}

// childProcess is an engine's process.
type childProcess struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  *bench.LineReader
	stderr tailBuffer
}

// tailBuffer keeps the last bytes of what is written to it.
type tailBuffer struct{ kept []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	if t.kept = append(t.kept, p...); len(t.kept) > maxStderr {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-maxStderr:]...)
	}
	return len(p), nil
}

// startChild starts a process on some processors; none are all that this program
// may use.
func startChild(cmd *exec.Cmd, processors []int) (*childProcess, error) {
	c := &childProcess{cmd: cmd}
	cmd.Stderr = &c.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close())
	}
	c.stdin, c.lines = stdin, bench.NewLineReader(stdout)
	if err := startOn(cmd, processors); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return c, nil
}

// wait ends the process by closing its input.
func (c *childProcess) wait() error {
	_ = c.stdin.Close() // it may have ended already
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(c.stderr.kept)))
	}
	return nil
}

// explain adds what the process said to an error about it, and ends it.
func (c *childProcess) explain(err error) error {
	if waited := c.wait(); waited != nil && !errors.Is(err, bench.ErrAbsent) {
		err = fmt.Errorf("%w: %w", err, waited)
	}
	return err
}

// lastProcessors are the last n of those that this program may use, which has as many:
// the first is where most devices interrupt.
func lastProcessors(n int) []int {
	all := allowedProcessors()
	return all[len(all)-n:]
}

// stepsChild is a process that takes chunks of steps.
type stepsChild struct {
	*childProcess
	batch int
	start float64
	ended bool
}

// startSteps starts a process that takes steps, and waits for the first.
func startSteps(ctx context.Context, cmd *exec.Cmd, c bench.EngineCase) (*stepsChild, error) {
	began := time.Now()
	child, err := startChild(cmd, lastProcessors(c.Threads))
	if err != nil {
		return nil, err
	}
	s := &stepsChild{childProcess: child, batch: c.Batch}
	if _, err := child.lines.Expect(bench.EventReady); err != nil {
		return nil, errors.Join(ctx.Err(), child.explain(err))
	}
	s.start = time.Since(began).Seconds()
	return s, nil
}

// startRoofline starts this program to measure the roofline.
func startRoofline(ctx context.Context, self string, threads int) (*stepsChild, error) {
	return startSteps(ctx, exec.CommandContext(ctx, self, "bench", stepsCommand, "--threads", strconv.Itoa(threads)), bench.EngineCase{Threads: threads})
}

func (s *stepsChild) chunk(ctx context.Context, steps int) (bench.Line, error) {
	_, err := fmt.Fprintln(s.stdin, steps)
	var l bench.Line
	if err == nil {
		l, err = s.lines.Expect(bench.EventChunk)
	}
	if err == nil && l.Steps != steps {
		err = fmt.Errorf("%w: %d steps, want %d", bench.ErrOutput, l.Steps, steps)
	}
	if err != nil {
		s.ended = true
		return l, errors.Join(ctx.Err(), s.explain(err))
	}
	return l, nil
}

// Burst implements bench.Stepper.
func (s *stepsChild) Burst(ctx context.Context, steps int) (bench.Burst, error) {
	l, err := s.chunk(ctx, steps)
	if err != nil {
		return bench.Burst{}, err
	}
	rate := float64(l.Steps*s.batch) / l.Seconds
	return bench.Burst{Best: rate, Median: rate, Took: l.Seconds}, nil
}

// roofline is in floating point operations a second.
func (s *stepsChild) roofline(ctx context.Context) (float64, error) {
	l, err := s.chunk(ctx, rooflineCalls)
	if err != nil {
		return 0, err
	}
	return l.Operations / l.Seconds, nil
}

// Start implements bench.Stepper.
func (s *stepsChild) Start() float64 { return s.start }

// Close implements bench.Stepper.
func (s *stepsChild) Close() (peak job.Bytes, err error) {
	if s.ended {
		return 0, nil
	}
	s.ended = true
	_ = s.stdin.Close()
	for {
		l, err := s.lines.Next()
		if err != nil {
			break // also when it failed, which wait says
		}
		if l.Event == bench.EventEnd {
			peak = l.Peak
		}
	}
	return peak, s.wait()
}

// prototype runs as a whole for each burst.
type prototype struct {
	command []string
	c       bench.EngineCase
	chunk   int
}

// newPrototype is ErrAbsent for what the prototype does not know.
func newPrototype(command []string, c bench.EngineCase, chunk int) (*prototype, error) {
	h, _, channels, _ := shapeParts(c.Shape)
	if c.Model != "cnn" || c.Mode != bench.ModeTrain || c.Threads > 2 || channels == 0 || c.Shape != fmt.Sprintf("%dx%dx%d", h, h, channels) {
		return nil, fmt.Errorf("%w: it trains cnn alone, on squares", bench.ErrAbsent)
	}
	return &prototype{command, c, chunk}, nil
}

// Burst implements bench.Stepper.
func (p *prototype) Burst(ctx context.Context, steps int) (bench.Burst, error) {
	h, _, channels, _ := shapeParts(p.c.Shape)
	args := append(p.command[1:len(p.command):len(p.command)], "-hw", strconv.Itoa(h), "-c", strconv.Itoa(channels), "-batch", strconv.Itoa(p.c.Batch),
		"-n", strconv.Itoa(max(benchRecords, p.c.Batch)), "-threads", strconv.Itoa(p.c.Threads),
		"-chunks", strconv.Itoa(steps/p.chunk), "-steps", strconv.Itoa(p.chunk))
	cmd := exec.CommandContext(ctx, p.command[0], args...)
	var stdout, stderr tailBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := startOn(cmd, lastProcessors(p.c.Threads))
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return bench.Burst{}, errors.Join(ctx.Err(), fmt.Errorf("%w: %s", err, strings.TrimSpace(string(stderr.kept))))
	}
	return bench.ParsePrototype(string(stdout.kept), steps, p.c.Batch)
}

// Start implements bench.Stepper; the prototype tells its own, of a run with other
// records.
func (p *prototype) Start() float64 { return 0 }

// Close implements bench.Stepper.
func (p *prototype) Close() (job.Bytes, error) { return 0, nil }

func shapeParts(text string) (h, w, c int, err error) {
	_, err = fmt.Sscanf(text, "%dx%dx%d", &h, &w, &c)
	return h, w, c, err
}
