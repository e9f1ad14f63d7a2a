// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

// train takes a replica's steps From to To, which lie in one round, and stores
// the state it reached.
func (w *Worker) train(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	t, err := w.training(ctx, task)
	if err != nil {
		return result, err
	}
	n := t.plan
	roundEnd := n.RoundEnd(task.From / n.RoundSteps)
	if task.Replica < 0 || task.Replica >= n.Replicas || task.From < 0 || task.To <= task.From || task.To > roundEnd {
		return result, fmt.Errorf("%w: replica %d, steps %d to %d; the plan has %d replicas and this round ends at step %d",
			errTask, task.Replica, task.From, task.To, n.Replicas, roundEnd)
	}
	if task.Window < 0 || task.Whole && task.Budget > 0 {
		return result, fmt.Errorf("%w: window %d; whole %v with a budget of %v", errTask, task.Window, task.Whole, task.Budget)
	}
	if task.Whole {
		return w.trainWhole(ctx, t, task)
	}
	spec := t.stream(task.Replica)
	spec.Window = task.Window
	program, err := nn.Compile(t.model, nn.Config{Batch: spec.Batch, Train: true, Optimizer: t.optimizer})
	if err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	arena, instance, memory, err := w.bind(program, spec)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	stream, err := shard.NewStreamIn(memory, spec)
	if err != nil {
		return result, err
	}
	if err := stream.Seek(task.From); err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	if err := w.restore(ctx, t, task, instance); err != nil {
		return result, err
	}
	if result, err = w.steps(ctx, t, task, instance, stream); err != nil {
		return result, err
	}
	return result, w.putReplica(ctx, t, task.Replica, result.Step, instance)
}

// putReplica stores a replica's state after a step.
func (w *Worker) putReplica(ctx context.Context, t *training, replica, step int, instance *nn.Instance) error {
	var all []safetensors.Tensor
	for g, flat := range held(instance) {
		all = append(all, t.groups()[g].tensors(flat)...)
	}
	return w.putTensors(ctx, t.keys.Replica(replica, step), t.stateMeta(step), all)
}

// stream says what a replica reads. No batch has more records than the largest
// replica, and what is compiled for more would take memory for nothing: a larger
// local batch divides an epoch into one step just as this one does.
func (t *training) stream(replica int) shard.StreamSpec {
	n := t.plan
	largest := max(1, (n.Dataset.Train-1)/n.Replicas+1)
	return shard.StreamSpec{
		Pieces:        shard.Pieces(n.Dataset.Train, n.Dataset.ShardRecords, n.Replicas, replica),
		RecordBytes:   int(n.Dataset.RecordBytes()),
		Seed:          n.Seed,
		Replica:       replica,
		Batch:         min(n.LocalBatch, largest),
		StepsPerEpoch: n.StepsPerEpoch,
	}
}

// streamAlignment is that of a stream's memory after the program's.
const streamAlignment = 64

// bind makes an instance in an arena that also has room for streams like spec,
// which may follow each other there. The caller closes the arena.
func (w *Worker) bind(program *nn.Program, spec shard.StreamSpec) (*nn.Arena, *nn.Instance, []byte, error) {
	if err := spec.Validate(); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", errTask, err)
	}
	at := (program.Sizes().Total + streamAlignment - 1) / streamAlignment * streamAlignment
	arena, err := nn.NewArena(int(at + spec.Bytes()))
	if err != nil {
		return nil, nil, nil, err
	}
	instance, err := program.Bind(arena.Bytes(), w.cfg.Kernels)
	if err != nil {
		return nil, nil, nil, errors.Join(err, arena.Close())
	}
	return arena, instance, arena.Bytes()[at:], nil
}

// held returns the vectors of an instance that training.groups describes.
func held(instance *nn.Instance) [][]float32 {
	m, v := instance.Moments()
	all := [][]float32{instance.Weights(), m, v}
	return all[:1+instance.Program().Config().Optimizer.Moments()]
}

