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
// Other programs lose nothing: they come sooner, since such a thread interrupts nobody
// when it wakes. Threads that come later have what the one has that makes them. Where a
// kernel refuses, or knows no such request (before Linux 6.12), turns are the usual
// ones.
func longTurns() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
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
		_ = unix.SchedSetAttr(id, attr, 0)
	}
}
