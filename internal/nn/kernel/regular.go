// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// What a job can add to its loss and do to its gradients. All of it belongs to every
// set.

// AddPenalty adds to the gradient g that of rate/2 times the sum of the squares of w.
func AddPenalty(g, w []float32, rate float32) {
	w = w[:len(g)]
	for i, u := range w {
		g[i] = flush(g[i] + float32(u*rate))
	}
}

// lengthChains is how many sums Length keeps: as many as hide the time of one
// addition.
const lengthChains = 8

// Length returns the root of the sum of the squares of v, which is finite if v is.
// The squares are exact in float64; value i belongs to sum i mod 8, and the sums are
// added in order.
func Length(v []float32) float64 {
	var sums [lengthChains]float64
	whole := len(v) / lengthChains * lengthChains
	for i := 0; i < whole; i += lengthChains {
		for k, u := range v[i:][:lengthChains] {
			sums[k] += float64(float64(u) * float64(u))
		}
	}
	for k, u := range v[whole:] {
		sums[k] += float64(float64(u) * float64(u))
	}
	sum := 0.0
	for _, s := range sums {
		sum += s
	}
	return math.Sqrt(sum)
}

// Scale multiplies v by factor.
func Scale(v []float32, factor float32) {
	for i, u := range v {
		v[i] = flush(u * factor)
	}
}

// SmoothCrossEntropy is CrossEntropy with a target that is spread: smoothing of it is
// shared out evenly among all classes, the rest is the label's. In (0, 1).
func SmoothCrossEntropy(logits []float32, label int, smoothing float64) float64 {
	top, sum := softmaxSum(logits)
	mean := 0.0
	for _, v := range logits {
		mean += float64(v) - top
	}
	mean /= float64(len(logits))
	own := float64((1 - smoothing) * (float64(logits[label]) - top))
	return log(sum) - (own + float64(smoothing*mean))
}

// SmoothCrossEntropyGradient is CrossEntropyGradient of SmoothCrossEntropy.
func SmoothCrossEntropyGradient(logits []float32, label int, smoothing, factor float64) {
	top, sum := softmaxSum(logits)
	share := smoothing / float64(len(logits))
	for i, v := range logits {
		p := exp(float64(v)-top)/sum - share
		if i == label {
			p -= 1 - smoothing
		}
		logits[i] = flush(float32(p * factor))
	}
}

// HalfTurnCos returns the cosine of x half turns, x in [0, 1], with an error below
// 2^-50: Taylor's polynomials on an eighth of a turn.
func HalfTurnCos(x float64) float64 {
	switch {
	case x > 0.5:
		return -HalfTurnCos(1 - x)
	case x > 0.25:
		// The sine of what is left to a quarter of a turn.
		a := float64((0.5 - x) * math.Pi)
		z, term, sum := float64(a*a), a, a
		for n := 3.0; n <= 19; n += 2 {
			term = -float64(term*z) / float64(n*(n-1))
			sum += term
		}
		return sum
	}
	a := float64(x * math.Pi)
	z, term, sum := float64(a*a), 1.0, 1.0
	for n := 2.0; n <= 18; n += 2 {
		term = -float64(term*z) / float64(n*(n-1))
		sum += term
	}
	return sum
}
