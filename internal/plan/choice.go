// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"

	"disdel/internal/job"
)

const (
	// maxThreads is the most threads that a container is granted unasked. Each takes
	// memory, and steps of common sizes are too short to be shared among many more.
	maxThreads = 16
	// threadGain is how much of a thread's rate each further thread adds.
	threadGain = 0.8
)

// choice is what the planner tries out: threads of a container, and the most
// records of a training step that are computed at once, 0 where a step cannot be
// cut.
type choice struct{ threads, micro int }

// choose finds the choice that fits. One thread is enough unless there are fewer
// containers than processors: then each gets the processors that would have nothing
// to do, as far as memory allows. Steps are computed whole, and in pieces only if
// nothing else fits; batch is the records of a step, 0 where it cannot be cut.
func choose(spec job.Spec, limits job.Limits, batch int, try func(choice) (job.Resources, error)) (job.Resources, error) {
	r, err := cut(batch, max(spec.Threads, 1), try)
	if err != nil {
		return r, err
	}
	explain := func(format string, args ...any) { r.Explanation = append(r.Explanation, fmt.Sprintf(format, args...)) }
	share := min(limits.Processors/r.Containers, maxThreads)
	switch {
	case spec.Threads > 0 && limits.Processors > 0 && spec.Threads*r.Containers > limits.Processors:
		explain("threads: %d in each container, as --threads asks; together more than the %d processors, so slower than fewer.",
			spec.Threads, limits.Processors)
	case spec.Threads > 0:
		explain("threads: %d in each container, as --threads asks.", spec.Threads)
	case share > 1:
		more, err := cut(batch, share, try)
		if err != nil || more.Containers != r.Containers || more.MicroBatch != r.MicroBatch {
			explain("threads: one in each container; there is no memory for %d.", share)
			break
		}
		r = more
		explain("threads: %d in each container, since there are fewer containers than the %d processors.", share, limits.Processors)
	}
	if r.MicroBatch < batch {
		explain("micro-batch: steps of %d records are computed %d at a time, which is as much as memory allows.", batch, r.MicroBatch)
	}
	// Threads that wait in loops take a processor from whoever else needs it.
	r.Spin = r.Threads > 1 && r.Threads*r.Containers <= limits.Processors
	return r, nil
}

// cut tries whole steps, and then ever smaller pieces of them, until one fits.
func cut(batch, threads int, try func(choice) (job.Resources, error)) (job.Resources, error) {
	c := choice{threads: threads, micro: batch}
	r, err := try(c)
	for c.micro > 1 && shortOfMemory(err) {
		c.micro = pieceBelow(c.micro)
		r, err = try(c)
	}
	return r, err
}

func shortOfMemory(err error) bool {
	var short *Infeasible
	return errors.As(err, &short) && (short.Limit == limitMemory || short.Limit == limitPool)
}

// pieceBelow returns the largest power of two below n, which is more than 1.
func pieceBelow(n int) int {
	p := 1
	for 2*p < n {
		p *= 2
	}
	return p
}

// speedup is how many times as fast as one thread those of a container are, while
// all containers compute.
func speedup(threads, containers int, limits job.Limits) float64 {
	own := max(1, min(threads, limits.Processors/containers))
	return 1 + threadGain*float64(own-1)
}
