// SPDX-License-Identifier: Apache-2.0

// Package platform defines where functions run: the contract between the
// controller and a serverless platform, its limits, and the kinds of outcome
// that an invocation can have. It hides which platform it is: the embedded pool
// (platform/pool), OpenWhisk, Kubernetes. No platform's own error type escapes
// its package.
//
// Words: an action is a deployed function with fixed limits; a package is a
// named set of actions; an invocation is one call of an action, its activation
// the record of that call; a container is the isolated process that serves
// calls, one after the other.
//
// Invariants:
//
//  1. Every accepted invocation ends in exactly one [Outcome].
//  2. Out of memory is read from the kernel's counters or the engine's own
//     state, never guessed from silence; where it cannot be told apart the
//     outcome is [Lost], with MaybeMemory set.
//  3. Invocations are not idempotent: a call that failed on the way may have
//     run. Callers must be.
package platform
