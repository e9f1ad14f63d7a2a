// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"maps"
	"time"

	"disdel/internal/job"
)

// What the thesis's baseline adds after a failure.
const (
	bruteMemory  = 256 * job.MB
	bruteTimeout = 10 * time.Second
)

// bruteForce is the plan of the thesis's baseline, which does without one: the
// platform's default limits, or those that the user fixed, to begin with, and all
// processors. The estimates only say what the scheduler would have known.
func (w *work) bruteForce(spec job.Spec, limits job.Limits) (job.Resources, error) {
	if err := Check(spec, limits); err != nil {
		return job.Resources{}, err
	}
	threads := threadsFor(spec, limits, 1)
	c := candidate{containers: 1, parts: 1, memory: spec.Memory}
	c.choice = choice{threads: threads[len(threads)-1], micro: w.cut}
	whole, _, err := trainEstimate(*w.numerics, w.model, w.probe, c.choice)
	if err != nil {
		return job.Resources{}, err
	}
	whole.Data = wholeData(*w.numerics)
	whole = withSafety(whole, w.probe)
	w.fixed = &whole
	roles, err := w.roles(c.shape)
	if err != nil {
		return job.Resources{}, err
	}
	if spec.Memory == 0 {
		c.memory = CeilMemory(limits.MemoryDefault, limits)
		if largest := LargestMemory(limits); largest > 0 {
			c.memory = min(c.memory, largest)
		}
	}
	if err := fixedMemory(c.memory, job.RoleTrain, 0, limits); err != nil {
		return job.Resources{}, err
	}
	r := w.planOf(w.predict(c, limits), limits)
	r.Timeout = cmp.Or(spec.Timeout, limits.TimeoutDefault)
	r.Explanation = []string{
		fmt.Sprintf("brute force: begins with %v and %v, and takes %v or %v more after each failure.", r.Memory, r.Timeout, bruteMemory, bruteTimeout),
		fmt.Sprintf("the scheduler would have said: train needs %v this way, and the job takes about %.1f s.", roles[job.RoleTrain].Total(), r.Seconds),
	}
	return r, nil
}

// wholeData is the memory of all training records as float32, their labels and
// order, one batch, and one piece as it is read. A test of package worker holds
// it equal to what the worker takes.
func wholeData(n job.Numerics) job.Bytes {
	d, records := n.Dataset, job.Bytes(n.Dataset.Train)
	batch := min(job.Bytes(n.LocalBatch), records)
	piece := min(job.Bytes(d.ShardRecords), records)
	return (records+batch)*(valueBytes*d.RecordBytes()+labelBytes) + records*orderBytes +
		job.Bytes(d.Shards(job.TrainPart))*orderBytes + piece*(d.RecordBytes()+labelBytes)
}

// moreMemory is the next plan of brute force after an action ran out of memory.
func moreMemory(r job.Resources, limits job.Limits, role job.Role) (job.Resources, error) {
	next := r
	next.Revision++
	next.Memory = CeilMemory(r.Memory+bruteMemory, limits)
	if largest := LargestMemory(limits); largest > 0 {
		next.Memory = min(next.Memory, largest)
	}
	if next.Memory <= r.Memory {
		return r, &Infeasible{limitMemory, int64(r.Memory) + 1, int64(r.Memory), fmt.Sprintf(
			"brute force ends: %s ran out of memory in %v, the most that the platform allows; take --strategy distributed", role, r.Memory)}
	}
	if estimate := next.Roles[role]; estimate.Total() <= r.Memory {
		// The estimate has learned, so that nothing this small is tried again.
		estimate.Safety += r.Memory - estimate.Total() + 1
		next.Roles = maps.Clone(next.Roles)
		next.Roles[role] = estimate
	}
	next.Explanation = []string{fmt.Sprintf("brute force: %s ran out of %v, so %v now.", role, r.Memory, next.Memory)}
	return next, nil
}

// moreTime is the next plan of brute force after an action overran its time.
func moreTime(r job.Resources, limits job.Limits, role job.Role) (job.Resources, error) {
	next := r
	next.Revision++
	next.Timeout = r.Timeout + bruteTimeout
	if limits.TimeoutMax > 0 {
		next.Timeout = min(next.Timeout, limits.TimeoutMax)
	}
	if next.Timeout <= r.Timeout {
		return r, &Infeasible{limitTimeout, int64(r.Timeout) + 1, int64(r.Timeout), fmt.Sprintf(
			"brute force ends: %s does not finish within %v, the most that the platform allows; take --strategy distributed", role, r.Timeout)}
	}
	next.Explanation = []string{fmt.Sprintf("brute force: %s overran %v, so %v now.", role, r.Timeout, next.Timeout)}
	return next, nil
}