// restore brings an instance to the state at task.From: the seed's at step 0,
// the average at the start of a later round, else the replica's own.
func (w *Worker) restore(ctx context.Context, t *training, task job.Task, instance *nn.Instance) (err error) {
	if task.From == 0 {
		instance.Init(t.plan.Seed)
		return nil
	}
	groups := t.groups()
	key := t.keys.Replica(task.Replica, task.From)
	if task.From%t.plan.RoundSteps == 0 {
		key = t.keys.Global(task.From)
		groups = append(groups, t.outer())
	}
	s, err := w.openState(ctx, t, key, task.From, groups)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, flat := range held(instance) {
		if err := s.readGroup(flat); err != nil {
			return err
		}
	}
	for len(s.groups) > 0 {
		if err := s.skipGroup(); err != nil {
			return err
		}
	}
	return s.finish()
}

func (w *Worker) steps(ctx context.Context, t *training, task job.Task, instance *nn.Instance, stream *shard.Stream) (job.TaskResult, error) {
	n := t.plan
	load := w.loader(n.Dataset, job.TrainPart)

	var result job.TaskResult
	loop := newSlice(task.From, task.To, task.Budget, time.Now())
	for loop.decide() == takeStep {
		if err := ctx.Err(); err != nil {
			return job.TaskResult{}, err
		}
		batch, err := stream.Next(ctx, load)
		if err != nil {
			return job.TaskResult{}, err
		}
		if batch.Len() > 0 {
			began := time.Now()
			loss, err := instance.Step(nn.StepInput{
				Pixels: batch.Pixels, Labels: batch.Labels, Scale: n.Dataset.Scale,
				Step: loop.next + 1, Seed: n.Seed, Replica: task.Replica,
			})
			if err != nil {
				return job.TaskResult{}, stepError(err, task, loop.next, n)
			}
			result.StepTime += time.Since(began)
			result.LossSum += loss * float64(batch.Len())
			result.Records += batch.Len()
		}
		loop = loop.stepped(time.Now())
	}
	result.Step = loop.next
	if loop.decide() == handOver {
		result.Reason = job.NeedTime
	}
	return result, nil
}

func stepError(err error, task job.Task, step int, n job.Numerics) error {
	if errors.Is(err, nn.ErrNonFinite) {
		return fmt.Errorf("training diverged in step %d (epoch %d) of replica %d: lower the learning rate from %g: %w",
			step+1, step/n.StepsPerEpoch+1, task.Replica, n.Local.LearningRate, err)
	}
	return fmt.Errorf("step %d of replica %d: %w", step+1, task.Replica, err)
}

// loader reads pieces of a data set's part from the store.
func (w *Worker) loader(d job.Dataset, part job.Part) shard.LoadFunc {
	return func(ctx context.Context, p shard.Piece, window *shard.Window) (err error) {
		key := d.ShardKey(part, p.Shard)
		object, err := w.store.Get(ctx, key)
		if err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, object.Close())
			w.cfg.Collect()
		}()
		reader, err := shard.NewReader(object)
		if err != nil {
			return fmt.Errorf("shard %s: %w", key, err)
		}
		if h := reader.Header; h.H != d.Height || h.W != d.Width || h.C != d.Channels || h.Classes != d.Classes {
			return fmt.Errorf("shard %s: holds %dx%dx%d records of %d classes; want %dx%dx%d and %d: %w",
				key, h.H, h.W, h.C, h.Classes, d.Height, d.Width, d.Channels, d.Classes, shard.ErrFormat)
		}
		if p.To > reader.Header.Records {
			return fmt.Errorf("shard %s: holds %d records; want %d at least: %w", key, reader.Header.Records, p.To, shard.ErrFormat)
		}
		if err := reader.ReadRange(p.From, p.To, window); err != nil {
			return fmt.Errorf("shard %s: %w", key, err)
		}
		return nil
	}
}
