// SPDX-License-Identifier: Apache-2.0

// Package worker is the program inside a container. It hides how a task becomes
// bytes in the store: which state a replica starts from, how records reach the
// engine, how states are averaged and how predictions are counted.
//
// A worker serves OpenWhisk's action interface (POST /init, then POST /run) on
// whatever connection its platform gives it, one call after the other, and
// keeps nothing between calls but the open store. Weights, what is
// computed with them and the window of records live in one arena outside the Go
// heap, taken at the start of a task and given back at its end. On the heap are
// small things alone: buffers of fixed size, headers of files, lists of pieces,
// and counts, which grow with the square of the classes.
//
// Invariants:
//
//  1. The state after a step is a function of the numerics plan, the replica and
//     the step alone: not of the slice that computed it, nor of attempts.
//  2. A task writes an object whole or not at all, under a key that names its
//     content; a repeated task writes nothing new.
//  3. What a task takes is never above plan's estimate for it.
package worker
