// SPDX-License-Identifier: Apache-2.0

// Package bench measures whole jobs from outside: it says which command lines
// an experiment runs and in which order, and sums up what they took and reached.
//
// It hides how experiments are kept fair: every configuration is run once
// before any is run again, so that a machine that gets slower or faster in the
// meantime does so for all of them, and every figure comes with its spread.
package bench
