// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"disdel/internal/job"
)

// ResidentPeak is the high-water mark of this process's resident memory.
func ResidentPeak() (job.Bytes, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("own memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("own memory: %w", err)
			}
			return job.Bytes(kilobytes) * job.KB, nil
		}
	}
	return 0, errors.New("own memory: /proc/self/status has no VmHWM")
}
