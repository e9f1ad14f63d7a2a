// SPDX-License-Identifier: Apache-2.0

// Package plan is the scheduler. It decides how a job is divided: into replicas
// and rounds ([Numerics], which fixes the bits), and into containers, memory
// and time ([Train], [Infer], which do not). It hides every rule and constant
// behind these decisions.
//
// It is pure: no clock, no I/O, no goroutine, no randomness. Equal arguments
// give equal plans.
//
// Invariants:
//
//  1. No resource plan exceeds a limit of the platform or a value that the user
//     fixed; when none fits the answer is [Infeasible], which names the limit
//     and the shortfall.
//  2. A numerics plan depends on the spec, the data set and the kernel set
//     alone, never on limits, probes or processors.
//  3. An estimate is never below what the worker takes; the suite of package
//     worker holds the two together.
package plan
