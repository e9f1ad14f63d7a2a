// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"disdel/internal/points"
)

// randomJoint returns a geometry that a model can have.
func randomJoint(r *rand.Rand) Joint {
	g := Conv{
		C: 1 + r.IntN(4), K: 1 + r.IntN(4), F: []int{8, 16, 24, 32, 1, 5, 10, 20}[r.IntN(8)], Pool: 1 + r.IntN(3), ReLU: r.IntN(2) > 0,
	}
	if r.IntN(3) == 0 {
		g.K, g.Pool, g.F = 3, 2, 8*(1+r.IntN(5))
	}
	g.H, g.W = g.K+g.Pool-1+r.IntN(12), g.K+g.Pool-1+r.IntN(12)
	if r.IntN(2) == 0 {
		g.Pad = Pad{r.IntN(g.K), r.IntN(g.K), r.IntN(g.K), r.IntN(g.K)}
	}
	if r.IntN(5) == 0 {
		g.Stride = 1 + r.IntN(3)
		g.H, g.W = g.H*g.Stride, g.W*g.Stride
	}
	return jointOf(g, 1+r.IntN(40), r.IntN(2) > 0)
}

func jointOf(g Conv, out int, relu bool) Joint {
	h, w := g.Out()
	return Joint{Conv: g, Dense: Dense{In: h * w * g.F, Out: out, Rows: h, Cols: w, ReLU: relu, Rectified: g.ReLU}}
}

// joined are two layers that the second reads the first's output.
type joined struct{ conv, dense layer }

func newJoined(r *rand.Rand, j Joint, n, threads int) (joined, []float32) {
	l := joined{newConv(r, j.Conv, n, threads, false), newDense(r, j.Dense, n, threads, false)}
	for i := range l.conv.x { // what bytes can be
		l.conv.x[i] = mul32(float32(byte(r.Uint32())), 1.0/255)
	}
	return l, wide(r, int(j.Scratch(n, threads, true, true)), true)
}

func (l joined) copy() joined { return joined{l.conv.copy(), l.dense.copy()} }

// data returns what a set is given, and where the output's gradient has to be put
// before the backward pass.
func (l joined) data(scratch []float32) *JointData {
	return &JointData{
		X:     Input{Values: l.conv.x},
		ConvW: l.conv.w, ConvBias: l.conv.bias, DenseW: l.dense.w, DenseBias: l.dense.bias,
		Mid: l.conv.y, Arg: l.conv.arg, Y: l.dense.y, ConvGrad: l.conv.grad, DenseGrad: l.dense.grad, Scratch: scratch,
	}
}

// naive does the layers one after the other.
func (l joined) naive(j Joint, n int) {
	l.conv.naiveConv(j.Conv, n)
	l.dense.x = l.conv.y
	l.dense.naiveDense(j.Dense, n)
	l.conv.dy = l.dense.dx
	l.conv.naiveConv(j.Conv, n)
}

func sameJoined(t *testing.T, what string, got, want joined) {
	t.Helper()
	equal(t, what+" conv dw", got.conv.grad.W, want.conv.grad.W)
	equal(t, what+" conv db", got.conv.grad.Bias, want.conv.grad.Bias)
	equal(t, what+" dense dw", got.dense.grad.W, want.dense.grad.W)
	equal(t, what+" dense db", got.dense.grad.Bias, want.dense.grad.Bias)
}

// both runs both passes, and compares the output in between.
func (l joined) both(t *testing.T, what string, s Set, j Joint, n int, d *JointData, want joined) {
	t.Helper()
	s.JointForward(j, n, d)
	equal(t, what+" y", d.Y, want.dense.y)
	copy(d.Y, l.dense.dy)
	s.JointBackward(j, n, d)
}

