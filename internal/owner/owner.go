// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Process says which process: on which machine, since which boot, in which
// namespace of processes, its number and when it started. The zero value is
// nobody.
type Process struct {
	machine, boot, namespace string
	pid                      int
	start                    string
}

// String is what Parse reads. It holds no spaces.
func (o Process) String() string {
	return strings.Join([]string{o.machine, o.boot, o.namespace, strconv.Itoa(o.pid), o.start}, ",")
}

// Parse reads what String wrote; anything else is nobody.
func Parse(text string) Process {
	parts := strings.Split(text, ",")
	if len(parts) != 5 {
		return Process{}
	}
	pid, err := strconv.Atoi(parts[3])
	if err != nil || pid <= 0 {
		return Process{}
	}
	return Process{machine: parts[0], boot: parts[1], namespace: parts[2], pid: pid, start: parts[4]}
}

// Self is this process. It fails where the system tells too little.
func Self() (Process, error) {
	o := Process{pid: os.Getpid()}
	var err error
	if o.start, err = startOf(o.pid); err != nil {
		return o, fmt.Errorf("own process: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return o, fmt.Errorf("own machine: %w", err)
	}
	if o.namespace, err = os.Readlink("/proc/self/ns/pid"); err != nil {
		return o, fmt.Errorf("own process: %w", err)
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, fmt.Errorf("own machine: %w", err)
	}
	o.machine, o.boot = strings.TrimSpace(string(machine)), strings.TrimSpace(string(boot))
	return o, nil
}

// startOf is when a process started, in ticks since boot.
func startOf(pid int) (string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The second field is the name in brackets, which may contain anything; the
	// start is field 22.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return "", errors.New("unknown form of /proc/PID/stat")
	}
	return fields[19], nil
}

// Dead reports whether a process is known not to live any more. Of other
// machines and namespaces nothing is known.
func (o Process) Dead() bool {
	me, err := Self()
	if err != nil || o.pid == 0 || o.machine != me.machine {
		return false
	}
	if o.boot != me.boot {
		return o.machine != "" // this machine, before it was started anew
	}
	if o.namespace != me.namespace {
		return false
	}
	start, err := startOf(o.pid)
	return errors.Is(err, fs.ErrNotExist) || err == nil && start != o.start
}
