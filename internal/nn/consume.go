// SPDX-License-Identifier: Apache-2.0

package nn

import "disdel/internal/nn/kernel"

// Two stages as one, and gradients that are used as they are made.

// unites says whether the dense stage d reads the output of a first convolution as its
// only reader, so that the two are computed together. Then neither that output nor the
// input is anywhere as an add would read it.
func (p *Program) unites(d stage, later outputs) bool {
	if len(p.stages) != 1 || d.dense.Rows*d.dense.Cols <= 1 || later.keeps(0) || later.keeps(d.in) {
		return false
	}
	c := p.stages[0]
	return c.kind == stageConv && c.out == d.in && !c.inputDue
}

// unite makes one stage of the last one, a convolution, and the dense stage d. The
// input is read as it comes unless it is changed first, and without training the value between them exists for a
// few records at a time only.
func (p *Program) unite(d stage) {
	s := &p.stages[len(p.stages)-1]
	s.kind, s.dense, s.dense2, s.noBias2 = stageJoint, d.dense, d.weight, d.noBias
	s.mid, s.out, s.outLen = p.values[d.in], d.out, d.outLen
	if !p.cfg.Train {
		s.mid.bytes = 0
		if s.arg != nil {
			s.arg.bytes = 0
		}
	}
	if !p.cfg.Train || p.cfg.Augment == (Augment{}) {
		p.values[s.in].bytes = 0
	}
}

// geometry returns the geometry of a joint.
func (s *stage) geometry() kernel.Joint { return kernel.Joint{Conv: s.conv, Dense: s.dense} }

// left returns how many values of gradients the stage leaves when they are used as
// they are made.
func (p *Program) left(s *stage) int64 {
	n := 0
	count := func(param int, noBias bool, weights bool) {
		if weights {
			n += p.params[param].Len
		}
		if !noBias {
			n += p.params[param+1].Len
		}
	}
	switch s.kind {
	case stageConv, stageNorm:
		count(s.weight, s.noBias, true)
	case stageDense:
		count(s.weight, s.noBias, false)
	case stageJoint:
		count(s.weight, s.noBias, true)
		count(s.dense2, s.noBias2, false)
	default:
	}
	return int64(n)
}

// update is a range of learned values and what changes them.
type update struct{ w, g, m, v []float32 }

// parameters returns the weights and the bias that start with a tensor, and where
// their gradients go: if they are used as they are made, to a consumer or to the start
// of left, of which b.updates keeps track.
func (in *Instance) parameters(first int, noBias bool, dropped []float32, left *[]float32, b *bound) (w, bias []float32, grad kernel.Gradient) {
	p := in.program
	weight := p.params[first]
	w = weight.of(in.weights)
	if noBias {
		bias = in.zeros[:weight.Shape[len(weight.Shape)-1]]
	} else {
		bias = p.params[first+1].of(in.weights)
	}
	if !p.cfg.Train {
		return w, bias, grad
	}
	next := func(t Param) []float32 {
		if !p.consumes {
			return t.of(in.gradients)
		}
		g := (*left)[:t.Len:t.Len]
		*left = (*left)[t.Len:]
		b.updates = append(b.updates, update{t.of(in.weights), g, t.some(in.m), t.some(in.v)})
		return g
	}
	if p.consumes && b.takes(first) {
		b.consumer = &kernel.Consumer{Update: in.use, W: w, M: weight.some(in.m), V: weight.some(in.v)}
		grad.Consumer = b.consumer
	} else {
		grad.W = next(weight)
	}
	if noBias {
		grad.Bias = dropped[:len(bias)]
	} else {
		grad.Bias = next(p.params[first+1])
	}
	return w, bias, grad
}

// takes says whether the gradient of a tensor of weights can be used in pieces.
func (s *stage) takes(param int) bool {
	return s.kind == stageDense || s.kind == stageJoint && param == s.dense2
}

// some is of for moments that may not exist.
func (p Param) some(flat []float32) []float32 {
	if flat == nil {
		return nil
	}
	return p.of(flat)
}

// use changes weights by a piece of their gradient, on one of several threads.
func (in *Instance) use(w, g, m, v []float32) {
	in.program.cfg.Optimizer.Apply(in.single, nil, in.step, w, g, m, v)
}

// consume uses the gradients that stage s has left, and says whether all of the stage
// were finite.
func (in *Instance) consume(s *bound) bool {
	if s.consumer != nil && s.consumer.Special.Swap(false) {
		return false
	}
	for _, u := range s.updates {
		if !in.set.Finite(u.g) {
			return false
		}
		in.program.cfg.Optimizer.Apply(in.set, nil, in.step, u.w, u.g, u.m, u.v)
	}
	return true
}
