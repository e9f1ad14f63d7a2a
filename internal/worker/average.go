// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

// average merges the states of all replicas at the end of a round. Weights and
// moments become their mean, weighted by each replica's records and summed in
// replica order in float64. The outer optimizer then treats the mean change of
// the weights as a gradient. After the last round the result is the model file,
// whose digest is returned.
//
// The sums are the only thing that grows with the model, and nothing grows with
// the number of replicas: they are read one after the other.
func (w *Worker) average(ctx context.Context, task job.Task) (result job.TaskResult, err error) {
	t, err := w.training(ctx, task)
	if err != nil {
		return result, err
	}
	n := t.plan
	if task.From < 0 || task.From >= n.Steps || task.From%n.RoundSteps != 0 || task.To != n.RoundEnd(task.From/n.RoundSteps) {
		return result, fmt.Errorf("%w: steps %d to %d are no round of the plan, which has %d steps in rounds of %d",
			errTask, task.From, task.To, n.Steps, n.RoundSteps)
	}
	result.Step = task.To
	result.Digest, err = w.averageRound(ctx, t, task.From, task.To, func(_, _, _ []float32) {})
	return result, err
}

// averageRound averages the round of the steps from to to, stores the result,
// and hands it to use, which must not keep it. digest is the model's after the
// last round.
func (w *Worker) averageRound(ctx context.Context, t *training, from, to int, use func(weights, m, v []float32)) (digest string, err error) {
	n := t.plan
	arena, err := nn.NewArena(t.count * averageBytes)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	buf := newAverageBuffers(arena.Bytes(), t.count)

	if err := w.sumReplicas(ctx, t, to, buf); err != nil {
		return "", err
	}
	if err := w.previous(ctx, t, from, buf); err != nil {
		return "", err
	}
	outerStep(n.Outer, buf.weights, buf.outer, buf.sums[0])
	m, v := narrow(buf.sums[1]), narrow(buf.sums[2])
	use(buf.weights, m, v)
	if to == n.Steps {
		return w.putModel(ctx, t, buf.weights)
	}
	return "", w.putTensors(ctx, t.keys.Global(to), t.stateMeta(to), slices.Concat(
		tensors(t.params, "", buf.weights),
		tensors(t.params, prefixM, m),
		tensors(t.params, prefixV, v),
		tensors(t.params, prefixOuter, buf.outer)))
}

// averageBytes is what averaging holds for each parameter: three sums in
// float64, weights and momentum in float32.
const averageBytes = 3*8 + 2*4

type averageBuffers struct {
	sums           [3][]float64 // weights, m, v
	weights, outer []float32
}

func newAverageBuffers(arena []byte, count int) averageBuffers {
	sums := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(arena))), 3*count)
	rest := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(arena[3*8*count:]))), 2*count)
	var b averageBuffers
	for g := range b.sums {
		b.sums[g] = sums[g*count : (g+1)*count]
	}
	b.weights, b.outer = rest[:count], rest[count:]
	return b
}

// sumReplicas leaves the weighted means in buf.sums. It reads through
// buf.weights, which is not in use yet.
func (w *Worker) sumReplicas(ctx context.Context, t *training, step int, buf averageBuffers) error {
	total := float64(t.plan.Dataset.Train)
	for replica := range t.plan.Replicas {
		share := float64(t.plan.ReplicaRecords(replica)) / total
		if err := w.addReplica(ctx, t, replica, step, share, buf); err != nil {
			return err
		}
		w.cfg.Collect()
	}
	return nil
}

func (w *Worker) addReplica(ctx context.Context, t *training, replica, step int, share float64, buf averageBuffers) (err error) {
	s, err := w.openState(ctx, t, t.keys.Replica(replica, step), step, "", prefixM, prefixV)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, sum := range buf.sums {
		if err := s.readGroup(buf.weights); err != nil {
			return err
		}
		for i, x := range buf.weights {
			// The conversion keeps the product from being fused into the sum on
			// processors where the compiler would.
			sum[i] += float64(share * float64(x))
		}
	}
	return s.finish()
}

// previous reads the weights and the momentum with which the round started.
func (w *Worker) previous(ctx context.Context, t *training, from int, buf averageBuffers) (err error) {
	if from == 0 {
		nn.InitWeights(t.model, t.plan.Seed, buf.weights)
		clear(buf.outer)
		return nil
	}
	s, err := w.openState(ctx, t, t.keys.Global(from), from, "", prefixM, prefixV, prefixOuter)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	err = s.readGroup(buf.weights)
	for range 2 { // moments
		if err == nil {
			err = s.skipGroup()
		}
	}
	if err == nil {
		err = s.readGroup(buf.outer)
	}
	if err == nil {
		err = s.finish()
	}
	return err
}

// outerStep is Nesterov's step on the change of the averaged weights, as in
// DiLoCo (Douillard et al. 2023) and PyTorch's SGD: with the gradient g = old -
// mean, u = momentum*u + g and new = old - rate*(g + momentum*u). Everything is
// computed in float64 and rounded once. Plain averaging, rate 1 without
// momentum, takes the mean as it is: old - (old - mean) would lose digits of a
// mean that is far smaller than old.
func outerStep(o job.Nesterov, weights, outer []float32, mean []float64) {
	plain := o.LearningRate == 1 && o.Momentum == 0
	for i, old := range weights {
		g := float64(old) - mean[i]
		u := float64(o.Momentum*float64(outer[i])) + g
		outer[i] = float32(u)
		if plain {
			weights[i] = float32(mean[i])
			continue
		}
		weights[i] = float32(float64(old) - float64(o.LearningRate*(g+float64(o.Momentum*u))))
	}
}

// narrow rounds sums to float32 in place: value i lands in bytes that sums no
// larger than i have already given up.
func narrow(sums []float64) []float32 {
	out := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(sums))), len(sums))
	for i, x := range sums {
		out[i] = float32(x)
	}
	return out
}

// putModel stores the trained weights and returns the SHA-256 of the file.
func (w *Worker) putModel(ctx context.Context, t *training, weights []float32) (string, error) {
	meta, err := t.modelMeta()
	if err != nil {
		return "", err
	}
	all := tensors(t.params, "", weights)
	sum := sha256.New()
	if err := safetensors.Write(sum, meta, all); err != nil {
		return "", err
	}
	if err := w.putTensors(ctx, t.keys.Final(), meta, all); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
