// SPDX-License-Identifier: Apache-2.0

// Package nn is the training engine.
package nn
