// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"unsafe"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
	"disdel/internal/store"
)

// average merges the states of all replicas at the end of a round. Weights and
// moments become their mean, weighted by each replica's records and summed in
// replica order in float64. The outer optimizer then treats the mean change of
// what is learned as a gradient. After the last round the result is the model file,
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
	arena, err := w.newArena(t.averageBytes())
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.closeArena(arena)) }()
	result.Step, result.Round = task.To, task.From/n.RoundSteps+1
	result.Digest, err = w.averageRound(ctx, t, task.From, task.To, arena.Bytes())
	if errors.Is(err, store.ErrNotFound) {
		// Replicas that met may have averaged, gone on and swept what the round is
		// made of, before they could answer.
		if at, listErr := w.newestGlobal(ctx, t, task.To); listErr == nil && at >= 0 {
			result.Round, err = at/n.RoundSteps, nil
		}
	}
	return result, err
}

// averageRound averages the round of the steps from to to and stores the result.
// digest is the model's after the last round. It works in memory, which has
// averageBytes at least.
func (w *Worker) averageRound(ctx context.Context, t *training, from, to int, memory []byte) (digest string, err error) {
	if t.stepwise() {
		return w.takeStep(ctx, t, from, to, memory)
	}
	n, buf := t.plan, newAverageBuffers(memory, t)
	if err := w.sumReplicas(ctx, t, to, buf); err != nil {
		return "", err
	}
	if err := w.previous(ctx, t, from, buf); err != nil {
		return "", err
	}
	outerStep(n.Outer, buf.weights[:t.learned], buf.outer, buf.sums[0])
	// The model's own state takes no step: it is statistics, not a place on a
	// slope, and momentum could make a variance negative.
	for i := t.learned; i < t.count; i++ {
		buf.weights[i] = float32(buf.sums[0][i])
	}
	if to == n.Steps {
		return w.putModel(ctx, t, buf.weights)
	}
	groups := t.groups()
	all := groups[0].tensors(buf.weights)
	for g, sums := range buf.sums[1:] {
		all = append(all, groups[g+1].tensors(narrow(sums))...)
	}
	all = append(all, t.globalGroups()[len(groups)].tensors(buf.outer)...)
	return "", w.putTensors(ctx, t.keys.Global(to), t.stateMeta(to), all)
}

// averageBytes is what averaging holds: for each parameter one float64 sum of
// the weights and one of every moment, weights and outer momentum in float32; or
// one float64 sum of the gradient, weights and every moment in float32.
func (t *training) averageBytes() int {
	moments := t.optimizer.Moments()
	if t.stepwise() {
		return t.count * (8 + 4*(1+moments))
	}
	return t.count * (8*(1+moments) + 2*4)
}

type averageBuffers struct {
	sums           [][]float64 // weights, then the moments
	weights, outer []float32
}

// newAverageBuffers lays the buffers over memory, whatever it held: each as long
// as the flat vector, of which what is learned uses the first part.
func newAverageBuffers(arena []byte, t *training) averageBuffers {
	groups := t.groups()
	wide := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(arena))), len(groups)*t.count)
	rest := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(arena[len(groups)*8*t.count:]))), 2*t.count)
	var b averageBuffers
	for g := range groups {
		sums := wide[g*t.count:][:t.count]
		clear(sums)
		if g > 0 {
			sums = sums[:t.learned]
		}
		b.sums = append(b.sums, sums)
	}
	b.weights, b.outer = rest[:t.count], rest[t.count:][:t.learned]
	return b
}

// sumReplicas leaves the weighted means in buf.sums. It reads through
// buf.weights, which is not in use yet.
func (w *Worker) sumReplicas(ctx context.Context, t *training, step int, buf averageBuffers) error {
	total := float64(t.plan.Dataset.Train)
	for replica := range t.plan.Replicas {
		share := float64(t.plan.ReplicaRecords(replica)) / total
		if err := w.addReplica(ctx, t, replica, step, share, buf.sums, buf.weights); err != nil {
			return err
		}
		w.cfg.Collect()
	}
	return nil
}

// addReplica adds a share of a replica's state to the sums, reading through
// scratch.
func (w *Worker) addReplica(ctx context.Context, t *training, replica, step int, share float64, sums [][]float64, scratch []float32) (err error) {
	s, err := w.openState(ctx, t, t.keys.Replica(replica, step), step, t.replicaGroups())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, sum := range sums {
		values := scratch[:len(sum)]
		if err := s.readGroup(values); err != nil {
			return err
		}
		for i, x := range values {
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
	s, err := w.openState(ctx, t, t.keys.Global(from), from, t.globalGroups())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	err = s.readGroup(buf.weights)
	for range buf.sums[1:] { // moments
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
	all := t.groups()[0].tensors(weights)
	sum := sha256.New()
	if err := safetensors.Write(sum, meta, all); err != nil {
		return "", err
	}
	if err := w.putTensors(ctx, t.keys.Final(), meta, all); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
