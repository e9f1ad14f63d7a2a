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
	// callSeconds is the time of one warm invocation outside the training loop.
	callSeconds = 0.003
)

// Train makes the first resource plan of a training job.
func Train(spec job.Spec, n job.Numerics, limits job.Limits, probe job.Probe) (job.Resources, error) {
	m, err := parseModel(n.Model)
	if err != nil {
		return job.Resources{}, err
	}
	train, flops, err := trainEstimate(n, m, probe)
	if err != nil {
		return job.Resources{}, err
	}
	r, err := evaluation(spec, n.Dataset, m, limits, probe, n.Replicas)
	if err != nil {
		return job.Resources{}, err
	}
	r.Roles[job.RoleTrain] = train
	r.Roles[job.RoleAverage] = averageEstimate(n, m, probe)
	if err := fit(&r, spec, limits, n.Replicas); err != nil {
		return job.Resources{}, err
	}
	parallel := min(r.Containers, max(limits.Processors, 1), n.Replicas)
	waves := float64(n.Replicas) / float64(parallel)
	step := rate(flops.Forward+flops.Backward, probe.FLOPS)
	r.Seconds += float64(n.Steps)*step*waves + float64(n.Rounds())*callSeconds*(waves+1)
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
	want := cmp.Or(limits.Processors, 1)
	r, err := evaluation(spec, d, m, limits, probe, want)
	if err != nil {
		return job.Resources{}, err
	}
	return r, fit(&r, spec, limits, want)
}

// evaluation starts a plan with what every job needs: running the model over
// the test part in pieces of whole shards, and merging the counts.
func evaluation(spec job.Spec, d job.Dataset, m model, limits job.Limits, probe job.Probe, want int) (job.Resources, error) {
	batch := max(1, min(inferBatch, d.Test))
	infer, flops, err := inferEstimate(d, m, batch, probe)
	if err != nil {
		return job.Resources{}, err
	}
	if spec.Containers > 0 {
		want = min(want, spec.Containers)
	}
	pieces := max(1, min(want, d.Shards(job.TestPart)))
	parallel := min(pieces, max(limits.Processors, 1))
	perRecord := rate(flops.Forward, probe.FLOPS) / float64(batch)
	return job.Resources{
		InferBatch:  batch,
		InferPieces: pieces,
		Roles: map[job.Role]job.Estimate{
			job.RoleInfer:    infer,
			job.RoleEvaluate: evaluateEstimate(d, probe),
			job.RoleProbe:    probeEstimate(probe),
		},
		Seconds: perRecord*float64(d.Test)/float64(parallel) + 2*callSeconds,
	}, nil
}

func rate(flops int64, perSecond float64) float64 {
	if perSecond <= 0 {
		return 0
	}
	return float64(flops) / perSecond
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
	if timeout < limits.TimeoutMin || limits.TimeoutMax > 0 && timeout > limits.TimeoutMax {
		return &Infeasible{"timeout", int64(timeout), int64(limits.TimeoutMax), fmt.Sprintf(
			"a timeout of %v is outside the platform's %v to %v; change --timeout", timeout, limits.TimeoutMin, limits.TimeoutMax)}
	}
	return nil
}

// fit chooses memory, time limit and containers within limits.
func fit(r *job.Resources, spec job.Spec, limits job.Limits, want int) error {
	step := max(limits.MemoryStep, 1)
	role, need := largest(r.Roles)
	r.Memory = max(need, limits.MemoryMin).CeilTo(step)
	if spec.Memory > 0 {
		if err := fixedMemory(spec.Memory, role, need, limits); err != nil {
			return err
		}
		r.Memory = spec.Memory
	}
	if limits.MemoryMax > 0 && r.Memory > limits.MemoryMax {
		return &Infeasible{"memory", int64(need), int64(limits.MemoryMax), fmt.Sprintf(
			"%s needs %v of memory, the platform allows %v (short by %v); take a smaller --local-batch or a platform with larger actions",
			role, need, limits.MemoryMax, need-limits.MemoryMax)}
	}
	if limits.PoolMemory > 0 && r.Memory > limits.PoolMemory {
		return &Infeasible{"pool memory", int64(r.Memory), int64(limits.PoolMemory), fmt.Sprintf(
			"a container of %v does not fit into the pool's %v (short by %v); raise --pool-memory",
			r.Memory, limits.PoolMemory, r.Memory-limits.PoolMemory)}
	}
	r.Timeout = cmp.Or(spec.Timeout, limits.TimeoutDefault)
	if err := checkTimeout(r.Timeout, limits); err != nil {
		return err
	}
	r.Budget = r.Timeout / budgetShare
	containers(r, spec, limits, want)

	binds := fmt.Sprintf("%s is the largest and needs %v", role, need)
	switch {
	case spec.Memory > 0:
		binds += fmt.Sprintf("; --memory fixes %v", r.Memory)
	case need < limits.MemoryMin:
		binds += fmt.Sprintf("; the platform's smallest action has %v", limits.MemoryMin)
	}
	r.Explanation = append([]string{"memory: " + binds + "."}, r.Explanation...)
	return nil
}

// fixedMemory checks the memory that a user asked for.
func fixedMemory(memory job.Bytes, role job.Role, need job.Bytes, limits job.Limits) error {
	switch {
	case memory < limits.MemoryMin || limits.MemoryMax > 0 && memory > limits.MemoryMax:
		return &Infeasible{"memory", int64(memory), int64(limits.MemoryMax), fmt.Sprintf(
			"%v of memory is outside the platform's %v to %v; change --memory", memory, limits.MemoryMin, limits.MemoryMax)}
	case limits.MemoryStep > 0 && memory%limits.MemoryStep != 0:
		return &Infeasible{"memory", int64(memory), int64(limits.MemoryStep), fmt.Sprintf(
			"%v of memory is not a multiple of the platform's step of %v; change --memory", memory, limits.MemoryStep)}
	case memory < need:
		return &Infeasible{"memory", int64(need), int64(memory), fmt.Sprintf(
			"%s needs %v of memory, --memory gives %v (short by %v); raise it or leave it out", role, need, memory, need-memory)}
	}
	return nil
}

func containers(r *job.Resources, spec job.Spec, limits job.Limits, want int) {
	r.Containers = max(want, r.InferPieces, 1)
	reason := "one for each replica"
	if r.Containers > want {
		reason = "one for each piece of the test part"
	}
	bound := func(most int, why string) {
		if most > 0 && most < r.Containers {
			r.Containers, reason = most, why
		}
	}
	if limits.PoolMemory > 0 {
		bound(int(limits.PoolMemory/r.Memory), fmt.Sprintf("the pool's %v holds no more", limits.PoolMemory))
	}
	bound(limits.Concurrency, "the platform runs no more at once")
	bound(spec.Containers, "--containers asks for no more")
	r.Explanation = append(r.Explanation, fmt.Sprintf("containers: %d at once, %s.", r.Containers, reason))
}

// largest returns the role with the largest estimate, the first by name among
// equals.
func largest(roles map[job.Role]job.Estimate) (role job.Role, need job.Bytes) {
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		if total := roles[name].Total(); total > need {
			role, need = name, total
		}
	}
	return role, need
}
