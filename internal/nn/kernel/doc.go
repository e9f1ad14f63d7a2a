// SPDX-License-Identifier: Apache-2.0

// Package kernel holds the hot loops of the engine and hides how they are
// computed. Callers choose a [Set] and pass it on; two sets may differ in bits,
// one set never does: not between platforms, compilers or runs.
//
// # Arithmetic of generic-1
//
//  1. Every product is rounded to float32 (in the loss: float64) before it is
//     added: written as an explicit conversion, which forbids the compiler to
//     fuse a multiply-add on the platforms that have one.
//  2. Every sum is one chain of additions per result, in a stated order:
//     convolution and dense forward start from the bias and take kernel row,
//     kernel column and channel in, or the inputs, in order; a gradient of a
//     parameter starts from its old value and takes records in order, inside a
//     record the outputs row by row; the gradient of a dense layer's input
//     takes the units in order; that of a convolution's input takes outputs row
//     by row, and at each the filters in order. Terms whose gradient factor is
//     zero may be left out: a chain that starts at +0 never becomes -0, so for
//     finite values that does not show.
//  3. A float32 whose magnitude, once rounded, is below 2^-126, the smallest
//     normal number, is +0 wherever it is stored: converted pixels,
//     activations, their gradients, moments, weights. Inside a chain it is
//     kept, so that a chain may be cut anywhere; the optimizer reads a
//     parameter's gradient as zero then. Denormal numbers cost hundreds of
//     cycles each on some processors, and Adam's moments of unused weights
//     would all end there.
//  4. Square roots and divisions are the correctly rounded ones of IEEE 754.
//     exp and log are written here, because those of package math differ
//     between architectures.
//  5. A set is these and no more: the loss, pooling, batch normalisation,
//     stochastic gradient descent, weight decay and moving averages are single
//     functions, so their bits are the same for all sets.
//  6. NaN passes through ReLU and max-pool, so that it reaches the loss.
//
// Loops run over outputs, so that a vectorised set may keep one chain per lane
// and the same order.
package kernel
