// SPDX-License-Identifier: Apache-2.0

package kernel

// Softmax returns softmax(logits)[class], computed in float64; NaN if a logit is
// NaN or +Inf.
func Softmax(logits []float32, class int) float64 {
	top, sum := softmaxSum(logits)
	return exp(float64(logits[class])-top) / sum
}
