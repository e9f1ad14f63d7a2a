// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cli

import (
	"os/exec"
	"runtime"
)

// allowedProcessors are numbered from 0; which of them this program may use is not
// known here.
func allowedProcessors() (all []int) {
	for i := range runtime.NumCPU() {
		all = append(all, i)
	}
	return all
}

// startOn starts a process; it cannot be pinned here.
func startOn(cmd *exec.Cmd, _ []int) error { return cmd.Start() }
