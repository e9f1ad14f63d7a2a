// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
)

// pageRange is memory from an address to another.
type pageRange struct{ from, to uintptr }

// programPages are where this program's own file is mapped and only read, and nothing
// was written before: a loader relocates read-only data of some programs, and what it
// wrote is in no file.
var programPages = sync.OnceValue(func() (all []pageRange) {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	own := false // the last of all is the mapping whose lines these are
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		if rest, found := bytes.CutPrefix(lines.Bytes(), []byte("Anonymous:")); found {
			if own && string(bytes.TrimSpace(rest)) != "0 kB" {
				all = all[:len(all)-1]
			}
			own = false
			continue
		}
		if !bytes.HasSuffix(lines.Bytes(), []byte(self)) {
			continue
		}
		// "low-high rwxp offset device inode    path": the path may hold spaces.
		line := lines.Text()
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(line, " "+self) || fields[1][0] != 'r' || fields[1][1] == 'w' {
			continue
		}
		low, high, ok := strings.Cut(fields[0], "-")
		from, errFrom := strconv.ParseUint(low, 16, 64)
		to, errTo := strconv.ParseUint(high, 16, 64)
		if ok && errFrom == nil && errTo == nil && to > from {
			all, own = append(all, pageRange{uintptr(from), uintptr(to)}), true
		}
	}
	return all
})

// shed takes the program's own pages out of what is resident. Most of them were
// needed once, to start and to understand the call; those that are needed again come
// back one fault later, from the kernel's cache of the file.
func shed() {
	for _, r := range programPages() {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED)
	}
}

// resident is what is resident now, as the page tables have it; 0 if unknown.
func resident() job.Bytes {
	now, err := kilobytes("/proc/self/smaps_rollup", "Rss:")
	if err != nil {
		return 0
	}
	return now
}
