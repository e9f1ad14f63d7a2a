// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
)

// counts is what inference over some shards found. The losses are kept by
// shard, so that their total does not depend on how shards are divided among
// invocations.
type counts struct {
	Records   int       `json:"records"`
	Losses    []float64 `json:"losses"`
	Confusion [][]int   `json:"confusion"`

	// predictions of all records so far, if they are wanted.
	predictions []byte
}

// maxCountsBytes bounds a stored counts object: 1,000 classes squared as text.
const maxCountsBytes = 8 << 20

func newConfusion(classes int) [][]int {
	cells := make([]int, classes*classes)
	rows := make([][]int, classes)
	for i := range rows {
		rows[i] = cells[i*classes : (i+1)*classes]
	}
	return rows
}

func checkInfer(task job.Task) error {
	d := task.Dataset
	switch {
	case d == nil || d.Classes < 1 || d.ShardRecords < 1:
		return fmt.Errorf("%w: no data set", errTask)
	case task.Job.Validate() != nil:
		return fmt.Errorf("%w: %w", errTask, task.Job.Validate())
	}
	return nil
}

// infer runs a model over the test shards ShardFrom to ShardTo and stores what
// it counted.
func (w *Worker) infer(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	if err := checkInfer(task); err != nil {
		return result, err
	}
	d := *task.Dataset
	if task.Piece < 0 || task.ShardFrom < 0 || task.ShardTo <= task.ShardFrom || task.ShardTo > d.Shards(job.TestPart) || task.Batch < 1 {
		return result, fmt.Errorf("%w: piece %d, test shards %d to %d of %d, batch %d",
			errTask, task.Piece, task.ShardFrom, task.ShardTo, d.Shards(job.TestPart), task.Batch)
	}
	m, err := w.loadModel(ctx, task, testStream(d, task.ShardFrom, task))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.release(m.arena, m.instance)) }()

	found := counts{Confusion: newConfusion(d.Classes)}
	if task.Predict {
		records := min(task.ShardTo*d.ShardRecords, d.Test) - task.ShardFrom*d.ShardRecords
		kept, err := nn.NewArena(records * job.PredictionBytes)
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, kept.Close()) }()
		found.predictions = kept.Bytes()[:0]
	}
	for index := task.ShardFrom; index < task.ShardTo; index++ {
		loss, err := w.inferShard(ctx, m, d, index, task, &found)
		if err != nil {
			return result, err
		}
		found.Losses = append(found.Losses, loss)
		result.LossSum += loss
	}
	result.Records = found.Records
	keys := job.Keys{Job: task.Job}
	if task.Predict {
		if err := w.putBytes(ctx, keys.Predictions(task.Piece), found.predictions); err != nil {
			return result, err
		}
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return result, fmt.Errorf("counts: %w", err)
	}
	return result, w.putBytes(ctx, keys.Counts(task.Piece), raw)
}

func (w *Worker) putBytes(ctx context.Context, key string, raw []byte) error {
	_, err := w.store.PutIfAbsent(ctx, key, func(out io.Writer) error {
		_, err := out.Write(raw)
		return err
	})
	return err
}

// testStream reads one shard of the test part. No other shard is larger than
// the first of a range.
func testStream(d job.Dataset, index int, task job.Task) shard.StreamSpec {
	batch := task.Batch
	records := min(d.ShardRecords, d.Test-index*d.ShardRecords)
	return shard.StreamSpec{
		Pieces:        []shard.Piece{{Shard: index, From: 0, To: records}},
		RecordBytes:   int(d.RecordBytes()),
		InOrder:       true,
		Window:        task.Window,
		Batch:         batch,
		StepsPerEpoch: (records + batch - 1) / batch,
	}
}

