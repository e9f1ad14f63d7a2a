// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"math"
	"time"

	"disdel/internal/job"
	"disdel/internal/nn"
)

// callSeconds is the time of one warm invocation outside what it computes, reads
// and writes.
const callSeconds = 0.003

// work is what a job does, as far as its time and memory depend on where and in
// how many containers it runs.
type work struct {
	data  job.Dataset
	model model
	probe job.Probe

	// Training; replicas is 0 without it.
	replicas, localBatch int
	rounds, roundSteps   int           // of each replica, the last round may be shorter
	steps                int           // of each replica, all rounds
	step                 float64       // seconds of one, alone on a processor
	state, global        job.Bytes     // one replica's state and the averaged one, as stored
	budget               time.Duration // 0 is no hand-over
	estimates            map[job.Role]job.Estimate
	records              int  // of the largest replica
	fixedData            bool // their memory does not depend on a window

	// Inference.
	inferBatch, pieces int
	record             float64 // seconds of one, alone on a processor
}

// units is how many invocations there can be at once at most.
func (w work) units() int { return max(w.replicas, w.pieces) }

func (w work) unitName() string {
	if w.replicas > 0 {
		return "one for each replica"
	}
	return "one for each piece of the test part"
}

// window is how many records of a shard are held if it is read in parts.
func (w work) window(parts int) int {
	most := min(w.data.ShardRecords, max(w.records, w.data.Test))
	return (most + parts - 1) / parts
}

// roles estimates the memory of every role with a window of that many records, 0
// for all.
func (w work) roles(window int) map[job.Role]job.Estimate {
	all := maps.Clone(w.estimates)
	if train, ok := all[job.RoleTrain]; ok && !w.fixedData {
		train.Data = recordWindow(w.data, w.records, min(w.localBatch, w.records), window)
		all[job.RoleTrain] = withSafety(train)
	}
	infer := all[job.RoleInfer]
	infer.Data = recordWindow(w.data, w.data.Test, w.inferBatch, window)
	all[job.RoleInfer] = withSafety(infer)
	return all
}

// evaluation is the work of running a model over the test part in pieces of
// whole shards, and of merging the counts: what every job does.
func evaluation(d job.Dataset, m model, probe job.Probe, want int) (work, error) {
	if d.Test < 1 || d.ShardRecords < 1 {
		return work{}, fmt.Errorf("data set %s has no test records: %w", d.Name, job.ErrSpec)
	}
	batch := min(inferBatch, d.Test)
	infer, flops, err := inferEstimate(d, m, batch, probe)
	if err != nil {
		return work{}, err
	}
	return work{
		data: d, model: m, probe: probe,
		inferBatch: batch, pieces: max(1, min(want, d.Shards(job.TestPart))),
		record: rate(flops.Forward, probe.FLOPS) / float64(batch),
		estimates: map[job.Role]job.Estimate{
			job.RoleInfer:    infer,
			job.RoleEvaluate: evaluateEstimate(d, probe),
			job.RoleProbe:    probeEstimate(probe),
		},
	}, nil
}

// train adds the work of training, and its memory.
func (w *work) train(n job.Numerics, train job.Estimate, flops nn.FLOPs) {
	moments := nn.Optimizer(n.Local).Moments()
	w.replicas, w.localBatch = n.Replicas, n.LocalBatch
	w.rounds, w.roundSteps, w.steps = n.Rounds(), n.RoundSteps, n.Steps
	w.step = rate(flops.Forward+flops.Backward, w.probe.FLOPS)
	w.state = valueBytes * job.Bytes(w.model.parameters*(1+moments))
	w.global = w.state + valueBytes*job.Bytes(w.model.parameters)
	w.records = (n.Dataset.Train-1)/n.Replicas + 1
	w.estimates[job.RoleTrain], w.estimates[job.RoleAverage] = train, averageEstimate(n, w.model, w.probe)
}

// predict says how long a candidate takes and what it costs.
//
// Containers share the processors: more of them than processors run more slowly,
// each. An invocation takes its computing and the time of what it reads from and
// writes to the store. Rounds follow each other, and after each comes an average.
func (w work) predict(c candidate, limits job.Limits) candidate {
	processors := max(limits.Processors, 1)
	var busy float64
	if w.replicas > 0 {
		wall, all := spread(w.replicas, c.containers, processors)
		compute := float64(w.steps) * w.step
		calls := float64(w.rounds)
		if w.budget > 0 && w.rounds > 0 {
			// Each hand-over is a call more, with the state out and in.
			slowest := max(1, float64(min(c.containers, w.replicas))/float64(processors))
			calls += calls * math.Floor(compute/calls*slowest/w.budget.Seconds())
		}
		each := compute + calls*(callSeconds+w.transfer(w.state+w.global)) + float64(w.rounds)*w.transfer(w.roundReads(c.parts))
		average := float64(w.rounds) * (callSeconds + w.transfer(job.Bytes(w.replicas)*w.state+2*w.global))
		c.seconds += wall*each + average
		busy += all*each + average
	}
	wall, all := spread(w.pieces, c.containers, processors)
	share := 1 / float64(w.pieces)
	test := job.Bytes(w.data.Test) * w.data.RecordBytes() * job.Bytes(c.parts)
	each := callSeconds + w.record*float64(w.data.Test)*share + w.transfer(test)*share + w.transfer(valueBytes*job.Bytes(w.model.parameters))
	c.seconds += wall*each + callSeconds
	busy += all*each + callSeconds
	c.gbSeconds = busy * float64(c.memory) / float64(job.GB)
	return c
}

// roundReads is what a replica reads of its shards in one round.
func (w work) roundReads(parts int) job.Bytes {
	pieces := (w.records-1)/w.data.ShardRecords + 1
	touched := w.roundSteps*w.localBatch/w.data.ShardRecords + 1
	if pieces == 1 && parts == 1 {
		touched = 1 // it stays in memory
	}
	shard := job.Bytes(min(w.data.ShardRecords, w.records)) * (w.data.RecordBytes() + labelBytes)
	return job.Bytes(touched) * job.Bytes(parts) * shard
}

// transfer is the time of bytes to or from the store.
func (w work) transfer(b job.Bytes) float64 {
	if w.probe.StoreRate <= 0 {
		return 0
	}
	return float64(b) / w.probe.StoreRate
}

// spread says how long units of equal work take in so many containers at once on
// shared processors, and how long all of them together are busy, in the time that
// one takes alone.
func spread(units, containers, processors int) (wall, busy float64) {
	slow := func(n int) float64 { return max(1, float64(n)/float64(processors)) }
	waves, rest := units/containers, units%containers
	wall = float64(waves) * slow(containers)
	busy = wall * float64(containers)
	if rest > 0 {
		wall += slow(rest)
		busy += slow(rest) * float64(rest)
	}
	return wall, busy
}

func rate(flops int64, perSecond float64) float64 {
	if perSecond <= 0 {
		return 0
	}
	return float64(flops) / perSecond
}
