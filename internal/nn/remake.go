// SPDX-License-Identifier: Apache-2.0

package nn

// With Config.Remake the output of a batch normalisation is not kept for the backward
// pass: it is made again, from what went in, just before its consumer's backward pass
// needs it. So it has two buffers, one that lives from its stage to the next, and one
// that lives between the same two backward; both share bytes with whatever lives at
// other times. The kernels and what they read are the same, so the bits are too.

// Remakes says whether Config.Remake makes a difference for the model.
func (s Spec) Remakes() bool {
	for i, l := range s.Layers {
		if l.Kind == KindBatchNorm && i > 0 {
			return true
		}
	}
	return false
}

// remakes finds the stages whose input is made again: each is the only one that reads
// or changes the output of a batch normalisation, and follows it. Of two in a row the
// first is made again.
func (p *Program) remakes() {
	if !p.cfg.Train || !p.cfg.Remake {
		return
	}
	for i := 1; i < len(p.stages); i++ {
		norm, next := &p.stages[i-1], &p.stages[i]
		if norm.kind != stageNorm || norm.out == norm.in || next.in != norm.out || next.out == next.in || len(next.adds) > 0 {
			continue
		}
		if norm.again != nil {
			continue // what it is made from is gone when it is due
		}
		next.again = &buffer{bytes: p.values[next.in].bytes}
	}
}

// remadeOutput returns the second buffer of stage i's output, nil if it is kept.
func (p *Program) remadeOutput(i int) *buffer {
	if i+1 < len(p.stages) {
		return p.stages[i+1].again
	}
	return nil
}

// remake makes the input of stage i again, in a buffer that then is the input and the
// output of the one before.
func (in *Instance) remake(i, n int) {
	s := &in.stages[i]
	if s.again == nil {
		return
	}
	norm := &in.stages[i-1]
	s.x, norm.y = s.remade, s.remade
	in.set.NormForward(norm.norm, n, norm.x, norm.mean, norm.variance, norm.w, norm.bias, norm.y, norm.arg, in.scratch)
}

// rewind undoes what remake has done to the stages.
func (in *Instance) rewind() {
	for i := range in.stages {
		if s := &in.stages[i]; s.again != nil {
			s.x, in.stages[i-1].y = s.made, s.made
		}
	}
}
