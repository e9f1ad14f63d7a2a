// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"disdel/internal/job"
)

// ErrInfeasible is wrapped by every [Infeasible].
var ErrInfeasible = errors.New("infeasible")

// What can be short.
const (
	limitMemory  = "memory"
	limitTimeout = "timeout"
	limitPool    = "pool memory"
)

// Infeasible says that no plan fits: which limit is short, by how much, and
// what the user can do.
type Infeasible struct {
	// Limit names what is short: "memory", "timeout", "pool memory".
	Limit string
	// Need and Have are in bytes for memory, in nanoseconds for time.
	Need, Have int64
	// Detail is the sentence for the user.
	Detail string
}

// Error says it in one sentence.
func (e *Infeasible) Error() string { return "infeasible: " + e.Detail }

// Unwrap makes errors.Is(err, ErrInfeasible) true.
func (e *Infeasible) Unwrap() error { return ErrInfeasible }

const (
	inferBatch = 64
	// budgetShare: a slice takes at most half of the time limit, so that a slow
	// moment does not become a time-out.
	budgetShare = 2
)

// Train makes the first resource plan of a training job.
func Train(spec job.Spec, n job.Numerics, limits job.Limits, probe job.Probe) (job.Resources, error) {
	m, err := parseModel(n.Model)
	if err != nil {
		return job.Resources{}, err
	}
	if n.Replicas < 1 || n.LocalBatch < 1 || n.RoundSteps < 1 || n.StepsPerEpoch < 1 {
		return job.Resources{}, fmt.Errorf("plan: numerics of %d replicas, local batch %d, rounds of %d steps: %w",
			n.Replicas, n.LocalBatch, n.RoundSteps, job.ErrSpec)
	}
	w, err := newWork(n.Dataset, m, probe, atMost(n.Replicas, spec.Containers), false)
	if err != nil {
		return job.Resources{}, err
	}
	if err := w.train(n); err != nil {
		return job.Resources{}, err
	}
	if spec.Strategy == job.BruteForce {
		return w.bruteForce(spec, limits)
	}
	timeout, err := timeoutFor(spec, limits)
	if err != nil {
		return job.Resources{}, err
	}
	if w.budget = timeout / budgetShare; spec.Strategy == job.Single {
		w.budget = 0 // the time limit is no platform's
	}
	if spec.Estimator == job.Thesis {
		w.byThesis()
	}
	r, err := w.resources(spec, limits, timeout)
	if err != nil {
		return job.Resources{}, w.explainThesis(err)
	}
	r.Explanation = append(r.Explanation, explainNumerics(spec, n)...)
	if n.Sync == job.SyncStep {
		r.Explanation = append(r.Explanation, fmt.Sprintf(
			"sync: %d rounds; in each a replica puts %v and reads %v, whoever averages reads all: %.1f of %.1f s.",
			n.Rounds(), w.state, w.global, float64(n.Rounds())*r.RoundSeconds, r.Seconds))
	}
	if w.terms != "" {
		r.Explanation = append(r.Explanation, "estimator: "+w.terms+".")
	}
	if n.Sync != job.SyncStep { // which is sequential training
		r.AccuracyCost, r.AccuracyNote = AccuracyCost(n)
	}
	return r, nil
}

// Infer makes the resource plan of an inference job with the model spec (the
// canonical JSON of package nn).
func Infer(spec job.Spec, d job.Dataset, modelSpec []byte, limits job.Limits, probe job.Probe) (job.Resources, error) {
	m, err := parseModel(modelSpec)
	if err != nil {
		return job.Resources{}, err
	}
	if in := m.spec.Input; in.H != d.Height || in.W != d.Width || in.C != d.Channels || m.spec.Classes != d.Classes {
		return job.Resources{}, fmt.Errorf("%w: the model takes %v and knows %d classes, %s has %dx%dx%d and %d",
			ErrModel, in, m.spec.Classes, d.Name, d.Height, d.Width, d.Channels, d.Classes)
	}
	w, err := newWork(d, m, probe, atMost(max(limits.Processors, 1), spec.Containers), spec.Output != "")
	if err != nil {
		return job.Resources{}, err
	}
	timeout, err := timeoutFor(spec, limits)
	if err != nil {
		return job.Resources{}, err
	}
	w.budget = timeout / budgetShare
	return w.resources(spec, limits, timeout)
}

// atMost is n, or what the user fixed if that is less.
func atMost(n, fixed int) int {
	if fixed > 0 {
		return min(n, fixed)
	}
	return n
}

// timeoutFor is the time limit of invocations. A single worker has all the time
// that there is.
func timeoutFor(spec job.Spec, limits job.Limits) (time.Duration, error) {
	timeout := cmp.Or(spec.Timeout, limits.TimeoutDefault)
	if spec.Strategy == job.Single && spec.Timeout == 0 {
		timeout = max(timeout, limits.TimeoutMax)
	}
	return timeout, checkTimeout(timeout, limits)
}

// resources makes the plan of the best candidate.
func (w *work) resources(spec job.Spec, limits job.Limits, timeout time.Duration) (job.Resources, error) {
	c, why, err := w.choose(spec, limits)
	if err != nil {
		return job.Resources{}, err
	}
	r := w.planOf(c, limits)
	r.Timeout, r.Explanation = timeout, why
	return r, nil
}

