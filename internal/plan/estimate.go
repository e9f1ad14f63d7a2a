// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"disdel/internal/job"
	"disdel/internal/nn"
)

const (
	// labelBytes is what a record's label takes beside its pixels, orderBytes
	// what its place in a shuffle takes.
	labelBytes = 2
	orderBytes = 4
	// pageTableShare: one page-table entry of 8 bytes maps a page of 4 KB.
	pageTableShare = 512
	// safetyBytes covers what a probe cannot see: the spread of the runtime's
	// own memory between runs, and mappings rounded up to pages.
	safetyBytes = 480 * job.KB
	// aloneBytes covers what the runtime keeps for the only replica of a job when it
	// averages on the way, and meetBytes for each of several, which wait for each
	// other: threads for files that were waited for, and their stacks. For each of the
	// first meetMost replicas peerBytes more cover what looking for its state leaves on
	// the heap until that is freed. Nothing grows with the rounds.
	aloneBytes = 256 * job.KB
	meetBytes  = 448 * job.KB
	peerBytes  = 36 * job.KB
	meetMost   = 32
	// inferBytes and evaluateBytes cover what a worker has while it predicts, or merges
	// counts, and no longer at the end of that, which is when a probe looks: up to 510 and
	// 300 KB were seen beside the other terms.
	inferBytes    = 256 * job.KB
	evaluateBytes = 128 * job.KB
	// startBytes covers the spread of what a worker takes to start.
	startBytes = 256 * job.KB
	// threadBytes covers what the runtime and the kernel keep for one thread more,
	// and do not give back: stacks, a processor's caches, the kernel's own books.
	threadBytes = 256 * job.KB
	// describeBytes covers what lies on the heap of one tensor's descriptions while
	// one state is read and another written, in files of four groups of tensors at
	// most; useBytes the same where there is one group. A probe's model has
	// probeTensors itself.
	describeBytes = 10 * job.KB
	useBytes      = 8 * job.KB
	probeTensors  = 6
	// confusionBytes is what merging holds for each pair of classes: the counts
	// of one piece and their sum, in memory and as text.
	confusionBytes = 64
)

// model is a compiled model's sizes.
type model struct {
	spec       nn.Spec
	parameters int
	tensors    int
}

func parseModel(raw []byte) (model, error) {
	spec, err := nn.ParseSpec(raw)
	if err != nil {
		return model{}, fmt.Errorf("plan: model of the job: %w", err)
	}
	return model{spec: spec, parameters: spec.ParamCount(), tensors: len(spec.Params())}, nil
}

// recordWindow is the memory that holds a window of that many records, 0 for a
// whole piece, and one batch. A part of a piece needs a list of its records too.
func recordWindow(d job.Dataset, records, batch, window int) job.Bytes {
	piece := min(d.ShardRecords, records)
	held, listed := piece, 0
	if window > 0 && window < piece {
		held, listed = window, window
	}
	pieces := records/d.ShardRecords + 2
	return job.Bytes(held+batch)*(d.RecordBytes()+labelBytes) + job.Bytes(piece+pieces+listed)*orderBytes
}

// described is what the descriptions of the model's tensors take in a role.
func (m model) described(role job.Role) job.Bytes {
	more := job.Bytes(max(0, m.tensors-probeTensors))
	switch role {
	case job.RoleTrain, job.RoleAverage:
		return more * describeBytes
	case job.RoleInfer, job.RoleEvaluate:
		return more * useBytes
	case job.RoleProbe, job.RoleNothing:
	}
	return 0
}

// withSafety adds what no term covers. A worker with next to no work is at its largest
// when it starts.
func withSafety(e job.Estimate, probe job.Probe) job.Estimate {
	work := e.Fit + e.Data + e.Model
	e.Safety = max(safetyBytes+work/pageTableShare, probe.Floor+startBytes-e.Package-work)
	return e
}

// inferSafety is withSafety of a piece that is predicted.
func inferSafety(e job.Estimate, probe job.Probe) job.Estimate {
	e = withSafety(e, probe)
	e.Safety += inferBytes
	return e
}

