// SPDX-License-Identifier: Apache-2.0

// Package openwhisk runs actions on an Apache OpenWhisk, through its REST API. It
// hides how a package becomes packages, actions, parameters and annotations
// there, how an activation's record is waited for, and what the many texts of
// its releases (1.0.0, 2.0.0 and later) mean.
//
// Words: an API host is where a deployment serves its API; a namespace belongs
// to a key; a kind is a runtime that the deployment offers; a record is what the
// deployment keeps of an activation that has ended.
//
// Facts about OpenWhisk that shape this package:
//
//   - A record does not exist (404) until the activation has ended, and a moment
//     longer. A call that waits, runs, or will never run look the same. Each wait
//     is therefore bounded.
//   - Nothing can be cancelled. Cancel and Remove end the waiting; the call ends
//     by itself or at its time limit.
//   - Calls are not idempotent and carry no key of the caller. A call whose
//     answer was lost may run: Invoke then returns platform.ErrUnavailable.
//   - A container that was killed for its memory is told apart from one that
//     died otherwise only by some deployments; see platform.Outcome.MaybeMemory.
//   - An action that has more memory than any invoker has for containers is
//     accepted and waits for ever; see Config.PoolMemory.
//   - A throttled call is counted in its minute as well; minutes are the server's
//     wall clock's.
//
// Invariants:
//
//  1. The key and init-only parameters appear in no error, message or log line.
//  2. Only packages and actions that carry this program's annotation are changed
//     or deleted.
//  3. Every request has a time limit, every answer a size limit, every wait an
//     end. Nothing is sent twice but questions.
package openwhisk
