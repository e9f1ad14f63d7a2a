// SPDX-License-Identifier: Apache-2.0

// Package format hides how files of labelled images look: IDX, the binary form
// of the CIFAR sets, MATLAB's MAT 5.0, NumPy's NPY and NPZ, CSV, PNG and JPEG.
// It opens no file and knows no data set; package data does both.
//
// Words: the input is what a parser reads, and its size is what the caller
// knows of it from outside, such as the size of the file: compressed bytes where
// the input is compressed. Pixels are one byte each, rows top down, channels
// interleaved.
//
// # Invariants
//
//  1. A file that is not what it should be is an [ErrFormat] that says where;
//     the caller adds the file's name. An error of the reader below is passed on.
//  2. What a file says of its own sizes is believed only as far as its input
//     goes: no parser allocates more than a constant, plus a constant multiple of
//     the input's size, plus twice what it has really read.
//  3. Parsers are strict: what follows the data, sums that do not fit, and
//     numbers out of range are errors.
//  4. A parser reads its input once, front to back (NPZ and MAT excepted, whose
//     forms demand more), and is a function of it alone.
package format
