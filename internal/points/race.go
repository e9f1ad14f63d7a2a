// SPDX-License-Identifier: Apache-2.0

//go:build race

package points

// Stride is how far apart the points are that a sweep tries: the race detector
// runs.
const Stride = 20
