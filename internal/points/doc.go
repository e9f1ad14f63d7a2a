// SPDX-License-Identifier: Apache-2.0

// Package points says how much of a sweep a test tries. It is for tests only.
//
// Tests that go through many points, such as models, seeds or places to fail at,
// try all of them. Under the race detector, which makes them five to twenty times as
// slow and looks at who touches memory when, not at numbers, they try every
// Stride-th: `make check` runs all tests both ways.
package points
