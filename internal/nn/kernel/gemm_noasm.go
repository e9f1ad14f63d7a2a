// SPDX-License-Identifier: Apache-2.0

//go:build !arm64 || noasm

package kernel

// accumulateVectors leaves all to plain Go.
func accumulateVectors(int, int, int, int, factor, []float32, int, []float32, int) (done int) {
	return 0
}
