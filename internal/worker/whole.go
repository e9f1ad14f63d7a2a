// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
)

// whole is all of a replica's records in memory, as float32: what the thesis's
// baseline holds. Batches are those of a stream over the same pieces.
type whole struct {
	spec  shard.StreamSpec
	order shard.Order
	first []int // each piece's first record in values
	epoch int   // whose sequence this is; -1 for none

	values, batch       []float32
	visit, sequence     []uint32
	labels, batchLabels []uint16
	window              shard.Window
}

// wholeBytes is exactly what newWhole takes: values and labels of all records,
// their order, those of a batch, and one piece as it is read.
func wholeBytes(s shard.StreamSpec) int64 {
	records, record := int64(shard.Records(s.Pieces)), int64(s.RecordBytes)
	piece := int64(largestPiece(s.Pieces))
	const value, number, label = 4, 4, 2
	return (records+int64(s.Batch))*(value*record+label) + records*number + int64(len(s.Pieces))*number + piece*(record+label)
}

func largestPiece(pieces []shard.Piece) (records int) {
	for _, p := range pieces {
		records = max(records, p.Len())
	}
	return records
}

// newWhole lays buffers over memory of wholeBytes bytes, aligned to 4. Nothing
// of it is touched before load.
func newWhole(memory []byte, s shard.StreamSpec) *whole {
	records, piece := shard.Records(s.Pieces), largestPiece(s.Pieces)
	take := func(bytes int) unsafe.Pointer {
		part := memory[:bytes:bytes]
		memory = memory[bytes:]
		return unsafe.Pointer(unsafe.SliceData(part))
	}
	values := func(n int) []float32 { return unsafe.Slice((*float32)(take(4*n)), n) }
	numbers := func(n int) []uint32 { return unsafe.Slice((*uint32)(take(4*n)), n) }
	labels := func(n int) []uint16 { return unsafe.Slice((*uint16)(take(2*n)), n) }
	w := &whole{spec: s, order: shard.Order{Seed: s.Seed, Replica: s.Replica}, epoch: -1}
	w.values, w.batch = values(records*s.RecordBytes), values(s.Batch*s.RecordBytes)
	w.visit, w.sequence = numbers(len(s.Pieces)), numbers(records)
	w.labels, w.batchLabels = labels(records), labels(s.Batch)
	w.window.Labels = labels(piece)[:0]
	w.window.Pixels = memory[: 0 : piece*s.RecordBytes]
	at := 0
	for _, p := range s.Pieces {
		w.first = append(w.first, at)
		at += p.Len()
	}
	return w
}

// load reads and decodes all pieces.
func (a *whole) load(ctx context.Context, load shard.LoadFunc, decode func(values []float32, pixels []byte)) error {
	size := a.spec.RecordBytes
	for i, p := range a.spec.Pieces {
		if err := load(ctx, p, &a.window); err != nil {
			return fmt.Errorf("load records [%d, %d) of shard %d: %w", p.From, p.To, p.Shard, err)
		}
		copy(a.labels[a.first[i]:], a.window.Labels)
		decode(a.values[a.first[i]*size:][:p.Len()*size], a.window.Pixels)
	}
	return nil
}

// next returns the batch of a step, valid until the next call.
func (a *whole) next(step int) (values []float32, labels []uint16) {
	epoch, inEpoch := step/a.spec.StepsPerEpoch, step%a.spec.StepsPerEpoch
	a.arrange(epoch)
	records, size := len(a.sequence), a.spec.RecordBytes
	from := min(records, inEpoch*a.spec.Batch)
	n := min(a.spec.Batch, records-from)
	for i, record := range a.sequence[from : from+n] {
		copy(a.batch[i*size:], a.values[int(record)*size:][:size])
		a.batchLabels[i] = a.labels[record]
	}
	return a.batch[:n*size], a.batchLabels[:n]
}

// arrange has the order of an epoch at hand.
func (a *whole) arrange(epoch int) {
	if a.epoch == epoch {
		return
	}
	a.order.Pieces(epoch, a.visit)
	at := 0
	for _, piece := range a.visit {
		inside := a.sequence[at:][:a.spec.Pieces[piece].Len()]
		a.order.Records(epoch, int(piece), inside)
		for i := range inside {
			inside[i] += uint32(a.first[piece])
		}
		at += len(inside)
	}
	a.epoch = epoch
}

// trainWhole is train as the thesis's baseline does it: all records are decoded
// into memory first, and all steps follow. The bits are those of train.
func (w *Worker) trainWhole(ctx context.Context, t *training, task job.Task) (result job.TaskResult, err error) {
	spec := t.stream(task.Replica)
	if err := spec.Validate(); err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	program, err := nn.Compile(t.model, t.config(task))
	if err != nil {
		return result, fmt.Errorf("%w: %w", errTask, err)
	}
	arena, instance, memory, err := w.bindIn(program, wholeBytes(spec), 0)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.release(arena, instance)) }()
	all := newWhole(memory, spec)
	n := t.plan
	if err := all.load(ctx, w.loader(n.Dataset, job.TrainPart), func(values []float32, pixels []byte) {
		w.cfg.Kernels.Convert(values, pixels, n.Dataset.Scale)
	}); err != nil {
		return result, err
	}
	l := &learner{w: w, t: t, task: task, memory: arena.Bytes(), instance: instance, stored: -1}
	if err := l.read(ctx, task.From); err != nil {
		return result, err
	}
	for step := task.From; step < task.To; step++ {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		values, labels := all.next(step)
		if len(labels) == 0 {
			continue
		}
		began := time.Now()
		loss, err := instance.Step(nn.StepInput{Values: values, Labels: labels, Step: step + 1, Seed: n.Seed, Replica: task.Replica})
		if err != nil {
			return result, stepError(err, task, step, n)
		}
		l.result.StepTime += time.Since(began)
		l.result.LossSum += loss * float64(len(labels))
		l.result.Records += len(labels)
	}
	l.result.Step = task.To
	return l.result, l.put(ctx, task.To)
}
