// SPDX-License-Identifier: Apache-2.0

// Package shard hides how a piece of a data set is laid out in bytes and in
// which order a replica sees its records. It is all of the data code that a
// worker links, so it imports the standard library alone.
//
// Words: a record is one image and its label. A shard is a fixed, numbered run
// of records of one split, cut after one seeded permutation of the whole split;
// the order after that permutation is the global order. A piece is a run of
// records inside one shard. A replica owns a run of the global order, expressed
// as pieces. A window holds the records of one piece. An epoch is one pass of a
// replica over its pieces; a step takes one batch.
//
// # Format
//
// All numbers are little-endian. A shard is, without padding:
//
//	offset          bytes          what
//	0               4              magic "DDSH"
//	4               2              version, 1
//	6               2              zero
//	8               4              records n
//	12              4              height H
//	16              4              width W
//	20              4              channels C
//	24              4              classes K
//	28              4              zero
//	32              2 n            labels, each below K
//	32 + 2 n        n H W C        pixels, record by record, rows top down, channels interleaved
//
// Labels come before pixels so that one forward pass reads any range and both
// parts of it lie together. The format carries no checksum: the store verifies
// every byte before it hands it out. A shard has at most [MaxBytes] bytes, so
// no header, however wrong, makes a reader allocate or skip without bound.
//
// # Order
//
// Epoch e of a replica visits its pieces in a random order and the records of
// each piece in a random order. Both come from [Rand] keyed by (seed, epoch,
// replica) and by (seed, epoch, replica, piece), so a batch is a function of
// its step number alone and a run can start at any step.
//
// # Invariants
//
//  1. Every record of the global order belongs to exactly one of K replicas,
//     whose sizes differ by at most one.
//  2. An epoch of a [Stream] with enough steps yields each record of its pieces
//     exactly once.
//  3. The batch of a step does not depend on where the stream started, on
//     failed loads, or on what was read before.
//  4. A stream takes what [WindowBytes] and [BatchBytes] say when it is made,
//     from the heap or from memory of the caller's, and nothing per batch.
//
// Values are not safe for concurrent use; [Pieces] and [Write] are.
package shard
