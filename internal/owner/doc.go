// SPDX-License-Identifier: Apache-2.0

// Package owner names processes, so that what one of them has made can later be
// known to be left over. It hides how a process is told from a later one of the
// same number, and from those of other machines and namespaces.
//
// Invariant: a process is called dead only when it is known to be.
package owner
