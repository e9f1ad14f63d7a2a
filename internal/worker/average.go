// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
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
// the number of replicas: they are read two by two.
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
	w.cfg.Processors(atOnce)
	defer w.cfg.Processors(1)
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
	inHalves(t.learned, func(from, to int) {
		outerStep(n.Outer, buf.weights[from:to], buf.outer[from:to], buf.sums[0][from:to])
	})
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
	scratch        [atOnce][]float32 // the memory of weights and outer, before they are read
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
	b.scratch = [...][]float32{rest[:t.count], rest[t.count:]}
	b.weights, b.outer = b.scratch[0], b.scratch[1][:t.learned]
	return b
}

// atOnce is how many states are read at once while they are added up. The replicas that
// wait for the average leave processors idle.
const atOnce = 2

// sumReplicas leaves the weighted means in buf.sums. It reads through
// buf.scratch, which is not in use yet.
func (w *Worker) sumReplicas(ctx context.Context, t *training, step int, buf averageBuffers) error {
	total := float64(t.plan.Dataset.Train)
	for first := 0; first < t.plan.Replicas; first += atOnce {
		var shares []float64
		for replica := first; replica < min(first+atOnce, t.plan.Replicas); replica++ {
			shares = append(shares, float64(t.plan.ReplicaRecords(replica))/total)
		}
		if err := w.addReplicas(ctx, t, first, step, shares, buf.sums, buf.scratch[:len(shares)]); err != nil {
			return err
		}
		w.cfg.Collect()
	}
	return nil
}

// addReplicas adds shares of the states of replicas from the first on to the sums, in
// their order, reading each through a scratch of its own.
func (w *Worker) addReplicas(ctx context.Context, t *training, first, step int, shares []float64, sums [][]float64, scratch [][]float32) (err error) {
	states := make([]*state, len(shares))
	defer func() {
		for _, s := range states {
			if s != nil {
				err = errors.Join(err, s.close())
			}
		}
	}()
	if err := each(len(states), func(i int) (err error) {
		states[i], err = w.openState(ctx, t, t.keys.Replica(first+i, step), step, t.replicaGroups())
		return err
	}); err != nil {
		return err
	}
	for _, sum := range sums {
		if err := each(len(states), func(i int) error { return states[i].readGroup(scratch[i][:len(sum)]) }); err != nil {
			return err
		}
		inHalves(len(sum), func(from, to int) {
			for i, share := range shares {
				addShare(sum[from:to], share, scratch[i][from:to])
			}
		})
	}
	return each(len(states), func(i int) error { return states[i].finish() })
}

// addShare adds a share of values to the sums.
func addShare(sum []float64, share float64, values []float32) {
	for i, x := range values {
		// The conversion keeps the product from being fused into the sum on
		// processors where the compiler would.
		sum[i] += float64(share * float64(x))
	}
}

// each calls f for 0 to n-1, all at once, and returns the first error in that order.
func each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var rest sync.WaitGroup
	for i := 1; i < n; i++ {
		rest.Go(func() { errs[i] = f(i) })
	}
	errs[0] = f(0)
	rest.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inHalves calls f for both halves of n values at once.
func inHalves(n int, f func(from, to int)) {
	var second sync.WaitGroup
	second.Go(func() { f(n/2, n) })
	f(0, n/2)
	second.Wait()
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
