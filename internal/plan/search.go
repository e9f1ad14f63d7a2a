// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"disdel/internal/job"
)

// candidate is one way to run a job within the limits. What else is to be chosen
// becomes another field: candidates lists its values, predict and roles know
// what it costs.
type candidate struct {
	containers int // at once
	window     int // records of a shard held at a time; 0 is all of them
	parts      int // windows that a shard is read in

	role   job.Role // that needs most of a container
	need   job.Bytes
	memory job.Bytes // limit of a container

	seconds, gbSeconds float64 // predicted
}

// atOnce is the memory of all containers.
func (c candidate) atOnce() job.Bytes { return job.Bytes(c.containers) * c.memory }

// windowParts are the numbers of windows that a shard is tried in.
var windowParts = []int{1, 2, 3, 4, 6, 8, 12, 16}

// candidates lists every way to run w within the limits and what the user fixed.
// Without any, the error says why the least demanding one does not fit.
func (w work) candidates(spec job.Spec, limits job.Limits) (all []candidate, err error) {
	for _, parts := range windowParts {
		window := w.window(parts)
		if parts > 1 && window == w.window(1) {
			break // shards are too small to be held in parts
		}
		c := candidate{window: window, parts: parts}
		if parts == 1 {
			c.window = 0
		}
		c.role, c.need = largest(w.roles(c.window))
		var short error
		if c.memory, short = memoryFor(c.role, c.need, spec, limits); short != nil {
			err = short
			continue
		}
		most, _ := mostContainers(w.units(), c.memory, spec, limits)
		least := 1
		if spec.Containers > 0 {
			least = most // what the user fixed, as far as it is possible
		}
		for c.containers = least; c.containers <= most; c.containers++ {
			all = append(all, w.predict(c, limits))
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, err
}

// order sorts candidates, the best first: by the objective, then by the others.
// Times are compared in milliseconds, costs in thousandths, so that rounding
// errors decide nothing.
func order(all []candidate, objective job.Objective) {
	thousandths := func(x float64) int64 { return int64(math.Round(min(x*1000, math.MaxInt64/2))) }
	key := func(c candidate) [5]int64 {
		seconds, cost, memory := thousandths(c.seconds), thousandths(c.gbSeconds), int64(c.atOnce())
		k := [5]int64{seconds, cost, memory, int64(c.containers), int64(c.parts)}
		switch objective {
		case job.LeastMemory:
			k[0], k[1], k[2] = memory, seconds, cost
		case job.LeastCost:
			k[0], k[1] = cost, seconds
		case job.LeastTime:
		}
		return k
	}
	slices.SortFunc(all, func(a, b candidate) int {
		x, y := key(a), key(b)
		return slices.Compare(x[:], y[:])
	})
}

// choose returns the best candidate, and sentences that say why: what the memory
// is for, which limit binds, and what the next best would cost.
func (w work) choose(spec job.Spec, limits job.Limits) (best candidate, why []string, err error) {
	all, err := w.candidates(spec, limits)
	if err != nil {
		return candidate{}, nil, err
	}
	objective := cmp.Or(spec.Minimize, job.LeastTime)
	order(all, objective)
	best = all[0]
	why = []string{explainMemory(best, spec, limits)}
	if best.window > 0 {
		why = append(why, fmt.Sprintf("window: %d of the %d records of a shard at a time, for less memory and more reading.", best.window, w.window(1)))
	}
	why = append(why, fmt.Sprintf("containers: %d at once, %s.", best.containers, w.binds(best, spec, limits, objective)),
		fmt.Sprintf("chosen: %v, the least %s.", best, objectiveName(objective)))
	next := slices.IndexFunc(all, func(c candidate) bool { return c.containers != best.containers || c.memory != best.memory })
	if next < 0 {
		return best, append(why, "next best: none within the limits and what is fixed."), nil
	}
	return best, append(why, fmt.Sprintf("next best: %v.", all[next])), nil
}

// String says what a candidate is and what it costs.
func (c candidate) String() string {
	window := ""
	if c.window > 0 {
		window = fmt.Sprintf(", windows of %s", count(c.window, "record"))
	}
	return fmt.Sprintf("%s of %v%s: %.1f s, %v at once, %.2f GB-seconds", count(c.containers, "container"), c.memory, window, c.seconds, c.atOnce(), c.gbSeconds)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func objectiveName(o job.Objective) string {
	switch o {
	case job.LeastMemory:
		return "memory at once"
	case job.LeastCost:
		return "cost"
	default:
		return "time"
	}
}

// binds says what keeps the number of containers from being larger.
func (w work) binds(c candidate, spec job.Spec, limits job.Limits, objective job.Objective) string {
	most, reason := mostContainers(w.units(), c.memory, spec, limits)
	if c.containers == most {
		return cmp.Or(reason, w.unitName())
	}
	switch objective {
	case job.LeastMemory:
		return "since more take more memory"
	case job.LeastCost:
		return "since more do not cost less"
	default:
		return fmt.Sprintf("since more are no faster on %s", count(max(limits.Processors, 1), "processor"))
	}
}

// mostContainers is how many containers of that size there can be at once, at
// most want, and which limit says so, "" where none does.
func mostContainers(want int, memory job.Bytes, spec job.Spec, limits job.Limits) (most int, reason string) {
	most = max(want, 1)
	bound := func(n int, why string) {
		if n > 0 && n < most {
			most, reason = n, why
		}
	}
	if limits.PoolMemory > 0 {
		bound(int(limits.PoolMemory/memory), fmt.Sprintf("the pool's %v holds no more", limits.PoolMemory))
	}
	bound(limits.Concurrency, "the platform runs no more at once")
	bound(spec.Containers, "--containers asks for no more")
	return most, reason
}

// memoryFor is the limit of containers in which role needs most.
func memoryFor(role job.Role, need job.Bytes, spec job.Spec, limits job.Limits) (job.Bytes, error) {
	if spec.Memory > 0 {
		return spec.Memory, fixedMemory(spec.Memory, role, need, limits)
	}
	memory := CeilMemory(max(need, limits.MemoryMin), limits)
	if limits.MemoryMax > 0 && memory > limits.MemoryMax {
		return 0, &Infeasible{"memory", int64(memory), int64(limits.MemoryMax), fmt.Sprintf(
			"%s needs %v of memory, the platform allows %v (short by %v); %s",
			role, memory, limits.MemoryMax, memory-limits.MemoryMax, lessMemory(role))}
	}
	if limits.PoolMemory > 0 && memory > limits.PoolMemory {
		return 0, poolShort(memory, limits)
	}
	return memory, nil
}

func explainMemory(c candidate, spec job.Spec, limits job.Limits) string {
	text := fmt.Sprintf("memory: %s is the largest and needs %v", c.role, c.need)
	switch {
	case spec.Memory > 0:
		text += fmt.Sprintf("; --memory fixes %v", c.memory)
	case c.need < limits.MemoryMin:
		text += fmt.Sprintf("; the platform's smallest action has %v", limits.MemoryMin)
	}
	return text + "."
}
