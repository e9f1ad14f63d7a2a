// SPDX-License-Identifier: Apache-2.0

package nn

// alignment of every buffer in the arena, in bytes: a cache line, and the width
// of the widest vector.
const alignment = 64
