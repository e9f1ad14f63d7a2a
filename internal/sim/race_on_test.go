// SPDX-License-Identifier: Apache-2.0

//go:build race

package sim

// stride is how far apart the points are at which sweeps fail: the race detector
// makes each run ten times as slow, and all points are tried without it.
const stride = 5
