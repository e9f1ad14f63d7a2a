// SPDX-License-Identifier: Apache-2.0

// Package fetch hides how a published file comes to this machine: mirrors,
// retries, resuming, limits of time and size. What it gives away is a file under
// its final name whose SHA-256 is the published one, or an error that says why
// there is none.
//
// # Invariants
//
//  1. A file has its final name only once its checksum is right and it is on
//     the disk.
//  2. What is left of an unfinished download is one file, the final name with
//     [PartSuffix]; the next call goes on from it. Two calls at once for one file
//     do no harm: the second downloads on its own, into a file that it removes.
//  3. No more is written than the published size, and no wait is unbounded:
//     neither a connection nor an answer nor the next byte.
//  4. A mirror that answers wrongly is not asked again; one that does not
//     answer is, a bounded number of times, after a pause that grows.
//
// A Fetcher is safe for concurrent use if its functions are.
package fetch
