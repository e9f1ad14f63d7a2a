// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"time"

	"disdel/internal/job"
)

// Config is what the pool allows and how long it keeps what is idle. A zero
// field gets its default.
type Config struct {
	// MemoryMin and MemoryMax bound an action's memory limit; MemoryDefault is
	// what an action gets that asks for none. Defaults 128, 512 and 256 MB, or
	// what fits between the two others and into PoolMemory.
	MemoryMin, MemoryMax, MemoryDefault job.Bytes
	// PoolMemory is the most that the limits of all containers may add up to, at
	// least MemoryMax. Default 2048 MB, or MemoryMax when that is more.
	PoolMemory job.Bytes
	// TimeoutMin and TimeoutMax bound an action's time limit, TimeoutDefault is
	// what an action gets that asks for none. Defaults 100 ms, 5 min, 60 s.
	TimeoutMin, TimeoutMax, TimeoutDefault time.Duration
	// StartTimeout bounds the start of a container, /init not included. Default
	// 60 s.
	StartTimeout time.Duration
	// CloseTimeout bounds how long Close waits for containers to end. Default 30 s.
	CloseTimeout time.Duration
	// PauseGrace is how long an idle container stays ready to run before it is
	// paused, where the driver can do that. Default 10 s; negative: never.
	PauseGrace time.Duration
	// IdleTimeout is how long an idle container is kept. It holds its memory in
	// the books, but a call that needs that memory takes it at once. Default
	// 10 min.
	IdleTimeout time.Duration
	// Concurrency is the most calls in flight, queued ones included; a further
	// Invoke is throttled. Default 1000.
	Concurrency int
	// PayloadMax bounds a call's parameters and a result, each. Default 1 MB.
	PayloadMax job.Bytes
	// RecordMax and RecordBytesMax bound the outcomes that are kept for Await
	// and Logs: beyond either the oldest are forgotten before their package is
	// removed. Defaults 10000 outcomes and 256 MB.
	RecordMax      int
	RecordBytesMax job.Bytes
	// StemCells are containers that are kept started, without an action yet. A
	// call gets one of exactly its image and memory, and another is started when
	// no call waits and there is room. A call that needs their memory takes it
	// when all other idle containers do not suffice. Default none.
	StemCells []StemCell
}

// StemCell says which containers to keep started.
type StemCell struct {
	Image  string
	Memory job.Bytes
	Count  int
}

// withDefaults returns c with every zero field filled in.
func (c Config) withDefaults() Config {
	setDefault(&c.MemoryMin, 128*job.MB)
	largest := 512 * job.MB
	if c.PoolMemory > 0 {
		largest = min(largest, c.PoolMemory/memoryStep*memoryStep)
	}
	setDefault(&c.MemoryMax, max(largest, c.MemoryMin, c.MemoryDefault))
	setDefault(&c.MemoryDefault, min(max(256*job.MB, c.MemoryMin), c.MemoryMax))
	setDefault(&c.PoolMemory, max(2048*job.MB, c.MemoryMax))
	setDefault(&c.TimeoutMin, 100*time.Millisecond)
	setDefault(&c.TimeoutMax, max(5*time.Minute, c.TimeoutMin, c.TimeoutDefault))
	setDefault(&c.TimeoutDefault, min(max(time.Minute, c.TimeoutMin), c.TimeoutMax))
	setDefault(&c.StartTimeout, time.Minute)
	setDefault(&c.CloseTimeout, 30*time.Second)
	setDefault(&c.PauseGrace, 10*time.Second)
	setDefault(&c.IdleTimeout, 10*time.Minute)
	setDefault(&c.Concurrency, 1000)
	setDefault(&c.PayloadMax, job.MB)
	setDefault(&c.RecordMax, 10000)
	setDefault(&c.RecordBytesMax, 256*job.MB)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks a configuration whose defaults are filled in and reports
// everything that is wrong with it.
func (c Config) validate() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(c.MemoryMin > 0, "minimum memory %v: want more than 0", c.MemoryMin)
	want(c.MemoryMax >= c.MemoryMin, "maximum memory %v is below the minimum memory %v", c.MemoryMax, c.MemoryMin)
	want(c.MemoryDefault >= c.MemoryMin && c.MemoryDefault <= c.MemoryMax,
		"default memory %v is outside %v to %v", c.MemoryDefault, c.MemoryMin, c.MemoryMax)
	for _, memory := range []job.Bytes{c.MemoryMin, c.MemoryMax, c.MemoryDefault} {
		want(memory%memoryStep == 0, "memory %d bytes is no multiple of %v", memory, memoryStep)
	}
	want(c.PoolMemory >= c.MemoryMax, "pool memory %v is below the maximum memory %v of one action: raise it, or lower the maximum",
		c.PoolMemory, c.MemoryMax)
	want(c.TimeoutMin > 0, "minimum timeout %v: want more than 0", c.TimeoutMin)
	want(c.TimeoutMax >= c.TimeoutMin, "maximum timeout %v is below the minimum timeout %v", c.TimeoutMax, c.TimeoutMin)
	want(c.TimeoutDefault >= c.TimeoutMin && c.TimeoutDefault <= c.TimeoutMax,
		"default timeout %v is outside %v to %v", c.TimeoutDefault, c.TimeoutMin, c.TimeoutMax)
	want(c.StartTimeout > 0, "start timeout %v: want more than 0", c.StartTimeout)
	want(c.CloseTimeout > 0, "close timeout %v: want more than 0", c.CloseTimeout)
	want(c.IdleTimeout > 0, "idle timeout %v: want more than 0", c.IdleTimeout)
	want(c.Concurrency > 0, "concurrency %d: want more than 0", c.Concurrency)
	want(c.PayloadMax > 0, "maximum payload %v: want more than 0", c.PayloadMax)
	want(c.RecordMax > 0, "maximum number of kept outcomes %d: want more than 0", c.RecordMax)
	for _, cell := range c.StemCells {
		want(cell.Count > 0 && cell.Memory > 0 && cell.Memory%memoryStep == 0 && cell.Memory <= c.PoolMemory,
			"stem cells: %d of %v: want at least one, of a multiple of %v and at most the pool's memory", cell.Count, cell.Memory, memoryStep)
	}
	want(c.RecordBytesMax > 0, "maximum size of kept outcomes %v: want more than 0", c.RecordBytesMax)
	return errors.Join(errs...)
}

// memoryStep is the granularity of memory limits, OpenWhisk's.
const memoryStep = job.MB
