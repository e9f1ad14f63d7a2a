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
	shape
	containers int // at once
	parts      int // windows that a shard is read in

	role   job.Role // that needs most of a container
	need   job.Bytes
	memory job.Bytes // limit of a container

	pace
	seconds, gbSeconds float64 // predicted
	calls, wait        float64 // predicted too: how many, and seconds that they wait for the platform's limit a minute
}

// atOnce is the memory of all containers.
func (c candidate) atOnce() job.Bytes { return job.Bytes(c.containers) * c.memory }

// spins says whether threads may wait in loops, which takes a processor from
// whoever else needs it.
func (c candidate) spins(limits job.Limits) bool {
	return c.threads > 1 && c.threads*c.containers <= limits.Processors
}

// spanRounds is how many rounds an invocation goes through at most.
func (c candidate) spanRounds(w *work) int {
	switch {
	case w.numerics == nil:
		return 0
	case c.span:
		return w.numerics.Rounds()
	default:
		return 1
	}
}

// windowParts are the numbers of windows that a shard is tried in.
var windowParts = []int{1, 2, 3, 4, 6, 8, 12, 16}

// parts are those of windowParts that make a difference.
func (w *work) parts() []int {
	for i, parts := range windowParts {
		if i > 0 && w.window(parts) == w.window(windowParts[i-1]) {
			return windowParts[:i]
		}
	}
	return windowParts
}

// made are the ways to take a step with less memory, the first the usual one: in pieces,
// or where there are batch normalisations, made again.
func (w *work) made() (all []choice) {
	for _, n := range micros(w.cut) {
		all = append(all, choice{micro: n})
	}
	if w.numerics != nil && w.fixed == nil && w.model.spec.Remakes() {
		all = append(all, choice{micro: w.cut, remake: true})
	}
	return all
}

// spans reports whether so many containers hold all replicas at once, which is
// what it takes to go through several rounds in an invocation.
func (w *work) spans(containers int) []bool {
	if w.numerics != nil && w.numerics.Rounds() > 1 && w.budget > 0 && containers >= w.numerics.Replicas {
		return []bool{true, false}
	}
	return []bool{false}
}

// sized is a shape's largest role and the memory of a container.
type sized struct {
	role         job.Role
	need, memory job.Bytes
	short        error // why it does not fit
}

