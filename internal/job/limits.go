// SPDX-License-Identifier: Apache-2.0

package job

import "time"

// Limits is what a platform allows. A zero field means "no such limit" unless
// it says otherwise.
type Limits struct {
	// MemoryMin, MemoryMax and MemoryStep bound an action's memory; the memory
	// is a multiple of MemoryStep (0 counts as 1 MB).
	MemoryMin  Bytes `json:"memory_min_bytes"`
	MemoryMax  Bytes `json:"memory_max_bytes"`
	MemoryStep Bytes `json:"memory_step_bytes"`
	// MemoryDefault is what an action gets when nobody asks (never 0).
	MemoryDefault Bytes `json:"memory_default_bytes"`
	// TimeoutMin and TimeoutMax bound an action's time limit for one call;
	// TimeoutDefault is never 0.
	TimeoutMin     time.Duration `json:"timeout_min_ns"`
	TimeoutMax     time.Duration `json:"timeout_max_ns"`
	TimeoutDefault time.Duration `json:"timeout_default_ns"`
	// PoolMemory is the sum of memory limits of all containers at once.
	PoolMemory Bytes `json:"pool_memory_bytes"`
	// Concurrency is the most activations in flight, queued ones included.
	Concurrency int `json:"concurrency"`
	// CallsPerMinute is the most Invoke calls in one wall-clock minute.
	CallsPerMinute int `json:"calls_per_minute"`
	// PayloadMax bounds a call's parameters and a result, each.
	PayloadMax Bytes `json:"payload_max_bytes"`
	// Processors is the number of cores that all containers share (never 0).
	Processors int `json:"processors"`
	// Assumed says that Processors is a guess: containers are granted no threads
	// for it.
	Assumed bool `json:"processors_assumed,omitempty"`
	// NoCancel says that a call that was started runs to its end or its time
	// limit, whatever is cancelled or removed.
	NoCancel bool `json:"no_cancel,omitempty"`
	// LocalFiles says that containers see this machine's file system, so that
	// a folder store can serve them.
	LocalFiles bool `json:"local_files"`
	// Enforcement says who enforces the memory limit: "cgroup v2", "cgroup v1",
	// "systemd scope", "docker", "pod", "openwhisk", or "watched" where no kernel limit could
	// be set and a resident-memory watch kills instead.
	Enforcement string `json:"enforcement"`
}
