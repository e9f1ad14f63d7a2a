// SPDX-License-Identifier: Apache-2.0

package nn

import "disdel/internal/nn/kernel"

// Probability returns what the last Evaluate or Predict gives a class for one of
// its records: the softmax of the logits, computed in float64.
func (in *Instance) Probability(record, class int) float64 {
	classes := in.program.spec.Classes
	return kernel.Softmax(in.logits[record*classes:][:classes], class)
}
