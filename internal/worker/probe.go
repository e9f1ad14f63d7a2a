// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
)

const (
	// probeTime is how long the rate of training steps is measured.
	probeTime = 30 * time.Millisecond
	// probeRehearsals is how often the work is rehearsed: after that the heap
	// and the pages of the program that are resident grow no more.
	probeRehearsals = 4
	// probeObjectBytes is the size of the object that is put and got.
	probeObjectBytes = 1 << 20
	pageBytes        = 4096
	// probeObjects is how many small ones follow it.
	probeObjects = 8
)

// probe does, on a tiny data set and model, all that the other roles do, by
// their own code, so that what the process then occupies beyond its arena is
// what any of them occupies. It also measures rates. With Allocate or Busy it
// first takes memory or time, to see whether the platform's limits hold.
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
	p := job.Probe{Version: Version(), KernelSet: w.cfg.Kernels.Name, Kernel: task.Kernel}
	if p.Binary, err = binaryDigest(); err != nil {
		return result, err
	}
	if p.FLOPS, err = w.measureSteps(ctx); err != nil {
		return result, err
	}
	if p.StoreRate, p.StoreSeconds, err = w.measureStore(ctx, task.Job); err != nil {
		return result, err
	}
	for range probeRehearsals {
		most, err := w.rehearse(ctx, task.Job)
		if err != nil {
			return result, fmt.Errorf("probe: %w", err)
		}
		p.Package = max(p.Package, most)
	}
	peak, err := ResidentPeak()
	if err != nil {
		return result, err
	}
	if p.Package == 0 {
		p.Package = peak // this system tells no more
	}
	p.Held, p.Floor = max(0, peak-p.Package), w.started
	result.Probe = &p
	return result, nil
}

// probeData is the shape of the data set that a probe makes up.
var probeData = job.Dataset{
	Name: "probe", Digest: "probe", Height: 8, Width: 8, Channels: 1, Classes: 10, Scale: 1.0 / 256,
	Train: 64, Test: 64, ShardRecords: 64,
}

const probeBatch = 8

func probeModel() (nn.Spec, error) {
	return nn.Named("cnn", nn.Shape{H: probeData.Height, W: probeData.Width, C: probeData.Channels}, probeData.Classes)
}

func probeProgram(spec nn.Spec) (*nn.Program, error) {
	return nn.Compile(spec, nn.Config{Batch: probeBatch, Train: true, Optimizer: nn.Adam(job.DefaultLearningRate)})
}

func probeRecords(n int) (pixels []byte, labels []uint16) {
	pixels = make([]byte, n*int(probeData.RecordBytes()))
	for i := range pixels {
		pixels[i] = byte(i * 7)
	}
	labels = make([]uint16, n)
	for i := range labels {
		labels[i] = uint16(i % probeData.Classes)
	}
	return pixels, labels
}

