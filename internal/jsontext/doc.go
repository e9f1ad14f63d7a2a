// SPDX-License-Identifier: Apache-2.0

// Package jsontext reads JSON that people write. It hides how a place in the
// text is found: every error says the line and the column, also those about
// fields that are unknown or appear twice, which encoding/json passes over or
// reports without a place.
//
// It is pure. Texts are expected to be small: callers bound them before.
package jsontext
