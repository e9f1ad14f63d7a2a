// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// turn is how long the kernel is asked to let a thread compute before another one has
// the processor: as long as it lets anybody (sched(7), sched_setattr(2)).
const turn = 100 * time.Millisecond

// longTurns asks for long turns on a processor that others want too. A step reads and
// writes all weights and moments; where more workers than processors take turns of the
// usual three milliseconds, each finds the caches full of the others' at every step.
// Programs that sleep come sooner, since such a thread interrupts nobody when it wakes;
// those that always compute take turns as long. Where a kernel refuses, nothing changes;
// before Linux 6.12 threads become batch work with the usual turns.
func longTurns() {
	// Threads that come later have what the one has that makes them, which may be one
	// that a walk has not come to.
	for walk := 0; walk < mostWalks && lengthenTurns(); walk++ {
	}
}

// mostWalks bounds how often all threads are looked at.
const mostWalks = 10

// lengthenTurns asks for all threads that there are, and reports whether any had
// usual turns and has long ones now.
func lengthenTurns() (changed bool) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil || attr.Policy != unix.SCHED_NORMAL {
			continue
		}
		attr.Policy, attr.Runtime = unix.SCHED_BATCH, uint64(turn)
		changed = unix.SchedSetAttr(id, attr, 0) == nil || changed
	}
	return changed
}
