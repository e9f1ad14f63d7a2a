// SPDX-License-Identifier: Apache-2.0

// Package store defines where weights, data shards, checkpoints and job logs
// live, and hides which product keeps them: a folder (store/dir), a
// Redis server (store/redis), memory (store/mem). The contract is the doc comments of [Store];
// store/storetest turns it into one suite that every implementation passes.
//
// Words: an object is immutable bytes under a key; a status is a small value
// that may be overwritten; a log is an append-only, hash-chained list of
// entries. The three live in separate name spaces.
//
// Invariants:
//
//  1. An object is visible whole or not at all, to every client, at once.
//  2. Bytes handed to a reader have been checked against their checksum
//     first: corruption is [ErrCorrupt], never a wrong number.
//  3. Of several writers of one key exactly one creates it; of several
//     appenders at one head exactly one succeeds.
//
// Nothing here retries by itself: [WithRetry] is the one place that does. A
// store is addressed by a URL that [ParseURL] splits; the program that knows
// all implementations opens it.
package store
