// SPDX-License-Identifier: Apache-2.0

package nn

// dropout is a dropout layer. Whether a value is dropped is a function of the
// seed, the replica, the step, the layer, the record's place in the step's batch
// and the value's place in the record: not of how the batch is cut. So the mask
// is not stored: the backward pass makes it again.
type dropout struct {
	layer uint64 // index in the spec
	// below is the share of values to drop, in parts of 2^24.
	below uint64
	// factor is what the others are multiplied with.
	factor float32
}

func newDropout(layer int, rate float64) dropout {
	return dropout{
		layer:  uint64(layer),
		below:  uint64(rate*(1<<24) + 0.5),
		factor: float32(1 / (1 - rate)),
	}
}

// mask returns the generator of the layer's mask in a step.
func (d dropout) mask(s StepInput) stream {
	return stepStream("dropout", s, d.layer)
}

// stepStream returns a generator for one purpose in a step: a word of at most eight
// letters, so that no key is one of Init's, and a number.
func stepStream(purpose string, s StepInput, number uint64) stream {
	key := uint64(0)
	for i := range len(purpose) {
		key = key<<8 | uint64(purpose[i])
	}
	for _, word := range [...]uint64{s.Seed, uint64(s.Replica), uint64(s.Step), number} {
		key = mix(3*key + mix(word+golden) + golden)
	}
	return stream{key: key}
}

// apply drops values and scales the others, of activations or of gradients, in
// place; first is the number in the batch of the first of v.
func (d dropout) apply(v []float32, mask stream, first int) {
	for i, u := range v {
		if mask.at(uint64(first+i))>>40 < d.below {
			v[i] = 0
		} else {
			v[i] = u * d.factor
		}
	}
}