// planOf is the plan of a candidate, without a time limit.
func (w *work) planOf(c candidate, limits job.Limits) job.Resources {
	roles, _ := w.roles(c.shape) // compiled before, when the candidate was made
	return job.Resources{
		Memory: c.memory, Containers: c.containers, Window: c.window, Budget: w.budget, SpanRounds: c.spanRounds(w),
		Threads: c.threads, Spin: c.spins(limits), MicroBatch: c.micro, Remake: c.remake,
		InferBatch: w.inferBatch, InferPieces: w.pieces, Roles: roles, Seconds: c.seconds, GBSeconds: c.gbSeconds,
		StepSeconds: c.step, RoundSeconds: c.round, Waves: c.waves,
	}
}

// Check says whether what the user fixed is within the platform's limits, which
// is known before anything is measured.
func Check(spec job.Spec, limits job.Limits) error {
	if spec.Memory > 0 {
		if err := fixedMemory(spec.Memory, "", 0, limits); err != nil {
			return err
		}
	}
	return checkTimeout(cmp.Or(spec.Timeout, limits.TimeoutDefault), limits)
}

func checkTimeout(timeout time.Duration, limits job.Limits) error {
	switch {
	case timeout < limits.TimeoutMin:
		return &Infeasible{limitTimeout, int64(timeout), int64(limits.TimeoutMin), fmt.Sprintf(
			"a timeout of %v is less than the platform's %v (short by %v); change --timeout",
			timeout, limits.TimeoutMin, limits.TimeoutMin-timeout)}
	case limits.TimeoutMax > 0 && timeout > limits.TimeoutMax:
		return &Infeasible{limitTimeout, int64(timeout), int64(limits.TimeoutMax), fmt.Sprintf(
			"a timeout of %v is more than the platform's %v (short by %v); change --timeout",
			timeout, limits.TimeoutMax, timeout-limits.TimeoutMax)}
	}
	return nil
}

// memoryStep is what memory is a multiple of.
func memoryStep(limits job.Limits) job.Bytes {
	return cmp.Or(max(limits.MemoryStep, 0), job.MB)
}

// CeilMemory is the smallest memory of an action that is not below b.
func CeilMemory(b job.Bytes, limits job.Limits) job.Bytes {
	return b.CeilTo(memoryStep(limits))
}

// LargestMemory is the largest memory that a container can have, 0 where the
// platform has no bound.
func LargestMemory(limits job.Limits) job.Bytes {
	largest := limits.MemoryMax
	if pool := limits.PoolMemory; pool > 0 && (largest <= 0 || pool < largest) {
		largest = pool
	}
	return floorMemory(largest, limits)
}

func floorMemory(b job.Bytes, limits job.Limits) job.Bytes {
	step := memoryStep(limits)
	return b / step * step
}

// lessMemory says what the user can do about a role that needs too much, with
// training steps in pieces of micro records.
func lessMemory(role job.Role, micro int) string {
	switch {
	case role == job.RoleTrain && micro == 1:
		return "records are computed one by one already, so take a smaller model or a platform with larger actions"
	case role == job.RoleTrain:
		return "take a smaller --local-batch or a platform with larger actions"
	}
	return "take a smaller model or a platform with larger actions"
}

func poolShort(memory job.Bytes, limits job.Limits) error {
	return &Infeasible{limitPool, int64(memory), int64(limits.PoolMemory), fmt.Sprintf(
		"a container of %v does not fit into the pool's %v (short by %v); raise --pool-memory",
		memory, limits.PoolMemory, memory-limits.PoolMemory)}
}

// fixedMemory checks the memory that a user asked for.
func fixedMemory(memory job.Bytes, role job.Role, need job.Bytes, limits job.Limits) error {
	switch step := memoryStep(limits); {
	case memory < limits.MemoryMin:
		return &Infeasible{limitMemory, int64(limits.MemoryMin), int64(memory), fmt.Sprintf(
			"%v of memory is less than the platform's smallest action of %v (short by %v); change --memory",
			memory, limits.MemoryMin, limits.MemoryMin-memory)}
	case limits.MemoryMax > 0 && memory > limits.MemoryMax:
		return &Infeasible{limitMemory, int64(memory), int64(limits.MemoryMax), fmt.Sprintf(
			"%v of memory is more than the platform's largest action of %v (short by %v); change --memory",
			memory, limits.MemoryMax, memory-limits.MemoryMax)}
	case limits.PoolMemory > 0 && memory > limits.PoolMemory:
		return poolShort(memory, limits)
	case memory%step != 0:
		return &Infeasible{limitMemory, int64(memory), int64(step), fmt.Sprintf(
			"%v of memory is not a multiple of the platform's step of %v; change --memory", memory, step)}
	case memory < need:
		return &Infeasible{limitMemory, int64(need), int64(memory), fmt.Sprintf(
			"%s needs %v of memory, --memory gives %v (short by %v); raise it or leave it out", role, need, memory, need-memory)}
	}
	return nil
}

// largest returns the role with the largest estimate, the first by name among
// equals.
func largest(roles map[job.Role]job.Estimate) (role job.Role, need job.Bytes) {
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		// A probe comes before the plan: it has its own action or none.
		if total := roles[name].Total(); name != job.RoleProbe && total > need {
			role, need = name, total
		}
	}
	return role, need
}
