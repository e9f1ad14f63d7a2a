// SPDX-License-Identifier: Apache-2.0

package nn

// An output that an add wants later is kept: its layer ends a stage, and no stage
// works on it in place. In training two gradients meet at it. The gradient that comes
// through the add stays where the add's own output was, until whoever consumes the
// kept value first, which is the last backward, has written its part in the value's
// place; then the other is added. Before that the value itself is gone, so where it
// came out of a ReLU the add's gradient is masked just before. The stages between
// have read it by then: the add works in place on a value that nobody else wants,
// and if there is no such value, on a copy.

// outputs says where the outputs of layers are, of those that are wanted later.
type outputs struct {
	want map[int]bool // layers; -1 is the input
	of   map[int]output
	kept map[int]bool // values
}

type output struct {
	value     int
	rectified bool
}

func newOutputs(layers []Layer) outputs {
	o := outputs{map[int]bool{}, map[int]output{}, map[int]bool{}}
	for i, l := range layers {
		if l.Kind == KindAdd {
			o.want[i-l.Back] = true
		}
	}
	return o
}

// wanted says that the layer's output is.
func (o outputs) wanted(layer int) bool { return o.want[layer] }

// keeps says that the value is wanted later.
func (o outputs) keeps(value int) bool { return o.kept[value] }

// leave says what the output of a layer is.
func (o outputs) leave(layer, value int, rectified bool) {
	if o.want[layer] {
		o.of[layer], o.kept[value] = output{value, rectified}, true
	}
}

// overwrites says that the layer's stage, if it is not fused to another, works in
// place.
func (l Layer) overwrites(train bool) bool {
	return l.Kind == KindReLU || l.Kind == KindAdd || l.Kind == KindDropout && train && l.Rate > 0
}

// mustCopy says that what the add, layer i, adds to is needed as it is by the
// backward pass: it came out of a ReLU, whoever made it works in place, or consumes
// the very output that is added.
func (p *Program) mustCopy(i int, o outputs, rectified bool) bool {
	if !p.cfg.Train || len(p.stages) == 0 {
		return false
	}
	last := p.stages[len(p.stages)-1]
	return rectified || last.in == last.out || last.in == o.of[i-p.spec.Layers[i].Back].value
}

// join tells the first consumer of every value which adds want it too.
func (p *Program) join() {
	for i, add := range p.stages {
		if add.kind != stageAdd {
			continue
		}
		for j := range p.stages {
			if s := &p.stages[j]; s.in == add.earlier && s.out != s.in {
				s.adds = append(s.adds, i)
				break
			}
		}
	}
}

// maskAdds and gatherAdds surround the backward pass of a stage.
func (in *Instance) maskAdds(s *bound, n int) {
	if !s.inputDue {
		return
	}
	for _, i := range s.adds {
		in.set.MaskResidual(in.stages[i].residual, n, s.x, in.stages[i].y)
	}
}

func (in *Instance) gatherAdds(s *bound, n int) {
	if !s.inputDue {
		return
	}
	for _, i := range s.adds {
		in.set.AddResidualGradient(in.stages[i].residual, n, in.stages[i].y, s.x)
	}
}
