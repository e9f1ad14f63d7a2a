// SPDX-License-Identifier: Apache-2.0

// Package whiskapi serves the embedded platform under OpenWhisk's REST API v1:
// namespaces, packages with bindings, actions, activations, limits and metrics,
// so that `wsk` and any other client of OpenWhisk can use it. It hides how
// OpenWhisk says things: paths, JSON, texts of errors, status codes. What runs
// where and when is the pool's business.
//
// Words: an entity is a package or an action; a binding is a package that stands
// for another one; a generation is a line of OpenWhisk's releases, whose texts
// differ.
//
// Invariants:
//
//  1. Every body, list, header and wait is bounded, and so are the entities and
//     the records that are kept. All are in memory and end with the server.
//  2. A call that was accepted has exactly one record once it has ended, except
//     where OpenWhisk has none.
//  3. Entities never change: an update puts a new one in the place of the old.
//     A call runs the version that it found.
//  4. Init-only parameters and keys appear in no record, log line, metric or
//     error.
//  5. Nothing is parsed by code that package openwhisk, the client, uses too: each
//     is a check on the other.
//
// Triggers and rules are answered with status 501, but their lists, which are
// empty; so are sequences.
//
// All methods of [Server] may be called from any goroutine.
package whiskapi
