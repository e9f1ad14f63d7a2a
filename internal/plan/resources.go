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

// What can be short.
const (
	limitMemory  = "memory"
	limitPool    = "pool memory"
	limitTimeout = "timeout"
)

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
	if n.Replicas < 1 || n.LocalBatch < 1 || n.RoundSteps < 1 || n.StepsPerEpoch < 1 {
		return job.Resources{}, fmt.Errorf("plan: numerics of %d replicas, local batch %d, rounds of %d steps: %w",
			n.Replicas, n.LocalBatch, n.RoundSteps, job.ErrSpec)
	}
	batch := stepBatch(n)
	if m.spec.WholeBatches() {
		batch = 0
	}
	r, err := choose(spec, limits, batch, func(c choice) (job.Resources, error) { return train(spec, n, m, limits, probe, c) })
	r.Explanation = append(r.Explanation, explainNumerics(spec, n)...)
	return r, err
}

// train makes the plan of a training job with a choice.
func train(spec job.Spec, n job.Numerics, m model, limits job.Limits, probe job.Probe, c choice) (job.Resources, error) {
	train, flops, err := trainEstimate(n, m, probe, c)
	if err != nil {
		return job.Resources{}, err
	}
	average := averageEstimate(n, m, probe)
	r, err := assemble(spec, n, m, limits, probe, train, average, c)
	if err != nil {
		return job.Resources{}, err
	}
	if n.Rounds() > 1 {
		r = span(r, spec, n, m, limits, probe, c)
	}
	parallel := min(r.Containers, max(limits.Processors, 1), n.Replicas)
	waves := float64(n.Replicas) / float64(parallel)
	step := rate(flops.Forward+flops.Backward, probe.FLOPS*speedup(c.threads, r.Containers, limits))
	r.Seconds += float64(n.Steps)*step*waves + float64(n.Rounds())*callSeconds*(waves+1)
	return r, nil
}

// span makes an invocation of r's train go through as many rounds as its time
// allows and meet the others at the end of each, where all replicas run at once:
// the cheapest way through many rounds. Any replica may have to average, which
// it does in the memory where it trains.
func span(r job.Resources, spec job.Spec, n job.Numerics, m model, limits job.Limits, probe job.Probe, c choice) job.Resources {
	train, average := r.Roles[job.RoleTrain], r.Roles[job.RoleAverage]
	train.Fit = max(train.Fit, average.Model)
	wide, err := assemble(spec, n, m, limits, probe, withSafety(train), average, c)
	why := ""
	switch {
	case r.Containers < n.Replicas:
		why = fmt.Sprintf("only %d of %d replicas run at once", r.Containers, n.Replicas)
	case err != nil:
		why = "training and averaging in one container do not fit: " + err.Error()
	case wide.Containers < n.Replicas:
		why = fmt.Sprintf("of containers of %v, which can also average, only %d of %d fit at once", wide.Memory, wide.Containers, n.Replicas)
	default:
		wide.SpanRounds = n.Rounds()
		wide.Explanation = append(wide.Explanation, "rounds: as many an invocation as its time allows, since all replicas run at once.")
		return wide
	}
	r.SpanRounds = 1
	r.Explanation = append(r.Explanation, "rounds: one an invocation, since "+why+".")
	return r
}

// assemble puts the estimates of all roles together and fits them into limits.
func assemble(spec job.Spec, n job.Numerics, m model, limits job.Limits, probe job.Probe, train, average job.Estimate, c choice) (job.Resources, error) {
	r, err := evaluation(spec, n.Dataset, m, limits, probe, n.Replicas, c)
	if err != nil {
		return r, err
	}
	r.Roles[job.RoleTrain], r.Roles[job.RoleAverage] = train, average
	return r, fit(&r, spec, limits, n.Replicas)
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
	return choose(spec, limits, 0, func(c choice) (job.Resources, error) {
		r, err := evaluation(spec, d, m, limits, probe, want, c)
		if err != nil {
			return job.Resources{}, err
		}
		return r, fit(&r, spec, limits, r.InferPieces)
	})
}

// evaluation starts a plan with what every job needs: running the model over
// the test part in pieces of whole shards, and merging the counts.
func evaluation(spec job.Spec, d job.Dataset, m model, limits job.Limits, probe job.Probe, want int, c choice) (job.Resources, error) {
	if d.Test < 1 || d.ShardRecords < 1 {
		return job.Resources{}, fmt.Errorf("data set %s has no test records: %w", d.Name, job.ErrSpec)
	}
	if spec.Containers > 0 {
		want = min(want, spec.Containers)
	}
	pieces := max(1, min(want, d.Shards(job.TestPart)))
	batch := min(inferBatch, d.Test)
	predictions := 0
	if spec.Output != "" {
		shards := (d.Shards(job.TestPart) + pieces - 1) / pieces // of the largest piece
		predictions = min(shards*d.ShardRecords, d.Test)
	}
	infer, flops, err := inferEstimate(d, m, batch, predictions, probe, c)
	if err != nil {
		return job.Resources{}, err
	}
	parallel := min(pieces, max(limits.Processors, 1))
	perRecord := rate(flops.Forward, probe.FLOPS) / float64(batch)
	return job.Resources{
		InferBatch:  batch,
		InferPieces: pieces,
		Threads:     c.threads,
		MicroBatch:  c.micro,
		Roles: map[job.Role]job.Estimate{
			job.RoleInfer:    infer,
			job.RoleEvaluate: evaluateEstimate(d, probe),
			job.RoleProbe:    probeEstimate(probe),
		},
		Seconds: perRecord*float64(d.Test)/(float64(parallel)*speedup(c.threads, pieces, limits)) + 2*callSeconds,
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

// fit chooses memory, time limit and containers within limits.
func fit(r *job.Resources, spec job.Spec, limits job.Limits, want int) error {
	// A container serves all roles, and keeps the threads that it once had.
	for role, e := range r.Roles {
		if role != job.RoleProbe {
			e.Safety += job.Bytes(r.Threads-1) * threadBytes
			r.Roles[role] = e
		}
	}
	role, need := largest(r.Roles)
	r.Memory = CeilMemory(max(need, limits.MemoryMin), limits)
	if spec.Memory > 0 {
		if err := fixedMemory(spec.Memory, role, need, limits); err != nil {
			return err
		}
		r.Memory = spec.Memory
	}
	if limits.MemoryMax > 0 && r.Memory > limits.MemoryMax {
		return &Infeasible{limitMemory, int64(r.Memory), int64(limits.MemoryMax), fmt.Sprintf(
			"%s needs %v of memory, the platform allows %v (short by %v); %s",
			role, r.Memory, limits.MemoryMax, r.Memory-limits.MemoryMax, lessMemory(role, r.MicroBatch))}
	}
	if limits.PoolMemory > 0 && r.Memory > limits.PoolMemory {
		return poolShort(r.Memory, limits)
	}
	r.Timeout = cmp.Or(spec.Timeout, limits.TimeoutDefault)
	if err := checkTimeout(r.Timeout, limits); err != nil {
		return err
	}
	r.Budget = r.Timeout / budgetShare
	containers(r, spec, limits, max(want, r.InferPieces))

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

// containers sets how many there are at once, at most want.
func containers(r *job.Resources, spec job.Spec, limits job.Limits, want int) {
	r.Containers = max(want, 1)
	reason := "one for each replica"
	if _, training := r.Roles[job.RoleTrain]; !training {
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
		// A probe comes before the plan: it has its own action or none.
		if total := roles[name].Total(); name != job.RoleProbe && total > need {
			role, need = name, total
		}
	}
	return role, need
}
