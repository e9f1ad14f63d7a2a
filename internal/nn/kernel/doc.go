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
//     kernel column and channel in, or the inputs, in order, without what pads an
//     input; a gradient of a
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
//  5. A set is these and no more: the loss, pooling, additions, batch normalisation,
//     stochastic gradient descent, weight decay and moving averages are single
//     functions, so their bits are the same for all sets.
//  6. NaN passes through ReLU and max-pool, so that it reaches the loss.
//
// Loops run over outputs, so that a vectorised set may keep one chain per lane
// and the same order. So does the NEON assembly of this set for arm64, which does
// products of matrices: multiplications and additions, with denormal numbers, as
// rules 1 and 3 want.
//
// # Arithmetic of fma-1
//
// fma-1 is the set of processors with fused multiply-add. It is an order of sums
// and a rounding rule, not a width of vectors: lanes lie over outputs, so AVX2
// and AVX-512 assembly and plain Go (FMAReference) give the same
// bits, on any number of threads, which share out nothing but outputs and the
// segments below.
//
//  1. The operations are fused multiply-add, addition, subtraction,
//     multiplication, division and square root of float32, each rounded once, to
//     nearest even. An operand below 2^-126 counts as a zero of its sign. A result
//     that is below 2^-126 when rounded to 24 bits as if the exponent had no lower
//     bound is a zero of its sign. This is what MXCSR's FTZ and DAZ do; round.go is
//     the same in plain Go. Each entry of the set is a phase of its own: on each of
//     its threads MXCSR is set at its start and restored at its end, so what runs
//     between kernels knows nothing of it.
//  2. A chain is s = fma(a, b, s) for one product after the other, s kept in
//     float32 in between, so it may be cut and continued anywhere.
//  3. Convolution forward: one chain for each output, from the bias, over kernel
//     row, kernel column, channel in. What pads an input is +0 and counts like any
//     other value, here and in 7. Then the maximum, the first of equals, then ReLU.
//  4. Dense forward: the inputs are four groups, each one chain from +0 over its
//     inputs; the groups' sums are added in order, ((g0+g1)+g2)+g3, then the bias,
//     then ReLU. Where the input is a flattened map of Rows x Cols pixels, its rows
//     are cut in halves (the first of Cols/2 pixels, rounded down), and group i
//     starts with half 2*Rows*i/4, rounded down. Else all is one group. Groups
//     without inputs are left out. So what follows from a range of an earlier
//     convolution's pooled pixels can be summed with it, without changing a bit.
//  5. Dense, gradient of the weights: one chain each, from +0 (or what an earlier
//     part of the batch left) over records. Of the bias: additions, the same order.
//  6. Dense, gradient of the input: one chain from +0 over the units.
//  7. Convolution, gradients of the weights and the bias: the output's rows, cut in
//     halves as above, are S segments of neighbouring halves: S is the smaller of
//     2*rows and 2^15 / ((K*K*C+1)*F), but one at least, and segment i starts with
//     half 2*rows*i/S, all rounded down. For every weight each segment has one
//     chain from +0, over records and inside a record over the segment's pixels,
//     row by row: of a pooled pixel the product of its gradient and the value that
//     met the weight at its maximum. The bias adds gradients in that order. When
//     the batch is complete, segments are added in order. The partial sums are
//     kept between parts of a batch. So a range of pixels can be worked through for
//     all records before the next one, and parts of a batch may come one by one.
//  8. Convolution, gradient of the input: one chain from +0 over outputs (after
//     pooling) row by row, and at each over filters. Without a pool all windows that
//     meet the value count, +0 being the gradient of those that are not outputs; else
//     terms whose gradient is zero are left out.
//  9. Terms whose gradient is zero are also left out of 7 where an output is pooled,
//     unless the window is 3x3, the stride one, the pool 2x2 and the filters are a
//     multiple of eight. For finite values that shows in the sign of a zero at most.
//  10. Adam: m = fma(g-m, 1-beta1, m); v = fma(fma(g, g, -v), 1-beta2, v);
//     w = w - m*alpha / (sqrt(v)+epsilon).
//  11. ReLU makes +0 of what is not positive; gradients that a closed ReLU stops are
//     +0. NaN passes through ReLU and max-pool; its place in the window, and which
//     NaN it is, is not defined.
package kernel
