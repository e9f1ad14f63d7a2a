// SPDX-License-Identifier: Apache-2.0

//go:build !race

package sim

// stride is how far apart the points are at which sweeps fail.
const stride = 1
