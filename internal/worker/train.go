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

// learner is one replica in one training invocation.
type learner struct {
	w    *Worker
	t    *training
	task job.Task

	// memory is the program's, in which the learner may also average.
	memory   []byte
	instance *nn.Instance
	stream   *shard.Stream

	began  time.Time // the task
	told   time.Time // when the replica last said how far it is
	loop   slice
	stored int // the step of the newest state that is in the store
	result job.TaskResult
}

// train takes a replica's steps From to To and stores the state it reached. With
// Meet it may go through several rounds: it meets the others at the end of each.
func (w *Worker) train(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	began := time.Now()
	t, err := w.training(ctx, task)
	if err != nil {
		return result, err
	}
	if err := checkTrain(t.plan, task); err != nil {
		return result, err
	}
	if task.Whole {
		return w.trainWhole(ctx, t, task)
	}
	spec := t.stream(task.Replica)
	spec.Window = task.Window
	program, err := nn.Compile(t.model, t.config(task))
	if err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	least := 0
	if task.Meet {
		least = t.averageBytes()
	}
	arena, instance, memory, err := w.bind(program, spec, least)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.release(arena, instance)) }()
	if task.Meet {
		touch(arena.Bytes())
	}
	stream, err := shard.NewStreamIn(memory, spec)
	if err != nil {
		return result, err
	}
	l := &learner{w: w, t: t, task: task, memory: arena.Bytes(), instance: instance, stream: stream, began: began, told: began, stored: -1}
	if err := l.run(ctx); err != nil {
		return result, err
	}
	return l.result, nil
}

func checkTrain(n job.Numerics, task job.Task) error {
	if task.Replica < 0 || task.Replica >= n.Replicas || task.From < 0 || task.To <= task.From || task.To > n.Steps {
		return fmt.Errorf("%w: replica %d, steps %d to %d; the plan has %d replicas and %d steps",
			errTask, task.Replica, task.From, task.To, n.Replicas, n.Steps)
	}
	roundEnd := n.RoundEnd(task.From / n.RoundSteps)
	switch {
	case !task.Meet && task.To > roundEnd:
		return fmt.Errorf("%w: replica %d, steps %d to %d without meeting the others; this round ends at step %d",
			errTask, task.Replica, task.From, task.To, roundEnd)
	case task.Meet && (task.Budget <= 0 || !atRoundEnd(n, task.To)):
		return fmt.Errorf("%w: replica %d, steps %d to %d in %v, meeting the others: that takes time, and a round's end",
			errTask, task.Replica, task.From, task.To, task.Budget)
	case task.Window < 0 || task.Whole && (task.Meet || task.Budget > 0):
		return fmt.Errorf("%w: window %d; whole %v, meeting the others %v, with a budget of %v", errTask, task.Window, task.Whole, task.Meet, task.Budget)
	}
	return nil
}

func atRoundEnd(n job.Numerics, step int) bool { return step%n.RoundSteps == 0 || step == n.Steps }

func (l *learner) run(ctx context.Context) error {
	began := time.Now()
	from, arrived, err := l.join(ctx)
	if err != nil || from < 0 {
		return err
	}
	l.loop = newSlice(from, l.task.To, l.task.Budget, began)
	if err := l.stream.Seek(from); err != nil {
		return fmt.Errorf("%w: %w", errTask, err)
	}
	if arrived {
		l.stored = from
		if met, err := l.meet(ctx); err != nil || !met {
			return err
		}
	}
	return l.steps(ctx)
}

// localBatch is the largest number of records of one step of a replica. No batch
// has more than the largest replica, and what is compiled for more would take
// memory for nothing: a larger local batch divides an epoch into one step just as
// this one does.
func (t *training) localBatch() int {
	n := t.plan
	if t.stepwise() {
		return (min(n.Batch, n.Dataset.Train)-1)/n.Replicas + 1
	}
	return min(n.LocalBatch, max(1, (n.Dataset.Train-1)/n.Replicas+1))
}

// config is what a replica's program is compiled for.
func (t *training) config(task job.Task) nn.Config {
	n := t.plan
	return nn.Config{
		Batch: t.localBatch(), MicroBatch: min(task.MicroBatch, t.localBatch()), Train: true, Optimizer: t.local(),
		LabelSmoothing: n.LabelSmoothing, Augment: nn.Augment{Flips: n.Flips, Shifts: n.Shifts},
		KeepGradients: t.stepwise(), Threads: task.Threads, Spin: task.Spin, Remake: task.Remake,
	}
}

// stream says what a replica reads: its own records, or its part of every batch
// of all records in the order of a sequential run.
func (t *training) stream(replica int) shard.StreamSpec {
	n := t.plan
	spec := shard.StreamSpec{
		Pieces:        shard.Pieces(n.Dataset.Train, n.Dataset.ShardRecords, n.Replicas, replica),
		RecordBytes:   int(n.Dataset.RecordBytes()),
		Seed:          n.Seed,
		Replica:       replica,
		Batch:         t.localBatch(),
		StepsPerEpoch: n.StepsPerEpoch,
	}
	if t.stepwise() {
		spec.Pieces, spec.Replica = shard.Pieces(n.Dataset.Train, n.Dataset.ShardRecords, 1, 0), 0
		spec.Batch, spec.Parts, spec.Part = min(n.Batch, n.Dataset.Train), n.Replicas, replica
	}
	return spec
}

// streamAlignment is that of a stream's memory after the program's.
const streamAlignment = 64