// inferShard runs the model over one shard. All shards of a task are read into
// the same memory, each by a stream of its own, so that no batch has records of
// two: then the loss of a shard does not depend on its neighbours.
func (w *Worker) inferShard(ctx context.Context, m loaded, d job.Dataset, index int, task job.Task, found *counts) (loss float64, err error) {
	spec := testStream(d, index, task)
	stream, err := shard.NewStreamIn(m.memory, spec)
	if err != nil {
		return 0, err
	}
	records := spec.Pieces[0].Len()
	load := w.loader(d, job.TestPart)
	for done := 0; done < records; {
		b, err := stream.Next(ctx, load)
		if err != nil {
			return 0, err
		}
		sum, predicted, err := m.instance.Evaluate(b.Pixels, b.Labels, d.Scale)
		if err != nil {
			return 0, fmt.Errorf("evaluate %s shard %d: %w", d.Name, index, err)
		}
		loss += sum
		for i, label := range b.Labels {
			found.Confusion[label][predicted[i]]++
			if found.predictions != nil {
				found.predictions = job.AppendPrediction(found.predictions, job.Prediction{
					Label: label, Class: predicted[i], Probability: float32(m.instance.Probability(i, int(predicted[i]))),
				})
			}
		}
		found.Records += b.Len()
		done += b.Len()
	}
	return loss, nil
}

// loaded is a model in an arena that has room for streams.
type loaded struct {
	instance *nn.Instance
	memory   []byte // for streams
	arena    *nn.Arena
}

// loadModel reads a task's model file into an instance for inference on what
// streams like stream read. The caller releases both.
func (w *Worker) loadModel(ctx context.Context, task job.Task, stream shard.StreamSpec) (m loaded, err error) {
	key, d := task.Model, *task.Dataset
	object, err := w.store.Get(ctx, key)
	if err != nil {
		return m, err
	}
	defer func() {
		if closed := object.Close(); closed != nil {
			err = errors.Join(err, closed)
			if m.arena != nil {
				err = errors.Join(err, w.release(m.arena, m.instance))
			}
		}
	}()
	file, err := OpenModel(object)
	if err != nil {
		return m, fmt.Errorf("model %s: %w", key, err)
	}
	spec := file.Spec
	if in := spec.Input; in.H != d.Height || in.W != d.Width || in.C != d.Channels || spec.Classes != d.Classes {
		return m, fmt.Errorf("%w: model %s takes %v and knows %d classes; %s has %dx%dx%d and %d",
			errTask, key, in, spec.Classes, d.Name, d.Height, d.Width, d.Channels, d.Classes)
	}
	program, err := nn.Compile(spec, nn.Config{Batch: stream.Batch, Threads: task.Threads, Spin: task.Spin})
	if err != nil {
		return m, fmt.Errorf("%w: %w", errTask, err)
	}
	m.arena, m.instance, m.memory, err = w.bind(program, stream, 0)
	if err != nil {
		return loaded{}, err
	}
	if err := file.ReadWeights(m.instance.Weights()); err != nil {
		return loaded{}, errors.Join(fmt.Errorf("model %s: %w", key, err), w.release(m.arena, m.instance))
	}
	return m, nil
}

// evaluate merges what the infer tasks counted.
func (w *Worker) evaluate(ctx context.Context, task job.Task) (job.TaskResult, error) {
	if err := checkInfer(task); err != nil {
		return job.TaskResult{}, err
	}
	classes := task.Dataset.Classes
	result := job.TaskResult{Confusion: newConfusion(classes)}
	for piece := range task.Pieces {
		key := job.Keys{Job: task.Job}.Counts(piece)
		raw, err := w.readAll(ctx, key, maxCountsBytes)
		if err != nil {
			return job.TaskResult{}, err
		}
		var c counts
		if err := json.Unmarshal(raw, &c); err != nil {
			return job.TaskResult{}, fmt.Errorf("%w: counts %s: %w", errObject, key, err)
		}
		if len(c.Confusion) != classes {
			return job.TaskResult{}, fmt.Errorf("%w: counts %s: %d classes; want %d", errObject, key, len(c.Confusion), classes)
		}
		for i, row := range c.Confusion {
			if len(row) != classes {
				return job.TaskResult{}, fmt.Errorf("%w: counts %s: class %d has %d columns; want %d", errObject, key, i, len(row), classes)
			}
			for j, count := range row {
				result.Confusion[i][j] += count
			}
		}
		for _, loss := range c.Losses {
			result.LossSum += loss
		}
		result.Records += c.Records
		w.cfg.Collect()
	}
	if result.Records != task.Dataset.Test {
		return job.TaskResult{}, fmt.Errorf("%w: evaluate %s: %d records were counted; the test part has %d",
			errObject, task.Dataset.Name, result.Records, task.Dataset.Test)
	}
	return result, nil
}
