// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// populate makes the pages of the program itself resident at once. Call by call
// they would become so anyway; done here, the first call takes as much memory as
// the hundredth, and a plan can be exact. Kernels before 5.14 do not know the
// request: then the pages come as they are used.
func populate() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		// "low-high rwxp offset device inode    path": the path may hold spaces.
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+self) ||
			fields[1][0] != 'r' || fields[1][1] == 'w' {
			continue
		}
		low, high, ok := strings.Cut(fields[0], "-")
		from, errFrom := strconv.ParseUint(low, 16, 64)
		to, errTo := strconv.ParseUint(high, 16, 64)
		if !ok || errFrom != nil || errTo != nil || to <= from {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_POPULATE_READ)
	}
}