// By ranges the bits are those of one layer after the other: by assembly and in plain
// Go, from bytes and from values, in parts, on any number of threads, whether or not
// the gradient is consumed.
func TestJointOrder(t *testing.T) {
	forms, singles := forms(t), singles(t)
	for i := range cases(120) {
		r := rand.New(rand.NewPCG(uint64(i), 17))
		j, n := randomJoint(r), 1+r.IntN(20)
		switch {
		case points.Stride > 1 || testing.Short(): // The largest take long.
		case i == 0:
			j, n = jointOf(Conv{H: 28, W: 28, C: 1, K: 3, F: 32, Pool: 2, ReLU: true}, 64, true), 9
		case i == 1:
			j, n = jointOf(Conv{H: 6, W: 40, C: 2, K: 3, F: 32, Pool: 2, ReLU: true}, 18, true), 70
		}
		if j.Dense.Rows*j.Dense.Cols <= 1 {
			continue
		}
		in, scratch := newJoined(r, j, n, 8)
		want := in.copy()
		want.naive(j, n)
		pixels := make([]byte, len(in.conv.x))
		for i, v := range in.conv.x {
			pixels[i] = byte(v*255 + 0.5)
		}
		for name, set := range forms {
			what := fmt.Sprintf("%d: %s, %+v, %d records:", i, name, j, n)
			got := joined{in.conv.guard(t, r.IntN(8)), in.dense.guard(t, r.IntN(8))}
			own, alive := guarded(scratch, r.IntN(8))
			got.both(t, what, set, j, n, got.data(own), want)
			sameJoined(t, what, got, want)
			if !alive() {
				t.Fatalf("%s a value outside the scratch was written", what)
			}

			got = in.copy()
			d := got.data(scratch)
			d.X = Input{Pixels: pixels, Scale: 1.0 / 255}
			consumed := slices.Clone(got.dense.grad.W)
			got.dense.grad.W = nil
			d.DenseGrad.W, d.DenseGrad.Consumer = nil, &Consumer{
				Update: func(w, g, _, _ []float32) { copy(w, g) }, W: consumed,
			}
			got.both(t, what+" consumed", set, j, n, d, want)
			got.dense.grad.W = consumed
			sameJoined(t, what+" consumed", got, want)

			// Without a backward pass nothing is kept.
			d.Mid, d.Arg = nil, nil
			d.Scratch = wide(r, int(j.Scratch(n, 8, false, false)), true)
			set.JointForward(j, n, d)
			equal(t, what+" nothing kept", d.Y, want.dense.y)
		}
		for name, set := range singles {
			got := in.copy()
			d := got.data(scratch)
			for from := 0; from < n; from += 3 {
				count := min(3, n-from)
				d.ConvGrad.First, d.ConvGrad.Last = from == 0, from+count == n
				d.DenseGrad.First, d.DenseGrad.Last = from == 0, from+count == n
				d.X.Values = in.conv.x[from*j.Conv.H*j.Conv.W*j.Conv.C:]
				d.Y = got.dense.y[from*j.Dense.Out:][:count*j.Dense.Out]
				set.JointForward(j, count, d)
				equal(t, "part's y", d.Y, want.dense.y[from*j.Dense.Out:][:count*j.Dense.Out])
				copy(d.Y, in.dense.dy[from*j.Dense.Out:])
				set.JointBackward(j, count, d)
			}
			sameJoined(t, fmt.Sprintf("%d: %s in parts, %+v, %d records:", i, name, j, n), got, want)
		}
	}
}

// The bits of generic-1 are those of its layers one after the other.
func TestGenericJoint(t *testing.T) {
	s := Generic()
	for i := range points.Count(60) {
		r := rand.New(rand.NewPCG(uint64(i), 19))
		j, n := randomJoint(r), 1+r.IntN(20)
		in, scratch := newJoined(r, j, n, 1)
		want := in.copy()
		s.ConvForward(j.Conv, n, want.conv.x, want.conv.w, want.conv.bias, want.conv.y, want.conv.arg, want.conv.scratch)
		s.DenseForward(j.Dense, n, want.conv.y, want.dense.w, want.dense.bias, want.dense.y, want.dense.scratch)
		mid := slices.Clone(want.conv.y)
		s.DenseBackward(j.Dense, n, mid, want.dense.w, in.dense.dy, want.dense.grad, mid, want.dense.scratch)
		s.ConvBackward(j.Conv, n, want.conv.x, want.conv.w, want.conv.arg, mid, want.conv.grad, nil, want.conv.scratch)
		what := fmt.Sprintf("%d: %+v, %d records:", i, j, n)
		got := in.copy()
		got.both(t, what, s, j, n, got.data(scratch), want)
		sameJoined(t, what, got, want)

		got = in.copy()
		d := got.data(scratch)
		consumed := slices.Clone(got.dense.grad.W)
		d.DenseGrad.W, d.DenseGrad.Consumer = nil, &Consumer{Update: func(w, g, _, _ []float32) { copy(w, g) }, W: consumed}
		got.both(t, what+" consumed", s, j, n, d, want)
		got.dense.grad.W = consumed
		sameJoined(t, what+" consumed", got, want)
		d.Mid, d.Arg = nil, nil
		d.Scratch = wide(r, int(j.Scratch(n, 1, false, false)), true)
		s.JointForward(j, n, d)
		equal(t, what+" nothing kept", d.Y, want.dense.y)
	}
}
