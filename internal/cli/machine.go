// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

const (
	// machineTime is all the time that a single worker has for one invocation. It
	// bounds what nobody stops.
	machineTime = 30 * 24 * time.Hour
	// machineProbe is the size of the container in which a worker is measured for a
	// machine that has no smallest action.
	machineProbe = 128 * job.MB
)

// machinePool is the platform of a single worker: this machine, without a
// platform's limits on memory and time. What the user limits stays.
func machinePool(cfg pool.Config, total job.Bytes) pool.Config {
	largest := total / job.MB * job.MB
	if cfg.PoolMemory > 0 {
		largest = min(largest, cfg.PoolMemory/job.MB*job.MB)
	}
	if cfg.MemoryMax == 0 {
		cfg.MemoryMax = largest
	}
	if cfg.MemoryMin == 0 {
		cfg.MemoryMin = min(job.MB, cfg.MemoryMax)
	}
	if cfg.PoolMemory == 0 {
		cfg.PoolMemory = max(largest, cfg.MemoryMax)
	}
	if cfg.MemoryDefault == 0 {
		cfg.MemoryDefault = max(min(machineProbe, cfg.MemoryMax), cfg.MemoryMin)
	}
	if cfg.TimeoutMax == 0 {
		cfg.TimeoutMax = machineTime
	}
	return cfg
}

// machineMemory is the memory of this machine.
func machineMemory() (job.Bytes, error) {
	const path = "/proc/meminfo"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("memory of this machine: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil || kilobytes <= 0 {
				return 0, fmt.Errorf("memory of this machine: %s says %q", path, strings.TrimSpace(line))
			}
			return job.Bytes(kilobytes) * job.KB, nil
		}
	}
	return 0, fmt.Errorf("memory of this machine: %s does not say", path)
}
