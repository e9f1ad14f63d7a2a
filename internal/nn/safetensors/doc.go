// SPDX-License-Identifier: Apache-2.0

// Package safetensors reads and writes tensors in the safetensors format, as a
// stream, and hides the bytes of it: eight bytes with the header's length,
// little-endian; a JSON object, padded with spaces; the tensors' values, in
// order, without gaps, little-endian.
//
// Weights and checkpoints are such files. Their values are the memory of an arena
// itself, so that a file costs neither memory of its own nor a copy. Only float32 is
// known, since nothing else is trained here.
//
// Invariants:
//
//  1. Equal arguments are written as equal bytes.
//  2. What a Reader hands out lies in a file that is valid as a whole, up to
//     there: header, offsets without holes or overlap, names that appear once.
//  3. Memory is bounded by [MaxHeaderBytes], never by a size read from a file.
//
// [Reader.Finish] tells a complete file from one with something behind it.
// Readers have no checksum: the store verifies bytes.
package safetensors