// candidates lists every way to run w within the limits and what the user fixed.
// Without any, the error says why the least demanding one does not fit.
func (w *work) candidates(spec job.Spec, limits job.Limits) (all []candidate, err error) {
	sizes := map[shape]sized{}
	size := func(s shape) (sized, error) {
		found, ok := sizes[s]
		if ok {
			return found, nil
		}
		roles, err := w.roles(s)
		if err != nil {
			return sized{}, err
		}
		found.role, found.need = largest(roles)
		found.memory, found.short = memoryFor(found.role, found.need, s.micro, spec, limits)
		sizes[s] = found
		return found, nil
	}
	var least sized // of those that do not fit
	try := func(c candidate) error {
		s, err := size(c.shape)
		switch {
		case err != nil:
			return err
		case s.short != nil:
			if least.short == nil || s.need < least.need {
				least = s
			}
			return nil
		}
		most, _ := mostContainers(w.units(), s.memory, spec, limits)
		if c.containers > most || spec.Containers > 0 && c.containers < most {
			return nil // what the user fixed is so, as far as it is possible
		}
		c.role, c.need, c.memory = s.role, s.need, s.memory
		all = append(all, w.predict(c, limits))
		return nil
	}
	for containers := range w.units() {
		c := candidate{containers: containers + 1}
		for _, c.threads = range threadsFor(spec, limits, c.containers) {
			for _, c.span = range w.spans(c.containers) {
				for _, made := range w.made() {
					c.micro, c.remake = made.micro, made.remake
					for _, c.parts = range w.parts() {
						if c.window = 0; c.parts > 1 {
							c.window = w.window(c.parts)
						}
						if err := try(c); err != nil {
							return nil, err
						}
					}
				}
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, least.short
}

// order sorts candidates, the best first: by the objective, then by the others.
// Times are compared in milliseconds, costs in thousandths, so that rounding
// errors decide nothing.
func order(all []candidate, objective job.Objective) {
	thousandths := func(x float64) int64 { return int64(math.Round(min(x*1000, math.MaxInt64/2))) }
	key := func(c candidate) [7]int64 {
		seconds, cost, memory := thousandths(c.seconds), thousandths(c.gbSeconds), int64(c.atOnce())
		k := [7]int64{seconds, cost, memory, int64(c.containers), int64(c.parts), int64(-c.micro), int64(c.threads)}
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
func (w *work) choose(spec job.Spec, limits job.Limits) (best candidate, why []string, err error) {
	all, err := w.candidates(spec, limits)
	if err != nil {
		return candidate{}, nil, err
	}
	objective := cmp.Or(spec.Minimize, job.LeastTime)
	order(all, objective)
	best = all[0]
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	why = []string{explainMemory(best, spec, limits)}
	say("containers: %d at once, %s.", best.containers, w.binds(best, spec, limits, objective))
	w.explainRest(best, all, spec, limits, say)
	say("chosen: %v, the least %s.", best, objectiveName(objective))
	// Another number or size of containers; the rest differs by little.
	next := slices.IndexFunc(all, func(c candidate) bool { return c.containers != best.containers || c.memory != best.memory })
	if next < 0 {
		say("next best: none within the limits and what is fixed.")
	} else {
		say("next best: %v.", all[next])
	}
	return best, why, nil
}

// explainRest says what else was chosen, where there was a choice.
func (w *work) explainRest(best candidate, all []candidate, spec job.Spec, limits job.Limits, say func(format string, args ...any)) {
	if w.numerics != nil && w.numerics.Rounds() > 1 {
		switch {
		case best.span:
			say("rounds: as many an invocation as its time allows, since all replicas run at once.")
		case best.containers < w.numerics.Replicas:
			say("rounds: one an invocation, since only %d of %d replicas run at once.", best.containers, w.numerics.Replicas)
		default:
			say("rounds: one an invocation, since training and averaging in one container take more memory.")
		}
	}
	if best.wait > 0 {
		say("calls: about %.0f, of which the platform takes %d a minute: %.0f s of waiting.", best.calls, limits.CallsPerMinute, best.wait)
	}
	share := threadsFor(job.Spec{}, limits, best.containers)
	switch most := share[len(share)-1]; {
	case spec.Threads > 0 && limits.Processors > 0 && spec.Threads*best.containers > limits.Processors:
		say("threads: %d in each container, as --threads asks; together more than the %d processors, so slower than fewer.", spec.Threads, limits.Processors)
	case spec.Threads > 0:
		say("threads: %d in each container, as --threads asks.", spec.Threads)
	case best.threads > 1:
		say("threads: %d in each container, since there are fewer containers than the %d processors.", best.threads, limits.Processors)
	case most > 1 && !slices.ContainsFunc(all, func(c candidate) bool { return c.threads > 1 }):
		say("threads: one in each container; there is no memory for %d.", most)
	case most > 1:
		say("threads: one in each container; %d would not be worth their memory.", most)
	}
	if best.micro < w.cut {
		say("micro-batch: steps of %d records are computed %d at a time, for less memory.", w.cut, best.micro)
	}
	if best.remake {
		say("recomputation: outputs of batch normalisations are made again in the backward pass, for less memory and %.0f %% more time.", 100*(remakeCost-1))
	}
	if best.window > 0 {
		say("window: %d of the %d records of a shard at a time, for less memory and more reading.", best.window, w.window(1))
	}
}

// String says what a candidate is and what it costs.
func (c candidate) String() string {
	rest := ""
	if c.window > 0 {
		rest += fmt.Sprintf(", windows of %s", count(c.window, "record"))
	}
	return fmt.Sprintf("%s of %v%s: %.1f s, %v at once, %.2f GB-seconds", count(c.containers, "container"), c.memory, rest, c.seconds, c.atOnce(), c.gbSeconds)
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
func (w *work) binds(c candidate, spec job.Spec, limits job.Limits, objective job.Objective) string {
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
func memoryFor(role job.Role, need job.Bytes, micro int, spec job.Spec, limits job.Limits) (job.Bytes, error) {
	if spec.Memory > 0 {
		return spec.Memory, fixedMemory(spec.Memory, role, need, limits)
	}
	memory := CeilMemory(max(need, limits.MemoryMin), limits)
	if limits.MemoryMax > 0 && memory > limits.MemoryMax {
		return 0, &Infeasible{limitMemory, int64(memory), int64(limits.MemoryMax), fmt.Sprintf(
			"%s needs %v of memory, the platform allows %v (short by %v); %s",
			role, memory, limits.MemoryMax, memory-limits.MemoryMax, lessMemory(role, micro))}
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
