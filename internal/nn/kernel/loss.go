// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"slices"
)

// CrossEntropy returns -log(softmax(logits)[label]), computed in float64; NaN
// if a logit is NaN or +Inf.
func CrossEntropy(logits []float32, label int) float64 {
	top, sum := softmaxSum(logits)
	return log(sum) - (float64(logits[label]) - top)
}

// CrossEntropyGradient replaces the logits by the gradient of CrossEntropy
// times factor, rounded to float32 once. The order of the sums is that of the
// classes.
func CrossEntropyGradient(logits []float32, label int, factor float64) {
	// Exponentials of so many classes are not computed again.
	var few [32]float64
	if len(logits) > len(few) {
		top, sum := softmaxSum(logits)
		for i, v := range logits {
			logits[i] = gradientOf(exp(float64(v)-top)/sum, i == label, factor)
		}
		return
	}
	top, sum := float64(slices.Max(logits)), 0.0
	for i, v := range logits {
		few[i] = exp(float64(v) - top)
		sum += few[i]
	}
	for i := range logits {
		logits[i] = gradientOf(few[i]/sum, i == label, factor)
	}
}

// gradientOf returns the gradient of a logit whose class has probability p.
func gradientOf(p float64, labelled bool, factor float64) float32 {
	if labelled {
		p -= 1
	}
	return flush(float32(p * factor))
}

// softmaxSum returns the largest logit and the sum of exp(logit - largest),
// from 1 to the number of classes.
func softmaxSum(logits []float32) (top, sum float64) {
	top = float64(logits[0])
	for _, v := range logits[1:] {
		top = max(top, float64(v))
	}
	for _, v := range logits {
		sum += exp(float64(v) - top)
	}
	return top, sum
}

// ArgMax returns the index of the largest value, the first of equals.
func ArgMax(v []float32) int {
	best := 0
	for i, u := range v {
		if u > v[best] {
			best = i
		}
	}
	return best
}

const (
	// ln2High has 32 bits, so its products with exponents are exact.
	ln2High = 0x1.62e42feep-1
	ln2Low  = 0x1.a39ef35793c76p-33
	log2E   = 1 / math.Ln2
)

// exp returns e^x with a relative error below 2^-51: Taylor's polynomial of
// degree 13 on [-ln2/2, ln2/2]. Results below 2^-1021 are zero.
func exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709:
		return math.Inf(1)
	case x < -707:
		return 0
	}
	k := int(float64(x*log2E) + math.Copysign(0.5, x))
	r := (x - float64(float64(k)*ln2High)) - float64(float64(k)*ln2Low)
	p := 1.0 / 6227020800 // 1/13!
	for _, c := range [...]float64{
		1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
		1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1, 1,
	} {
		p = float64(p*r) + c
	}
	return math.Float64frombits(math.Float64bits(p) + uint64(k)<<52)
}

// log returns the natural logarithm of a positive normal number with an error
// below 2^-51 of it: log m = 2 artanh((m-1)/(m+1)) for m in [sqrt(1/2), sqrt 2).
func log(x float64) float64 {
	if !(x > 0) || math.IsInf(x, 1) {
		return math.NaN()
	}
	bits := math.Float64bits(x)
	k := int(bits>>52) - 1023
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	if m > math.Sqrt2 {
		m, k = m/2, k+1
	}
	s := (m - 1) / (m + 1)
	z := float64(s * s)
	p := 0.0
	for i := 21; i >= 3; i -= 2 {
		p = float64((p + 1/float64(i)) * z)
	}
	s *= 2
	return float64(float64(k)*ln2High) + (s + (float64(s*p) + float64(float64(k)*ln2Low)))
}
