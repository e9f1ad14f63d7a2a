// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"math"
	"time"

	"disdel/internal/job"
)

// work is what a job does, as far as its time and memory depend on where and in
// how many containers it runs.
type work struct {
	data  job.Dataset
	model model
	probe job.Probe

	// Training; numerics is nil without it.
	numerics      *job.Numerics
	step          float64   // seconds of one, alone on a thread
	state, global job.Bytes // what a replica stores and what is made of it
	records       int       // that the largest replica reads
	batch         int       // records of its steps
	cut           int       // batch, or 0 where steps cannot be cut
	budget        time.Duration
	// fixed is the estimate of training where it depends on nothing that can be
	// chosen; terms says how the thesis's formula came to it.
	fixed *job.Estimate
	terms string

	// Inference.
	inferBatch, pieces int
	predictions        int     // that a piece keeps
	record             float64 // seconds of one, alone on a thread

	compiled map[choice]map[job.Role]job.Estimate
}

// newWork is the work of running a model over the test part in pieces of whole
// shards, and of merging the counts: what every job does. With keep a piece also
// stores its predictions.
func newWork(d job.Dataset, m model, probe job.Probe, want int, keep bool) (*work, error) {
	if d.Test < 1 || d.ShardRecords < 1 {
		return nil, fmt.Errorf("data set %s has no test records: %w", d.Name, job.ErrSpec)
	}
	w := &work{
		data: d, model: m, probe: probe, compiled: map[choice]map[job.Role]job.Estimate{},
		inferBatch: min(inferBatch, d.Test), pieces: max(1, min(want, d.Shards(job.TestPart))),
	}
	if keep {
		shards := (d.Shards(job.TestPart) + w.pieces - 1) / w.pieces // of the largest piece
		w.predictions = min(shards*d.ShardRecords, d.Test)
	}
	_, flops, err := inferEstimate(d, m, w.inferBatch, w.predictions, probe, choice{threads: 1})
	w.record = rate(flops.Forward, probe.FLOPS) / float64(w.inferBatch)
	return w, err
}

// train adds the work of training.
func (w *work) train(n job.Numerics) error {
	w.numerics = &n
	w.records, w.batch = readRecords(n), stepBatch(n)
	if !w.model.spec.WholeBatches() {
		w.cut = w.batch
	}
	w.state, w.global = stateBytes(n, w.model.parameters)
	_, flops, err := trainEstimate(n, w.model, w.probe, choice{threads: 1, micro: w.cut})
	w.step = rate(flops.Forward+flops.Backward, w.probe.FLOPS)
	return err
}

// replicas is their number, 0 without training.
func (w *work) replicas() int {
	if w.numerics == nil {
		return 0
	}
	return w.numerics.Replicas
}

// units is how many invocations there can be at once at most.
func (w *work) units() int { return max(w.replicas(), w.pieces) }

func (w *work) unitName() string {
	if w.numerics != nil {
		return "one for each replica"
	}
	return "one for each piece of the test part"
}

// window is how many records of a shard are held if it is read in parts.
func (w *work) window(parts int) int {
	most := min(w.data.ShardRecords, max(w.records, w.data.Test))
	return (most + parts - 1) / parts
}

// shape is what the memory of a container depends on.
type shape struct {
	choice
	window int  // records of a shard held at a time; 0 is all of them
	span   bool // training also averages
}

// roles estimates the memory of every role.
func (w *work) roles(s shape) (map[job.Role]job.Estimate, error) {
	base, ok := w.compiled[s.choice]
	if !ok {
		var err error
		if base, err = w.compile(s.choice); err != nil {
			return nil, err
		}
		w.compiled[s.choice] = base
	}
	all := maps.Clone(base)
	if train, ok := all[job.RoleTrain]; ok && w.fixed == nil {
		train.Data = recordWindow(w.data, w.records, w.batch, s.window)
		if s.span {
			// It averages in the memory where it trains.
			train.Fit = max(train.Fit, all[job.RoleAverage].Model)
		}
		train = withSafety(train, w.probe)
		if s.span {
			train.Safety += meetSafety(w.replicas())
		}
		all[job.RoleTrain] = train
	}
	infer := all[job.RoleInfer]
	infer.Data = recordWindow(w.data, w.data.Test, w.inferBatch, s.window) + job.Bytes(w.predictions)*job.PredictionBytes
	all[job.RoleInfer] = inferSafety(infer, w.probe)
	// A container serves all roles, and keeps the threads that it once had.
	for role, e := range all {
		if role != job.RoleProbe {
			e.Safety += job.Bytes(s.threads-1)*threadBytes + w.model.described(role)
			all[role] = e
		}
	}
	return all, nil
}

