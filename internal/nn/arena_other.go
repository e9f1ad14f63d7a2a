// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package nn

import "unsafe"

// mapBytes falls back to the Go heap: right, but counted by the collector.
func mapBytes(n int) ([]byte, func() error, error) {
	b := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (alignment - 1)
	return b[skip : skip+n], func() error { return nil }, nil
}
