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
func ResidentPeak() (job.Bytes, error) { return residentPeak("/proc/self/status") }

// resetPeak makes the mark start again from what is resident now. Where that is
// not possible it stays that of all calls, which is no less true.
func resetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func residentPeak(path string) (job.Bytes, error) { return kilobytes(path, "VmHWM:") }

// kilobytes reads the amount in a line "name   number kB" of a file of the kernel.
func kilobytes(path, name string) (job.Bytes, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("resident memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("resident memory: %w", err)
			}
			return job.Bytes(n) * job.KB, nil
		}
	}
	return 0, errors.New("resident memory: " + path + " has no " + strings.TrimSuffix(name, ":"))
}