// measureSteps returns the rate of training steps in floating point operations
// a second.
func (w *Worker) measureSteps(ctx context.Context) (flops float64, err error) {
	spec, err := probeModel()
	if err != nil {
		return 0, err
	}
	program, err := probeProgram(spec)
	if err != nil {
		return 0, err
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	instance, err := program.Bind(arena.Bytes(), w.cfg.Kernels)
	if err != nil {
		return 0, err
	}
	instance.Init(job.DefaultSeed)
	pixels, labels := probeRecords(probeBatch)
	work := program.FLOPs()
	steps, began := 0, time.Now()
	for time.Since(began) < probeTime {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		steps++
		if _, err := instance.Step(nn.StepInput{Pixels: pixels, Labels: labels, Scale: probeData.Scale, Step: steps}); err != nil {
			return 0, fmt.Errorf("probe: %w", err)
		}
	}
	return float64(steps) * float64(work.Forward+work.Backward) / time.Since(began).Seconds(), nil
}

// measureStore returns the rate at which an object goes to the store and back,
// in bytes a second, and the time that one operation on a small object takes: the
// least of some, since whatever else the machine does makes others longer.
func (w *Worker) measureStore(ctx context.Context, id job.ID) (rate, seconds float64, err error) {
	key := probeKey(id) + "object"
	began := time.Now()
	if err := w.thereAndBack(ctx, key, probeObjectBytes); err != nil {
		return 0, 0, err
	}
	rate = 2 * probeObjectBytes / time.Since(began).Seconds()
	least := time.Duration(math.MaxInt64)
	for i := range probeObjects {
		began = time.Now()
		if err := w.thereAndBack(ctx, fmt.Sprint(key, i), pageBytes); err != nil {
			return 0, 0, err
		}
		least = min(least, time.Since(began))
	}
	return rate, least.Seconds() / 3, nil // put, get, delete
}

// thereAndBack puts an object, gets and deletes it.
func (w *Worker) thereAndBack(ctx context.Context, key string, size int) (err error) {
	block := make([]byte, pageBytes)
	if _, err := w.store.PutIfAbsent(ctx, key, func(out io.Writer) error {
		for range size / len(block) {
			if _, err := out.Write(block); err != nil {
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
	if _, err := io.CopyBuffer(io.Discard, object, block); err != nil {
		return fmt.Errorf("probe: the store does not give back objects: %w", err)
	}
	return nil
}

// probeKey starts the keys of what one probe, or one rehearsal of it, puts into
// the job's scratch space.
func probeKey(id job.ID) string {
	return job.Keys{Job: id}.Scratch() + "probe/" + strings.ToLower(rand.Text()) + "/"
}

// rehearsalPlan is that of the job which is rehearsed.
func rehearsalPlan(kernels string) (job.Numerics, error) {
	spec, err := probeModel()
	return job.Numerics{
		Version: job.NumericsVersion, KernelSet: kernels, Dataset: probeData, Model: spec.Canonical(),
		Seed: job.DefaultSeed, Epochs: 1, Batch: probeBatch, LocalBatch: probeBatch, Replicas: 2,
		StepsPerEpoch: 4, Steps: 4, RoundSteps: 2,
		Local: job.Optimizer(nn.Adam(job.DefaultLearningRate)),
		Outer: job.Nesterov{LearningRate: 0.7, Momentum: 0.9},
	}, err
}

// rehearse carries out a whole job of two replicas and two rounds on made-up
// data, and removes what it left in the store. It returns the most that was resident
// beside a task's own memory when the task had done its work, 0 if that is unknown.
func (w *Worker) rehearse(ctx context.Context, id job.ID) (most job.Bytes, err error) {
	own := scratch{Store: w.store, prefix: probeKey(id)}
	defer func() { err = errors.Join(err, own.clear(context.WithoutCancel(ctx))) }()
	w = &Worker{cfg: w.cfg, store: own, observe: func(held int) {
		most = max(most, resident()-job.Bytes(held).CeilTo(pageBytes))
	}}
	const rehearsal = job.ID("rehearsal")
	d := probeData
	n, err := rehearsalPlan(w.cfg.Kernels.Name)
	if err != nil {
		return 0, err
	}
	digest, err := n.Digest()
	if err != nil {
		return 0, err
	}
	keys := job.Keys{Job: rehearsal, Plan: digest}
	defer func() {
		err = errors.Join(err, own.SetStatus(context.WithoutCancel(ctx), keys.Progress(1), nil))
	}()
	if err := w.putProbeData(ctx, keys, n); err != nil {
		return 0, err
	}
	tasks := []job.Task{
		{Role: job.RoleTrain, Replica: 0, From: 0, To: 2},
		// Through both rounds: the other replica has come, so this one averages.
		{Role: job.RoleTrain, Replica: 1, From: 0, To: 4, Meet: true, Budget: time.Minute},
		{Role: job.RoleTrain, Replica: 0, From: 2, To: 4},
		{Role: job.RoleAverage, From: 2, To: 4},
		{Role: job.RoleInfer, Model: keys.Final(), ShardTo: 1, Batch: probeBatch},
		{Role: job.RoleEvaluate, Pieces: 1},
	}
	for _, t := range tasks {
		t.Job, t.Plan, t.Dataset = rehearsal, digest, &d
		if _, err := w.Do(ctx, t); err != nil {
			return 0, err
		}
		w.cfg.Collect()
	}
	return most, nil
}

func (w *Worker) putProbeData(ctx context.Context, keys job.Keys, n job.Numerics) error {
	d := n.Dataset
	pixels, labels := probeRecords(d.ShardRecords)
	header := shard.Header{Records: d.ShardRecords, H: d.Height, W: d.Width, C: d.Channels, Classes: d.Classes}
	for _, part := range []job.Part{job.TrainPart, job.TestPart} {
		if _, err := w.store.PutIfAbsent(ctx, d.ShardKey(part, 0), func(out io.Writer) error {
			return shard.Write(out, header, pixels, labels)
		}); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("numerics plan: %w", err)
	}
	_, err = w.store.PutIfAbsent(ctx, keys.Numerics(), func(out io.Writer) error {
		_, err := out.Write(raw)
		return err
	})
	return err
}

// takeMemory takes and touches n bytes, a megabyte at a time, and holds them all
// at once before it lets go.
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
	runtime.KeepAlive(held)
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

// Version is the version of this program's module; that of a build from a
// checkout names the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
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
