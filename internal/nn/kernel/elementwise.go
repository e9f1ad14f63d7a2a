// SPDX-License-Identifier: Apache-2.0

package kernel

import "math"

// minNormal is the smallest normal float32.
const minNormal = 0x1p-126

// flush replaces a number too small to be normal by +0.
func flush(v float32) float32 {
	if v < minNormal && v > -minNormal {
		return 0
	}
	return v
}

func flushAll(v []float32) {
	for i, u := range v {
		v[i] = flush(u)
	}
}

func convert(dst []float32, src []byte, scale float32) {
	dst = dst[:len(src)]
	for i, b := range src {
		dst[i] = flush(float32(b) * scale)
	}
}

// ReLU rectifies v in place: what is not a positive normal number becomes +0,
// except NaN, which stays. It rounds nothing, so it belongs to every set.
func ReLU(v []float32) {
	for i, u := range v {
		if u < minNormal {
			v[i] = 0
		}
	}
}

// Finite says whether no value is infinite or NaN.
func Finite(v []float32) bool {
	// A zero times anything that is not finite is NaN, and NaN stays in a sum.
	var s float32
	for _, u := range v {
		s += float32(u * 0)
	}
	return s == 0
}

// SGDFactors are the constants of one step of stochastic gradient descent.
type SGDFactors struct {
	Rate     float32 // learning rate
	Momentum float32
}

// SGD updates w, and m unless it is nil, with the gradient g:
//
//	m = Momentum*m - Rate*g
//	w += m
//
// Without m the change is -Rate*g. It belongs to every set.
func SGD(w, g, m []float32, f SGDFactors) {
	g = g[:len(w)]
	if m == nil {
		for i := range w {
			w[i] = flush(w[i] - float32(flush(g[i])*f.Rate))
		}
		return
	}
	m = m[:len(w)]
	for i := range w {
		a := flush(float32(m[i]*f.Momentum) - float32(flush(g[i])*f.Rate))
		m[i] = a
		w[i] = flush(w[i] + a)
	}
}

// Decay subtracts from every weight its product with rate. It belongs to every
// set.
func Decay(w []float32, rate float32) {
	for i, u := range w {
		w[i] = flush(u - float32(u*rate))
	}
}

// Blend moves every value of a moving average towards a new one:
// old*momentum + value*(1-momentum), computed in float64 and rounded once. It
// belongs to every set.
func Blend(average, value []float32, momentum float64) {
	value = value[:len(average)]
	for i, v := range value {
		average[i] = flush(float32(float64(float64(average[i])*momentum) + float64(float64(v)*(1-momentum))))
	}
}

func adam(w, g, m, v []float32, f AdamFactors) {
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i := range w {
		d := flush(g[i])
		a := flush(m[i] + float32((d-m[i])*f.Decay1))
		b := flush(v[i] + float32((float32(d*d)-v[i])*f.Decay2))
		m[i], v[i] = a, b
		root := float32(math.Sqrt(float64(b)))
		w[i] = flush(w[i] - float32(a*f.Alpha)/(root+f.Epsilon))
	}
}
