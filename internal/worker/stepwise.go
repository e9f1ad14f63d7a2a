// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"unsafe"

	"disdel/internal/data/shard"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

// takeStep adds up the replicas' gradients of the step that ends at to, weighted
// by the records each saw, in replica order and in float64, and has the optimizer
// take one step with the sum, rounded once. It stores weights and moments; after
// the last step the model, whose digest it returns. It works in memory, which has
// averageBytes at least.
//
// That is the step of a sequential run over the whole batch, but for the order in
// which records are added up. A mean of finite gradients is finite.
func (w *Worker) takeStep(ctx context.Context, t *training, from, to int, memory []byte) (digest string, err error) {
	sum := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(memory))), t.count)
	clear(sum)
	vector := func(i int) []float32 {
		return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(memory[(8+4*i)*t.count:]))), t.count)
	}
	// Weights, then the moments; gradients are read where weights will be.
	held := [][]float32{vector(0)}
	for i := range t.optimizer.Moments() {
		held = append(held, vector(1+i))
	}
	records := t.plan.BatchRecords(from)
	for replica := range t.plan.Replicas {
		first, end := shard.Owned(records, t.plan.Replicas, replica)
		share := float64(end-first) / float64(records)
		if err := w.addReplica(ctx, t, replica, to, share, [][]float64{sum}, held[0]); err != nil {
			return "", err
		}
		w.cfg.Collect()
	}
	if err := w.readStep(ctx, t, from, held); err != nil {
		return "", err
	}
	moments := append(held[1:], nil, nil)
	t.optimizer.Apply(w.cfg.Kernels, t.params, to, held[0], narrow(sum), moments[0], moments[1])
	if to == t.plan.Steps {
		return w.putModel(ctx, t, held[0])
	}
	var all []safetensors.Tensor
	for g, group := range t.globalGroups() {
		all = append(all, group.tensors(held[g])...)
	}
	return "", w.putTensors(ctx, t.keys.Global(to), t.stateMeta(to), all)
}

// readStep reads weights and moments as they are before a step.
func (w *Worker) readStep(ctx context.Context, t *training, step int, held [][]float32) (err error) {
	if step == 0 {
		nn.InitWeights(t.model, t.plan.Seed, held[0])
		for _, moment := range held[1:] {
			clear(moment)
		}
		return nil
	}
	s, err := w.openState(ctx, t, t.keys.Global(step), step, t.globalGroups())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, values := range held {
		if err := s.readGroup(values); err != nil {
			return err
		}
	}
	return s.finish()
}