// compile estimates all roles with whole shards.
func (w *work) compile(c choice) (map[job.Role]job.Estimate, error) {
	infer, _, err := inferEstimate(w.data, w.model, w.inferBatch, w.predictions, w.probe, c)
	if err != nil {
		return nil, err
	}
	all := map[job.Role]job.Estimate{
		job.RoleInfer:    infer,
		job.RoleEvaluate: evaluateEstimate(w.data, w.probe),
		job.RoleProbe:    probeEstimate(w.probe),
	}
	if w.numerics == nil {
		return all, nil
	}
	all[job.RoleAverage] = averageEstimate(*w.numerics, w.model, w.probe)
	if w.fixed != nil {
		all[job.RoleTrain] = *w.fixed
		return all, nil
	}
	all[job.RoleTrain], _, err = trainEstimate(*w.numerics, w.model, w.probe, c)
	return all, err
}

// predict says how long a candidate takes and what it costs.
//
// Containers share the processors: more of them than processors run more slowly,
// each. An invocation takes its computing and the time of what it reads from and
// writes to the store. Rounds follow each other, and after each comes an average,
// in an invocation of its own or where the replicas meet.
func (w *work) predict(c candidate, limits job.Limits) candidate {
	processors := max(limits.Processors, 1)
	faster := speedup(c.threads, c.containers, limits)
	var busy, rounds, trainCalls float64
	if n := w.numerics; n != nil {
		wall, all := spread(n.Replicas, c.containers, processors)
		rounds = float64(n.Rounds())
		each, once := roundTraffic(*n, w.model.parameters, w.roundReads(c.parts, c.span), c.span)
		c.pace = pace{step: w.step * pieceTime(c.micro, w.batch) * c.remakeTime() / faster, waves: wall}
		compute := float64(n.Steps) * c.step
		calls, call := rounds, compute/rounds
		if c.span {
			calls, call = 1, compute // one call goes through all rounds
		}
		// Each hand-over is a call more, with the state out and in.
		handOvers := 0.0
		if w.budget > 0 {
			slowest := max(1, float64(min(c.containers, n.Replicas))/float64(processors))
			handOvers = calls * math.Floor(call*slowest/w.budget.Seconds())
		}
		moved := traffic{2, float64(w.state + w.global)}
		handed := handOvers / rounds * (callSeconds + moved.seconds(w.probe))
		own, average := each.seconds(w.probe)+handed, once.seconds(w.probe)
		if c.span {
			average += pollSeconds
			c.seconds += callSeconds
		} else {
			own += callSeconds
			average += callSeconds
		}
		trainCalls = float64(n.Replicas) * (calls + handOvers)
		if !c.span {
			trainCalls += rounds
		}
		c.round = wall*own + average
		c.seconds += c.pace.seconds(float64(n.Steps), rounds)
		if busy = all * (compute + rounds*own); c.span {
			busy += float64(n.Replicas) * (rounds*average + callSeconds) // the others wait
		} else {
			busy += rounds * average
		}
	}
	wall, all := spread(w.pieces, c.containers, processors)
	share := 1 / float64(w.pieces)
	test := job.Bytes(w.data.Test) * w.data.RecordBytes() * job.Bytes(c.parts)
	each := callSeconds + w.record*float64(w.data.Test)*share/faster + w.transfer(test)*share + w.transfer(valueBytes*job.Bytes(w.model.parameters))
	c.seconds += wall*each + callSeconds
	busy += all*each + callSeconds
	c.calls = trainCalls + float64(w.pieces) + 1
	if c.wait = callWait(c.calls, limits) - c.seconds; c.wait > 0 {
		if c.seconds += c.wait; rounds > 0 {
			c.round += c.wait * trainCalls / c.calls / rounds
		}
	} else {
		c.wait = 0
	}
	c.gbSeconds = busy * float64(c.memory) / float64(job.GB)
	return c
}

// callWait is the least time in which a platform takes so many calls: those of the
// first minute at once, every further minute's when it has begun.
func callWait(calls float64, limits job.Limits) float64 {
	if limits.CallsPerMinute <= 0 {
		return 0
	}
	limit := float64(limits.CallsPerMinute)
	return max(0, calls-limit) / limit * 60
}

// roundReads is what a replica reads of its shards in one round. Between two
// rounds of one invocation the last window stays.
func (w *work) roundReads(parts int, stays bool) traffic {
	n, perShard := w.numerics, min(w.data.ShardRecords, w.records)
	steps := n.RoundSteps * w.batch
	if n.Sync == job.SyncStep {
		steps = n.RoundSteps * n.Batch // the window goes through all records
	}
	shards := float64(steps) / float64(perShard)
	switch pieces := (w.records-1)/w.data.ShardRecords + 1; {
	case !stays:
		shards = math.Floor(shards) + 1
	case pieces == 1 && parts == 1:
		shards = 0
	}
	reads := shards * float64(parts)
	return traffic{reads, reads * float64(job.Bytes(perShard)*(w.data.RecordBytes()+labelBytes))}
}

// transfer is the time of bytes to or from the store.
func (w *work) transfer(b job.Bytes) float64 {
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
