// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxProcessors is how many processors can be told apart.
const maxProcessors = 1024

// allowedProcessors are those that this program may use.
func allowedProcessors() (all []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		for i := range maxProcessors {
			if set.IsSet(i) {
				all = append(all, i)
			}
		}
	}
	if len(all) == 0 {
		all = append(all, 0)
	}
	return all
}

// startOn starts a process that may use these processors only; none are all. A
// process has those of the thread that starts it.
func startOn(cmd *exec.Cmd, processors []int) (err error) {
	if len(processors) == 0 {
		return cmd.Start()
	}
	var before, set unix.CPUSet
	for _, p := range processors {
		set.Set(p)
	}
	runtime.LockOSThread()
	err = unix.SchedGetaffinity(0, &before)
	if err == nil {
		err = unix.SchedSetaffinity(0, &set)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("pin to processors %v: %w", processors, err)
	}
	err = cmd.Start()
	// A thread that stays pinned is not given back: it ends with its goroutine.
	if unix.SchedSetaffinity(0, &before) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
