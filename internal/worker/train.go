// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/store"
)

// train takes a replica's steps From to To and stores the state it reached. With
// Meet it may go through several rounds: it meets the others at the end of each.
func (w *Worker) train(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	t, err := w.training(ctx, task)
	if err != nil {
		return result, err
	}
	n := t.plan
	if task.Replica < 0 || task.Replica >= n.Replicas || task.From < 0 || task.To <= task.From || task.To > n.Steps {
		return result, fmt.Errorf("%w: replica %d, steps %d to %d; the plan has %d replicas and %d steps",
			errTask, task.Replica, task.From, task.To, n.Replicas, n.Steps)
	}
	atRoundEnd := task.To%n.RoundSteps == 0 || task.To == n.Steps
	if task.Meet && (task.Budget <= 0 || !atRoundEnd) || !task.Meet && task.To > n.RoundEnd(task.From/n.RoundSteps) {
		return result, fmt.Errorf("%w: steps %d to %d, meeting others %v, budget %v: several rounds take meetings, and meetings a budget and an end of a round",
			errTask, task.From, task.To, task.Meet, task.Budget)
	}
	optimizer := nn.Adam(n.Local.LearningRate)
	optimizer.Beta1, optimizer.Beta2, optimizer.Epsilon = n.Local.Beta1, n.Local.Beta2, n.Local.Epsilon
	program, err := nn.Compile(t.model, nn.Config{Batch: n.LocalBatch, Train: true, Optimizer: optimizer})
	if err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	instance, err := program.Bind(arena.Bytes(), w.cfg.Kernels)
	if err != nil {
		return result, err
	}
	began := time.Now()
	if !task.Meet {
		if err := w.readState(ctx, t, task.Replica, task.From, instance); err != nil {
			return result, err
		}
		return w.steps(ctx, t, task, newSlice(task.From, task.To, task.Budget, began), instance, result)
	}
	from, arrived, err := w.join(ctx, t, task, instance)
	if err != nil {
		return result, err
	}
	result.Round = from / n.RoundSteps
	loop := newSlice(from, task.To, task.Budget, began)
	if arrived {
		result.Round--
		if met, err := w.meet(ctx, t, task, loop, instance, &result); err != nil || !met {
			result.Step, result.Reason = from, job.NeedPeer
			return result, err
		}
		loop = loop.met(time.Now())
	}
	return w.steps(ctx, t, task, loop, instance, result)
}

// join brings an instance to where the replica takes part in the rounds again:
// the newest average after task.From, so that a replica that was lost finds the
// others where they are, or the state at task.From. arrived says that this is
// the end of a round which is not averaged yet, where the replica's state waits
// for the others'.
func (w *Worker) join(ctx context.Context, t *training, task job.Task, instance *nn.Instance) (from int, arrived bool, err error) {
	const tries = 3 // averages may be swept between finding and reading one
	for try := 1; ; try++ {
		keys, err := w.store.List(ctx, t.keys.States())
		if err != nil {
			return 0, false, err
		}
		from = -1
		for _, key := range keys {
			if at, ok := t.keys.ParseGlobal(key); ok && at >= task.From && at < task.To {
				from = max(from, at)
			}
		}
		if from < 0 {
			from = task.From
			if from > 0 && from%t.plan.RoundSteps == 0 {
				return from, true, nil
			}
		}
		err = w.readState(ctx, t, task.Replica, from, instance)
		if err == nil || try == tries || !errors.Is(err, store.ErrNotFound) {
			return from, false, err
		}
	}
}

// readState reads the state at a step: the seed's at step 0, the average at the
// start of a later round, else the replica's own.
func (w *Worker) readState(ctx context.Context, t *training, replica, step int, instance *nn.Instance) (err error) {
	if step == 0 {
		instance.Init(t.plan.Seed)
		return nil
	}
	prefixes := []string{"", prefixM, prefixV}
	key := t.keys.Replica(replica, step)
	if step%t.plan.RoundSteps == 0 {
		key = t.keys.Global(step)
		prefixes = append(prefixes, prefixOuter)
	}
	s, err := w.openState(ctx, t, key, step, prefixes...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m, v := instance.Moments()
	for _, group := range [][]float32{instance.Weights(), m, v} {
		if err := s.readGroup(group); err != nil {
			return err
		}
	}
	for range prefixes[3:] {
		if err := s.skipGroup(); err != nil {
			return err
		}
	}
	return s.finish()
}

// steps trains until the slice ends, and meets the other replicas at the ends
// of rounds.
func (w *Worker) steps(ctx context.Context, t *training, task job.Task, loop slice, instance *nn.Instance, result job.TaskResult) (_ job.TaskResult, err error) {
	n := t.plan
	stream, err := shard.NewStream(shard.StreamSpec{
		Pieces:        shard.Pieces(n.Dataset.Train, n.Dataset.ShardRecords, n.Replicas, task.Replica),
		RecordBytes:   int(n.Dataset.RecordBytes()),
		Seed:          n.Seed,
		Replica:       task.Replica,
		Batch:         n.LocalBatch,
		StepsPerEpoch: n.StepsPerEpoch,
	})
	if err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	if err := stream.Seek(loop.next); err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	load := w.loader(n.Dataset, job.TrainPart)
	stored := -1 // the step of the newest state that is in the store
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
			loss, err := instance.Step(batch.Pixels, batch.Labels, n.Dataset.Scale, loop.next+1)
			if err != nil {
				return job.TaskResult{}, stepError(err, task, loop.next, n)
			}
			result.StepTime += time.Since(began)
			result.LossSum += loss * float64(batch.Len())
			result.Records += batch.Len()
		}
		loop = loop.stepped(time.Now())
		if !task.Meet || loop.next%n.RoundSteps != 0 && loop.next != n.Steps {
			continue
		}
		stored = loop.next
		if err := w.putState(ctx, t, task.Replica, stored, instance); err != nil {
			return job.TaskResult{}, err
		}
		met, err := w.meet(ctx, t, task, loop, instance, &result)
		if err != nil {
			return job.TaskResult{}, err
		}
		if !met {
			result.Step, result.Reason = loop.next, job.NeedPeer
			return result, nil
		}
		loop = loop.met(time.Now())
	}
	result.Step = loop.next
	if loop.decide() == handOver {
		result.Reason = job.NeedTime
	}
	if stored != result.Step {
		err = w.putState(ctx, t, task.Replica, result.Step, instance)
	}
	return result, err
}

func (w *Worker) putState(ctx context.Context, t *training, replica, step int, instance *nn.Instance) error {
	m, v := instance.Moments()
	return w.putTensors(ctx, t.keys.Replica(replica, step), t.stateMeta(step), slices.Concat(
		tensors(t.params, "", instance.Weights()),
		tensors(t.params, prefixM, m),
		tensors(t.params, prefixV, v)))
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
		if err := reader.ReadRange(p.From, p.To, window); err != nil {
			return fmt.Errorf("shard %s: %w", key, err)
		}
		return nil
	}
}
