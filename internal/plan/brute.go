// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
)

// What the thesis's baseline adds after a failure.
const (
	bruteMemory  = 256 * job.MB
	bruteTimeout = 10 * time.Second
)

// bruteForce is the plan of the thesis's baseline, which does without one: the
// platform's default limits, or those that the user fixed, to begin with. The
// estimates only say what the scheduler would have known.
func bruteForce(spec job.Spec, n job.Numerics, limits job.Limits, w work, train job.Estimate, flops nn.FLOPs) (job.Resources, error) {
	if err := Check(spec, limits); err != nil {
		return job.Resources{}, err
	}
	train.Data = wholeData(n)
	train = withSafety(train)
	w.fixedData = true
	w.train(n, train, flops)
	c := candidate{containers: 1, parts: 1, memory: spec.Memory}
	if spec.Memory == 0 {
		c.memory = CeilMemory(limits.MemoryDefault, limits)
		if largest := LargestMemory(limits); largest > 0 {
			c.memory = min(c.memory, largest)
		}
	}
	if err := fixedMemory(c.memory, job.RoleTrain, 0, limits); err != nil {
		return job.Resources{}, err
	}
	c = w.predict(c, limits)
	timeout := cmp.Or(spec.Timeout, limits.TimeoutDefault)
	return job.Resources{
		Memory: c.memory, Timeout: timeout, Containers: 1,
		InferBatch: w.inferBatch, InferPieces: w.pieces, Roles: w.roles(0),
		Seconds: c.seconds, GBSeconds: c.gbSeconds,
		Explanation: []string{
			fmt.Sprintf("brute force: begins with %v and %v, and takes %v or %v more after each failure.", c.memory, timeout, bruteMemory, bruteTimeout),
			fmt.Sprintf("the scheduler would have said: train needs %v this way, and the job takes about %.1f s.", train.Total(), c.seconds),
		},
	}, nil
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
		return r, &Infeasible{"memory", int64(r.Memory) + 1, int64(r.Memory), fmt.Sprintf(
			"brute force ends: %s ran out of memory in %v, the most that the platform allows; take --strategy distributed", role, r.Memory)}
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
		return r, &Infeasible{"timeout", int64(r.Timeout) + 1, int64(r.Timeout), fmt.Sprintf(
			"brute force ends: %s does not finish within %v, the most that the platform allows; take --strategy distributed", role, r.Timeout)}
	}
	next.Explanation = []string{fmt.Sprintf("brute force: %s overran %v, so %v now.", role, r.Timeout, next.Timeout)}
	return next, nil
}
