// SPDX-License-Identifier: Apache-2.0

// Package safetensors reads and writes weights in the safetensors format, as a
// stream.
package safetensors
