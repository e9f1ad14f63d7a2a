// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cli

// forget does nothing: only Linux forgets a file on demand.
func forget(string) (gone bool, err error) { return false, nil }

func reread(string) (lasting bool, err error) { return false, nil }
