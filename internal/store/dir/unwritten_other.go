// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dir

import "os"

// pushOut does nothing: only Linux tells a part of a file to go.
func pushOut(*os.File, int64, int64, int64) error { return nil }