// stepBatch is the most records that a step of any replica has: a worker compiles
// for no more.
func stepBatch(n job.Numerics) int {
	if n.Sync == job.SyncStep {
		return n.LocalBatch
	}
	return min(n.LocalBatch, (n.Dataset.Train+n.Replicas-1)/n.Replicas)
}

// readRecords is how many records the largest replica reads: its own, or all where
// it has a part of every batch.
func readRecords(n job.Numerics) int {
	if n.Sync == job.SyncStep {
		return n.Dataset.Train
	}
	return (n.Dataset.Train-1)/n.Replicas + 1
}

// meetSafety is what one of so many replicas takes beside its work when they average
// on the way.
func meetSafety(replicas int) job.Bytes {
	if replicas == 1 {
		return aloneBytes
	}
	return meetBytes + job.Bytes(min(replicas, meetMost))*peerBytes
}

func trainEstimate(n job.Numerics, m model, probe job.Probe, c choice) (job.Estimate, nn.FLOPs, error) {
	batch, optimizer := stepBatch(n), nn.Optimizer(n.Local)
	if n.Sync == job.SyncStep {
		// Replicas only make gradients; whoever adds them up has the optimizer.
		optimizer = nn.Optimizer{Kind: nn.KindSGD, LearningRate: n.Local.LearningRate}
	}
	program, err := nn.Compile(m.spec, nn.Config{
		Batch:      batch,
		MicroBatch: c.micro,
		Remake:     c.remake,
		Train:      true,
		Optimizer:  optimizer,
		Threads:    c.threads,

		LabelSmoothing: n.LabelSmoothing,
		Augment:        nn.Augment{Flips: n.Flips, Shifts: n.Shifts},
		KeepGradients:  n.Sync == job.SyncStep,
	})
	if err != nil {
		return job.Estimate{}, nn.FLOPs{}, fmt.Errorf("plan: compile %s: %w", m.spec.Name, err)
	}
	return withSafety(job.Estimate{
		Fit:     job.Bytes(program.Sizes().Total),
		Package: probe.Package,
		Data:    recordWindow(n.Dataset, readRecords(n), batch, 0),
	}, probe), program.FLOPs(), nil
}

// averageEstimate counts what averaging holds for each parameter: float64 sums
// of the weights and of every moment, weights and the outer momentum in float32;
// of gradients one float64 sum, weights and moments in float32. A test of package
// worker holds it equal to what the worker takes.
func averageEstimate(n job.Numerics, m model, probe job.Probe) job.Estimate {
	moments := nn.Optimizer(n.Local).Moments()
	each := 8*(1+moments) + 2*4
	if n.Sync == job.SyncStep {
		each = 8 + 4*(1+moments)
	}
	return withSafety(job.Estimate{
		Package: probe.Package,
		Model:   job.Bytes(m.parameters) * job.Bytes(each),
	}, probe)
}

// inferEstimate is that of a piece of which the given number of predictions is
// kept until its end.
func inferEstimate(d job.Dataset, m model, batch, predictions int, probe job.Probe, c choice) (job.Estimate, nn.FLOPs, error) {
	program, err := nn.Compile(m.spec, nn.Config{Batch: batch, Threads: c.threads})
	if err != nil {
		return job.Estimate{}, nn.FLOPs{}, fmt.Errorf("plan: compile %s: %w", m.spec.Name, err)
	}
	return inferSafety(job.Estimate{
		Fit:     job.Bytes(program.Sizes().Total),
		Package: probe.Package,
		Data:    recordWindow(d, d.Test, batch, 0) + job.Bytes(predictions)*job.PredictionBytes,
		Model:   confusion(d),
	}, probe), program.FLOPs(), nil
}

// probeEstimate is what another probe would take. It predicts nothing about the
// probe that it is made of: its row in a report restates that measurement, with
// the safety added.
func probeEstimate(probe job.Probe) job.Estimate {
	return withSafety(job.Estimate{Package: probe.Package, Model: probe.Held}, probe)
}

func evaluateEstimate(d job.Dataset, probe job.Probe) job.Estimate {
	e := withSafety(job.Estimate{Package: probe.Package, Model: confusion(d)}, probe)
	e.Safety += evaluateBytes
	return e
}

func confusion(d job.Dataset) job.Bytes {
	return job.Bytes(d.Classes) * job.Bytes(d.Classes) * confusionBytes
}
