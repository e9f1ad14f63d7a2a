// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"math"
	"strings"
)

// Init sets the weights as [InitWeights] does, and the moments to zero.
func (in *Instance) Init(seed uint64) {
	clear(in.m)
	clear(in.v)
	initWeights(in.program.params, seed, in.weights)
}

// InitWeights fills the flat vector of a model's parameters, ParamCount long,
// with what training starts from: Glorot-uniform weights (Keras's default:
// uniform in ±sqrt(6 / (fan in + fan out))), zero biases, and batch normalisations
// that change nothing: gamma and the moving variance are one, beta and the moving
// mean zero. Each value depends on the seed, the index of its tensor in Spec.Params
// and its own index alone.
func InitWeights(spec Spec, seed uint64, weights []float32) {
	initWeights(spec.Params(), seed, weights)
}

func initWeights(params []Param, seed uint64, weights []float32) {
	for i, p := range params {
		w := p.of(weights)
		if len(p.Shape) == 1 {
			clear(w)
			if strings.HasSuffix(p.Name, tensorGamma) || strings.HasSuffix(p.Name, tensorVariance) {
				for j := range w {
					w[j] = 1
				}
			}
			continue
		}
		// The last two dimensions are in and out; those before are the window.
		d := len(p.Shape)
		window := p.Len / (p.Shape[d-2] * p.Shape[d-1])
		limit := math.Sqrt(6 / float64(window*(p.Shape[d-2]+p.Shape[d-1])))
		s := stream{key: mix(seed ^ mix(uint64(i)+1))}
		for j := range w {
			// The middles of 2^24 equal steps over (-1, 1): symmetric, exact.
			u := float64(2*int64(s.at(uint64(j))>>40)+1)*0x1p-24 - 1
			w[j] = float32(u * limit)
		}
	}
}

// stream is a counter-based generator: value i is SplitMix64's output number i
// from the state key. Any value can be had without those before it, and integer
// arithmetic is the same everywhere.
type stream struct{ key uint64 }

func (s stream) at(i uint64) uint64 { return mix(s.key + (i+1)*golden) }

// golden is 2^64 divided by the golden ratio, SplitMix64's increment.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's finalizer, a bijection.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
