// SPDX-License-Identifier: Apache-2.0

// Package kernel holds the hot loops of the engine.
package kernel
