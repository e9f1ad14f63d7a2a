// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"slices"
	"testing"
)

func TestHalfTurnCos(t *testing.T) {
	for i := range 1001 {
		x := float64(i) / 1000
		if got, want := HalfTurnCos(x), math.Cos(math.Pi*x); math.Abs(got-want) > 0x1p-50 {
			t.Errorf("%v half turns: %v, want %v", x, got, want)
		}
	}
	if HalfTurnCos(0) != 1 || HalfTurnCos(0.5) != 0 || HalfTurnCos(1) != -1 {
		t.Error("the ends and the middle are not exact")
	}
}

func TestLength(t *testing.T) {
	for n := range 40 {
		v, want := make([]float32, n), 0.0
		for i := range v {
			v[i] = float32(i%5) - 2.5
			want += float64(v[i]) * float64(v[i])
		}
		if got := Length(v); math.Abs(got-math.Sqrt(want)) > 1e-12 {
			t.Errorf("%d values: %v, want %v", n, got, math.Sqrt(want))
		}
	}
	if got := Length(slices.Repeat([]float32{math.MaxFloat32}, 100)); math.IsInf(got, 0) {
		t.Error("the length of finite values is infinite")
	}
}

// A smoothed loss is the mean of the losses of all labels, as far as it is smoothed,
// and its gradient is what differences say.
func TestSmoothCrossEntropy(t *testing.T) {
	logits := []float32{0.3, -1.7, 2.2, 0.01}
	const smoothing, label = 0.2, 1
	want := (1 - smoothing) * CrossEntropy(logits, label)
	for i := range logits {
		want += smoothing / 4 * CrossEntropy(logits, i)
	}
	if got := SmoothCrossEntropy(logits, label, smoothing); math.Abs(got-want) > 1e-14 {
		t.Errorf("loss %v, want %v", got, want)
	}
	gradient := slices.Clone(logits)
	SmoothCrossEntropyGradient(gradient, label, smoothing, 3)
	for i := range logits {
		const h = 0x1p-10
		up, down := slices.Clone(logits), slices.Clone(logits)
		up[i] += h
		down[i] -= h
		want := 3 * (SmoothCrossEntropy(up, label, smoothing) - SmoothCrossEntropy(down, label, smoothing)) / float64(up[i]-down[i])
		if math.Abs(float64(gradient[i])-want) > 1e-5 {
			t.Errorf("gradient %d is %v, want %v", i, gradient[i], want)
		}
	}
	if v := SmoothCrossEntropy([]float32{float32(math.NaN()), 1}, 1, 0.1); v == v {
		t.Error("NaN does not reach the loss")
	}
}
