// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The kinds of enforcement, as Config.Enforcement and platform.Limits name
// them; tried in this order.
const (
	CgroupV2     = "cgroup v2"
	CgroupV1     = "cgroup v1"
	SystemdScope = "systemd scope"
	Watched      = "watched"
)

var enforcements = []string{CgroupV2, CgroupV1, SystemdScope, Watched}

// Config says what a container is.
type Config struct {
	// Command is the worker's path and arguments. The path is absolute or
	// relative to Dir; it is not searched for.
	Command []string
	// Env is the worker's whole environment, as "KEY=value"; nothing is
	// inherited. DISDEL_WORKER_FD is added. Any user of the machine who may look
	// at the process sees it: credentials belong into platform.Package.Init.
	Env []string
	// Dir is the worker's working directory. Default "/".
	Dir string
	// Enforcement is how memory limits are enforced. Default "": the first kind
	// that works here. A kind that is named and does not work is an error.
	Enforcement string
	// WatchInterval is how often resident memory is sampled where the limit is
	// watched. A worker can exceed its limit for that long. Default 5 ms.
	WatchInterval time.Duration
	// LogLines is how many lines of output are kept of each container, each cut
	// at 1 KB. Default 100.
	LogLines int
}

func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = "/"
	}
	if c.WatchInterval == 0 {
		c.WatchInterval = 5 * time.Millisecond
	}
	if c.LogLines == 0 {
		c.LogLines = 100
	}
	return c
}

func (c Config) validate() error {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return errors.New("no command: give the path of the worker program")
	}
	if c.Enforcement != "" && !slices.Contains(enforcements, c.Enforcement) {
		return fmt.Errorf("enforcement %q is unknown: want one of %q, or nothing for the first that works", c.Enforcement, enforcements)
	}
	if c.WatchInterval < 0 {
		return fmt.Errorf("watch interval %v: want more than 0", c.WatchInterval)
	}
	if c.LogLines < 0 {
		return fmt.Errorf("log lines %d: want more than 0", c.LogLines)
	}
	for _, variable := range c.Env {
		name, _, ok := strings.Cut(variable, "=")
		if !ok || name == "" || strings.ContainsRune(variable, 0) {
			return fmt.Errorf("environment variable %q: want NAME=value", name)
		}
		if name == fdVariable || name == ownerVariable {
			return fmt.Errorf("environment variable %s is set by the driver: leave it out", name)
		}
	}
	return nil
}

const (
	// fdVariable tells the child the number of its socket.
	fdVariable = "DISDEL_WORKER_FD"
	// ownerVariable marks workers with their owner and a text of their own, so
	// that what outlived either can be found.
	ownerVariable = "DISDEL_WORKER_OWNER"
)
