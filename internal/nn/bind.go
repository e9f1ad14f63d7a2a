// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"fmt"
	"unsafe"

	"disdel/internal/nn/kernel"
)

// Bind lays the program over the first Sizes().Total bytes of arena, which
// must be aligned to 64 bytes; bytes beyond are never touched. Weights and moments
// are kept: call Init, or fill Weights and Moments, before the first use. With more
// than one thread the instance has goroutines, which Close ends.
func (p *Program) Bind(arena []byte, set kernel.Set) (*Instance, error) {
	if int64(len(arena)) < p.sizes.Total {
		return nil, fmt.Errorf("%w: arena of %d bytes, the program needs %d", ErrInput, len(arena), p.sizes.Total)
	}
	if a := uintptr(unsafe.Pointer(unsafe.SliceData(arena))) % alignment; a != 0 {
		return nil, fmt.Errorf("%w: arena starts %d bytes after a multiple of %d", ErrInput, a, alignment)
	}
	if set.Name == "" {
		return nil, fmt.Errorf("%w: empty kernel set", ErrInput)
	}
	in := &Instance{program: p, stages: make([]bound, len(p.stages))}
	in.team = kernel.NewTeam(p.cfg.Threads, p.cfg.Spin)
	in.set, in.single = set.On(in.team), set
	at := int64(0)
	region := func(bytes int64) []byte {
		at += bytes
		return arena[at-bytes : at : at]
	}
	in.weights = floats(region(p.sizes.Weights))[:p.count:p.count]
	if p.cfg.Train {
		for i, moment := range []*[]float32{&in.m, &in.v} {
			if i < p.cfg.Optimizer.Moments() {
				*moment = floats(region(align(4 * int64(p.learn))))[:p.learn:p.learn]
			}
		}
		in.gradients = floats(region(p.sizes.Gradients))[:p.gradients:p.gradients]
	}
	activations := region(p.sizes.Activations)
	in.scratch = floats(region(4 * p.scratch))
	partials := floats(region(4 * p.partials))
	// A layer without a bias has zeros for one, which nothing changes, and its
	// gradient is dropped.
	in.zeros = floats(region(4 * p.zeros))
	in.Restore()
	var dropped []float32
	if p.cfg.Train {
		dropped = floats(region(4 * p.zeros))
	}
	predicted := region(align(2 * int64(p.cfg.Batch)))
	in.predicted = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(predicted))), p.cfg.Batch)

	bytes := func(b *buffer) []byte { return activations[b.offset : b.offset+b.bytes : b.offset+b.bytes] }
	for i, s := range p.stages {
		b := bound{stage: s, x: floats(bytes(p.values[s.in])), y: floats(bytes(p.values[s.out]))}
		if s.arg != nil {
			b.arg = bytes(s.arg)
		}
		if s.kind == stageAdd {
			b.earlier = floats(bytes(p.values[s.earlier]))
		}
		if s.again != nil {
			b.made, b.remade = b.x, floats(bytes(s.again))
		}
		if s.learns() {
			left := in.gradients
			if !p.consumes {
				left = nil
			}
			b.w, b.bias, b.grad = in.parameters(s.weight, s.noBias, dropped, &left, &b)
			if s.kind == stageJoint {
				b.joint = &kernel.JointData{ConvW: b.w, ConvBias: b.bias, ConvGrad: b.grad, Mid: floats(bytes(s.mid)), Arg: b.arg}
				b.joint.DenseW, b.joint.DenseBias, b.joint.DenseGrad = in.parameters(s.dense2, s.noBias2, dropped, &left, &b)
				b.joint.Scratch, b.joint.Y = in.scratch, b.y
			}
			if p.cfg.Train && (s.kind == stageConv || s.kind == stageJoint) {
				b.grad.Partial = partials[s.partial:][:s.conv.Partials()]
			}
			if s.kind == stageJoint {
				b.joint.ConvGrad.Partial = b.grad.Partial
			}
		}
		if s.kind == stageNorm {
			b.movingMean, b.movingVariance = p.params[s.state].of(in.weights), p.params[s.state+1].of(in.weights)
			if s.stats != nil {
				stats := bytes(s.stats)
				b.mean, b.variance = floats(stats[:len(stats)/2])[:s.norm.C], floats(stats[len(stats)/2:])[:s.norm.C]
			}
		}
		in.stages[i] = b
	}
	in.input = floats(bytes(p.values[0]))
	in.logits = in.stages[len(in.stages)-1].y
	return in, nil
}

// of returns the tensor's part of a flat vector.
func (p Param) of(flat []float32) []float32 { return flat[p.Offset : p.Offset+p.Len : p.Offset+p.Len] }

// floats views bytes, aligned to four at least, as float32.
func floats(b []byte) []float32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
