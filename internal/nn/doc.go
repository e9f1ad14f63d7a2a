// SPDX-License-Identifier: Apache-2.0

// Package nn is the training engine: it turns a model and a batch size into a
// static program over one block of memory, says how many bytes that is before
// any is allocated, and runs it without allocating. It hides how layers are
// fused, where values lie in memory and in which order arithmetic happens.
//
// Words: a [Spec] describes a model; [Compile] makes a [Program] of it, a list
// of stages; [Program.Sizes] says what it needs; [Program.Bind] lays it over an
// [Arena] and makes an [Instance], which trains and predicts. A parameter is one
// value of the model; all lie in one flat vector in the order of [Spec.Params]:
// first what is learned by gradients, then the state, which is the moving
// statistics of batch normalisations. So weights and state are stored, averaged
// and loaded as one, while gradients and moments end where the state starts.
//
// Layouts: activations are [record, row, column, channel]; weights of a
// convolution [row, column, channel in, filter], of a dense layer [in, unit].
// They are those of Keras, and let kernels run over outputs that are neighbours.
//
// # Memory
//
// The arena holds, in this order: weights; first moments, second moments,
// gradients of the parameters (these three for training only); activations;
// workspace. Unless gradients are to be kept, or needed as a whole, each is used by the
// optimizer as soon as it is made, and there is room for those of one stage only; of
// a dense layer's weights, for some rows. A convolution is computed together with the ReLU and max-pool that
// follow it, row by row, so its full output exists nowhere; of a maximum one
// byte tells the place. The gradient of a value overwrites the value: the stage
// that consumed the value needs it last, for the gradient of its weights and to
// know where a ReLU was open. So training needs no memory for gradients of
// activations. Without training, values whose lives do not meet share bytes.
//
// A batch normalisation is computed with the ReLU and max-pool that follow it,
// after a pass over the whole convolution before it, which it keeps: its own
// gradient needs the values before normalisation. Outside training it works in
// place. With Config.Remake what it gives is made again where the backward pass needs
// it, not kept. Dropout works in place too, and makes its mask again for the backward
// pass. An add works in place on what it adds to; what an earlier layer made is
// kept for it, and copied only where something would overwrite it.
//
// A first convolution and a dense layer right after it are one stage, which is
// computed by ranges of pixels, of all records: a thread does a range's convolution
// and its part of the dense layer's sums; backward, the gradients and updates of the
// range's weights, the gradient of its pixels, and of the convolution. So weights,
// moments and activations stay in one core's cache. Such a stage reads images as the
// bytes that they are.
//
// # Invariants
//
//  1. An instance touches exactly Sizes().Total bytes, and what they held before
//     Init does not show.
//  2. Step, Evaluate and Predict allocate nothing.
//  3. Equal specs, configurations, weights, moments, records and step numbers
//     give equal bits, for one kernel set, on every platform. Arithmetic that is
//     not in the set (loss, initial values, normalisation, optimizers other
//     than Adam) is the same for all sets.
//  4. A gradient is a sum over records in their order, continued from what is
//     there: it does not depend on how records are cut into parts. What dropout
//     drops does not either. Batch normalisation is the exception: its
//     statistics are those of the whole batch, so its steps are not cut.
//  5. A step that fails leaves weights and moments as they were; but if its loss is
//     finite and a gradient is not, and gradients are used as they are made, they are
//     undefined.
//
// Everything is called from one goroutine per instance. Programs are immutable
// and shared freely. The planner uses Compile and Sizes only.
package nn
