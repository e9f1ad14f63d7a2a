// SPDX-License-Identifier: Apache-2.0

// Package data hides where data sets come from and how their files look. What
// it gives away is one shape for all of them, [Set]: 8-bit images with
// interleaved channels and a label each, divided into a training and a test
// split, and [Cut], which turns a set into the shards that workers read.
//
// Words: a data set is a name with [Info] and a way to load it ([Dataset]). The
// catalogue has those with a name of their own; a user's own is named by its
// path. A published data set is one of the catalogue that others publish as
// files; a layout is a form in which its files may lie in a folder. A set is a
// data set that is loaded. A split is its training or its test part. Cutting
// permutes the training split once, with a seed that is part of this program,
// and divides both splits into shards; the order after it is the global order.
//
// Each source of data sets is a type with the methods of [Dataset]: digits,
// published (published.go; catalogue.go lists them), own (own.go, folder.go).
// What the rest of the program sees of a source is the Set alone, which [Open]
// checks whatever source it came from. Package format reads files, package fetch
// downloads them.
//
// # Invariants
//
//  1. A set that Open returns is valid: shapes agree, labels are below Classes,
//     and counts are those of its Info.
//  2. Which records are held out for testing, and the global order, are
//     functions of the data set alone: the same for ever, on every machine and
//     for every job. [Set.Digest] identifies them together with the records.
//  3. Cut holds one shard in memory besides the set.
//  4. What is downloaded has the published checksum, or it is not used. What
//     was there already is used whatever it is, and the user is told if it
//     differs from the published.
//  5. What is decided for the user on the way, such as which records become the
//     test split, is told through Options.Notice.
//
// A Set is read-only once loaded and then safe for concurrent use.
package data
