// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

const (
	probeSide, probeClasses, probeBatch = 8, 10, 8
	// probeTime is how long the rate of training steps is measured.
	probeTime = 30 * time.Millisecond
	// probeObjectBytes is the size of the object that is put and got.
	probeObjectBytes = 1 << 20
	pageBytes        = 4096
)

// probe does once, on a tiny model, all that the other roles do, so that what
// the process then occupies is what any of them occupies beyond its arena. It
// also measures rates. With Allocate or Busy it first takes memory or time, to
// see whether the platform's limits hold.
func (w *Worker) probe(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	if err := task.Job.Validate(); err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	if err := takeMemory(ctx, task.Allocate); err != nil {
		return result, err
	}
	if err := takeTime(ctx, task.Busy); err != nil {
		return result, err
	}
	p := job.Probe{Version: Version(), KernelSet: w.cfg.Kernels.Name}
	if p.Binary, err = binaryDigest(); err != nil {
		return result, err
	}
	if p.FLOPS, p.StoreRate, p.Held, err = w.rehearse(ctx, task.Job); err != nil {
		return result, err
	}
	peak, err := residentPeak()
	if err != nil {
		return result, err
	}
	p.Package = peak - p.Held
	result.Probe = &p
	return result, nil
}

// rehearse trains a tiny model, sends its weights through the store and back,
// and says how fast that went and how much arena it held.
func (w *Worker) rehearse(ctx context.Context, id job.ID) (flops, storeRate float64, held job.Bytes, err error) {
	spec, err := nn.Named("cnn", nn.Shape{H: probeSide, W: probeSide, C: 1}, probeClasses)
	if err != nil {
		return 0, 0, 0, err
	}
	program, err := nn.Compile(spec, nn.Config{Batch: probeBatch, Train: true, Optimizer: nn.Adam(job.DefaultLearningRate)})
	if err != nil {
		return 0, 0, 0, err
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	held = job.Bytes(program.Sizes().Total).CeilTo(pageBytes)
	instance, err := program.Bind(arena.Bytes(), w.cfg.Kernels)
	if err != nil {
		return 0, 0, 0, err
	}
	instance.Init(job.DefaultSeed)

	pixels := make([]byte, probeBatch*probeSide*probeSide)
	labels := make([]uint16, probeBatch)
	for i := range pixels {
		pixels[i] = byte(i)
	}
	for i := range labels {
		labels[i] = uint16(i % probeClasses)
	}
	work := program.FLOPs()
	steps, began := 0, time.Now()
	for time.Since(began) < probeTime {
		if err := ctx.Err(); err != nil {
			return 0, 0, 0, err
		}
		steps++
		if _, err := instance.Step(pixels, labels, 1.0/256, steps); err != nil {
			return 0, 0, 0, fmt.Errorf("probe: %w", err)
		}
	}
	flops = float64(steps) * float64(work.Forward+work.Backward) / time.Since(began).Seconds()

	began = time.Now()
	if err := w.roundTrip(ctx, id, spec, instance.Weights()); err != nil {
		return 0, 0, 0, err
	}
	return flops, 2 * probeObjectBytes / time.Since(began).Seconds(), held, nil
}

// roundTrip writes an object of probeObjectBytes that holds the weights again
// and again, reads it back, and removes it.
func (w *Worker) roundTrip(ctx context.Context, id job.ID, spec nn.Spec, weights []float32) (err error) {
	key := job.Keys{Job: id}.Scratch() + "probe/" + strings.ToLower(rand.Text())
	var file bytes.Buffer
	if err := safetensors.Write(&file, nil, tensors(spec.Params(), "", weights)); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	repeats := probeObjectBytes/file.Len() + 1
	if _, err := w.store.PutIfAbsent(ctx, key, func(out io.Writer) error {
		for range repeats {
			if _, err := out.Write(file.Bytes()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("probe: the store does not take objects: %w", err)
	}
	defer func() { err = errors.Join(err, w.store.Delete(context.WithoutCancel(ctx), key)) }()
	object, err := w.store.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("probe: the store does not give back objects: %w", err)
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	if _, err := safetensors.NewReader(object); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if _, err := io.Copy(io.Discard, object); err != nil {
		return fmt.Errorf("probe: the store does not give back objects: %w", err)
	}
	return nil
}

// takeMemory takes and touches n bytes, a megabyte at a time, and keeps them to
// the end of the call.
func takeMemory(ctx context.Context, n job.Bytes) error {
	var held [][]byte
	for taken := job.Bytes(0); taken < n; taken += job.MB {
		if err := ctx.Err(); err != nil {
			return err
		}
		block := make([]byte, min(job.MB, n-taken))
		for i := 0; i < len(block); i += pageBytes {
			block[i] = 1
		}
		held = append(held, block)
	}
	clear(held)
	return nil
}

// takeTime computes until d has passed.
func takeTime(ctx context.Context, d time.Duration) error {
	for began := time.Now(); time.Since(began) < d; {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Version is the version of this program: that of its module, or of the commit
// it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return info.Main.Version + "+" + s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}

// binaryDigest is the SHA-256 of the running program's file, computed once.
var binaryDigest = sync.OnceValues(func() (_ string, err error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("probe: own program: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("probe: own program: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("probe: own program: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
})

// residentPeak is the high-water mark of this process's resident memory.
func residentPeak() (job.Bytes, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("probe: own memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("probe: own memory: %w", err)
			}
			return job.Bytes(kilobytes) * job.KB, nil
		}
	}
	return 0, errors.New("probe: own memory: /proc/self/status has no VmHWM")
}
