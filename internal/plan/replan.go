// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"time"

	"disdel/internal/job"
)

const (
	// growthUp / growthDown is by how much a size that proved too small is
	// raised.
	growthUp, growthDown = 3, 2
	// minBudget is the shortest time that a slice is given.
	minBudget = 10 * time.Millisecond
)

// AfterOutOfMemory makes the next resource plan after a container with r's
// memory was killed while it served role: the next size up, and an estimate
// that has learned. Infeasible when the platform or the user allows no more.
func AfterOutOfMemory(r job.Resources, spec job.Spec, limits job.Limits, role job.Role) (job.Resources, error) {
	if spec.Strategy == job.BruteForce {
		return moreMemory(r, limits, role)
	}
	next := r
	next.Revision++
	next.Roles = maps.Clone(r.Roles)
	grown := CeilMemory(r.Memory/growthDown*growthUp, limits)
	if largest := LargestMemory(limits); largest > 0 {
		grown = min(grown, largest)
	}
	stuck := spec.Memory > 0 || grown <= r.Memory
	if stuck && role == job.RoleTrain && r.MicroBatch > 1 {
		next.MicroBatch = pieceBelow(r.MicroBatch)
		next.Explanation = []string{fmt.Sprintf("micro-batch: %s ran out of %v, which cannot grow, so steps in pieces of %d records now.",
			role, r.Memory, next.MicroBatch)}
		return next, nil
	}
	if stuck && role == job.RoleTrain && r.MicroBatch == 0 && !r.Remake {
		// Its steps cannot be cut because it has batch normalisations.
		next.Remake = true
		next.Explanation = []string{fmt.Sprintf("recomputation: %s ran out of %v, which cannot grow, so outputs of batch normalisations are made again now.",
			role, r.Memory)}
		return next, nil
	}
	switch {
	case spec.Memory > 0:
		return r, &Infeasible{limitMemory, int64(grown), int64(spec.Memory), fmt.Sprintf(
			"%s ran out of memory in the %v that --memory fixes; raise it or leave it out", role, spec.Memory)}
	case grown <= r.Memory:
		return r, &Infeasible{limitMemory, int64(r.Memory) + 1, int64(r.Memory), fmt.Sprintf(
			"%s ran out of memory in %v, the most that the platform allows; %s", role, r.Memory, lessMemory(role, r.MicroBatch))}
	}
	estimate := next.Roles[role]
	estimate.Safety += max(0, r.Memory-estimate.Total()) + 1
	next.Roles[role] = estimate
	next.Memory = grown
	next.Explanation = []string{fmt.Sprintf("memory: %s ran out of %v, so %v now.", role, r.Memory, grown)}
	var reason string
	if next.Containers, reason = mostContainers(r.Containers, grown, spec, limits); reason != "" {
		next.Explanation = append(next.Explanation, fmt.Sprintf("containers: %d at once, %s.", next.Containers, reason))
	}
	if next.Containers < r.Containers {
		next.SpanRounds = min(r.SpanRounds, 1) // not all replicas run at once any more
	}
	return next, nil
}

// AfterTooLarge makes the next resource plan after the platform took a call of
// r's memory for which no machine of it has room: the least memory that the
// estimates allow. Infeasible when that is no less, or the user fixes the memory.
func AfterTooLarge(r job.Resources, spec job.Spec, limits job.Limits, role job.Role) (job.Resources, error) {
	next := r
	next.Revision++
	_, need := largest(r.Roles)
	least := CeilMemory(max(need, limits.MemoryMin), limits)
	switch {
	case spec.Memory > 0 && spec.Strategy != job.BruteForce: // which begins there
		return r, &Infeasible{limitPool, int64(spec.Memory), int64(least), fmt.Sprintf(
			"the platform has no room for containers of the %v that --memory fixes, and the job needs %v; take less or leave it out", spec.Memory, least)}
	case least >= r.Memory:
		return r, &Infeasible{limitPool, int64(r.Memory), int64(r.Memory) - 1, fmt.Sprintf(
			"the platform has no room for containers of %v, which %s needs; %s", r.Memory, role, lessMemory(role, r.MicroBatch))}
	}
	next.Memory = least
	next.Explanation = []string{fmt.Sprintf("memory: the platform has no room for containers of %v, so %v now.", r.Memory, least)}
	return next, nil
}

// AfterWaiting makes the next resource plan after replicas that were to meet did
// not run at the same time, whatever the platform's limits promise: one round an
// invocation.
func AfterWaiting(r job.Resources) job.Resources {
	next := r
	next.Revision++
	next.SpanRounds = min(r.SpanRounds, 1)
	next.Explanation = []string{"rounds: one an invocation, since replicas waited for others that did not run at the same time."}
	return next
}

// AfterTimeout makes the next resource plan after an invocation of role overran
// its time limit: smaller slices, and with brute force a longer limit. Infeasible
// when that cannot be.
func AfterTimeout(r job.Resources, spec job.Spec, limits job.Limits, role job.Role) (job.Resources, error) {
	if spec.Strategy == job.BruteForce {
		return moreTime(r, limits, role)
	}
	next := r
	next.Revision++
	next.Budget = r.Budget / 2
	if role != job.RoleTrain || next.Budget < minBudget {
		return r, &Infeasible{limitTimeout, int64(r.Timeout) + 1, int64(r.Timeout), fmt.Sprintf(
			"%s does not finish within %v; raise --timeout", role, r.Timeout)}
	}
	next.Explanation = []string{fmt.Sprintf("time: %s overran %v, so slices of %v now.", role, r.Timeout, next.Budget)}
	return next, nil
}