// bind makes an instance in an arena that also has room for streams like spec,
// which may follow each other there. What is before them has least bytes at
// least. The caller releases both.
func (w *Worker) bind(program *nn.Program, spec shard.StreamSpec, least int) (*nn.Arena, *nn.Instance, []byte, error) {
	if err := spec.Validate(); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", errTask, err)
	}
	return w.bindIn(program, spec.Bytes(), least)
}

// bindIn is bind for so many bytes of records.
func (w *Worker) bindIn(program *nn.Program, records int64, least int) (*nn.Arena, *nn.Instance, []byte, error) {
	at := (max(program.Sizes().Total, int64(least)) + streamAlignment - 1) / streamAlignment * streamAlignment
	arena, err := w.newArena(int(at + records))
	if err != nil {
		return nil, nil, nil, err
	}
	w.cfg.Processors(program.Config().Threads)
	instance, err := program.Bind(arena.Bytes(), w.cfg.Kernels)
	if err != nil {
		w.cfg.Processors(1)
		return nil, nil, nil, errors.Join(err, arena.Close())
	}
	return arena, instance, arena.Bytes()[at:], nil
}

// touch makes all pages of new memory resident. Who of the replicas that meet
// averages is chance: without it one that lacks the memory for that would be
// killed in the round in which it first comes last, and the peaks of equal
// replicas would differ by what averaging takes more than training.
func touch(memory []byte) {
	for i := 0; i < len(memory); i += pageBytes {
		memory[i] = 0
	}
}

// release undoes bind.
func (w *Worker) release(arena *nn.Arena, instance *nn.Instance) error {
	instance.Close()
	w.cfg.Processors(1)
	return w.closeArena(arena)
}

// newArena takes the memory for a task's model. From here to the end of the task its
// process is at its largest, so whatever it does not need any more goes first.
func (w *Worker) newArena(n int) (*nn.Arena, error) {
	w.cfg.Collect()
	w.cfg.Shed()
	return nn.NewArena(n)
}

// closeArena undoes newArena.
func (w *Worker) closeArena(arena *nn.Arena) error {
	if w.observe != nil {
		w.observe(len(arena.Bytes()))
	}
	return arena.Close()
}

// held returns the vectors of an instance that training.groups describes, as far
// as the instance has them.
func held(instance *nn.Instance) [][]float32 {
	m, v := instance.Moments()
	all := [][]float32{instance.Weights(), m, v}
	return all[:1+instance.Program().Config().Optimizer.Moments()]
}

// read brings the instance to the state at a step: the seed's at step 0, the
// average at the start of a later round, else the replica's own.
func (l *learner) read(ctx context.Context, step int) (err error) {
	t := l.t
	if step == 0 {
		l.instance.Init(t.plan.Seed)
		return nil
	}
	key, groups := t.keys.Replica(l.task.Replica, step), t.replicaGroups()
	if step%t.plan.RoundSteps == 0 {
		key, groups = t.keys.Global(step), t.globalGroups()
	}
	s, err := l.w.openState(ctx, t, key, step, groups)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, flat := range held(l.instance) {
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

// put stores the replica's state after a step.
func (l *learner) put(ctx context.Context, step int) error {
	t := l.t
	flats := held(l.instance)
	if t.stepwise() {
		flats = [][]float32{l.instance.Gradients()}
	}
	var all []safetensors.Tensor
	for g, flat := range flats {
		all = append(all, t.replicaGroups()[g].tensors(flat)...)
	}
	if err := l.w.putTensors(ctx, t.keys.Replica(l.task.Replica, step), t.stateMeta(step), all); err != nil {
		return err
	}
	l.stored = step
	return nil
}

// steps trains until the slice ends, and meets the other replicas at the ends
// of rounds.
func (l *learner) steps(ctx context.Context) error {
	n := l.t.plan
	load := l.w.loader(n.Dataset, job.TrainPart)
	for l.loop.decide() == takeStep {
		if err := l.step(ctx, load); err != nil {
			return err
		}
		if !l.task.Meet || !atRoundEnd(n, l.loop.next) {
			if l.loop.previous.Sub(l.told) >= tellInterval {
				l.reportProgress(ctx)
			}
			continue
		}
		if err := l.put(ctx, l.loop.next); err != nil {
			return err
		}
		if met, err := l.meet(ctx); err != nil || !met {
			return err
		}
	}
	l.result.Step = l.loop.next
	if l.loop.decide() == handOver {
		l.result.Reason = job.NeedTime
	}
	if l.stored == l.result.Step {
		return nil
	}
	return l.put(ctx, l.result.Step)
}

func (l *learner) step(ctx context.Context, load shard.LoadFunc) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := l.t.plan
	batch, err := l.stream.Next(ctx, load)
	if err != nil {
		return err
	}
	input := nn.StepInput{
		Pixels: batch.Pixels, Labels: batch.Labels, Scale: n.Dataset.Scale,
		Step: l.loop.next + 1, Seed: n.Seed, Replica: l.task.Replica,
	}
	take := l.instance.Step
	if l.t.stepwise() {
		// What is dropped is what the sequential run drops.
		input.Replica, input.First = 0, batch.First
		take = l.instance.Gradient
	}
	if batch.Len() > 0 {
		began := time.Now()
		loss, err := take(input)
		if err != nil {
			return stepError(err, l.task, l.loop.next, n)
		}
		l.result.StepTime += time.Since(began)
		if l.result.Steps++; l.result.Steps == 1 {
			l.result.FirstStep = time.Since(l.began)
		}
		l.result.LossSum += loss * float64(batch.Len())
		l.result.Records += batch.Len()
	} else if l.t.stepwise() {
		clear(l.instance.Gradients())
	}
	l.loop = l.loop.stepped(time.Now())
	return nil
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
