// SPDX-License-Identifier: Apache-2.0

// Package image makes the container image of the worker, without a container
// engine. It hides formats of images and the protocol of registries.
//
// The image is FROM scratch: one layer with one file, the worker; a user that is
// not root; no time, no name of a machine. The same worker gives the same bytes.
// It has no certificates of authorities: a worker that must verify a store's
// certificate needs an image of its own.
//
// Functions may be called from any goroutine.
package image
