// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"

	"disdel/internal/job"
)

// Spread is the least, middle and largest of some figures.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// SpreadOf sums up figures; of none it is 0.
func SpreadOf(all []float64) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return Spread{sorted[0], (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[n-1]}
}

// Row sums up the runs of one configuration. Figures are over the runs that
// succeeded.
type Row struct {
	Configuration Configuration `json:"configuration"`
	Runs          int           `json:"runs"`
	FailedRuns    int           `json:"failed_runs"`

	Replicas   int `json:"replicas"`
	LocalBatch int `json:"local_batch"`
	Rounds     int `json:"rounds"`

	// MeanAccuracy and Accuracy are fractions.
	MeanAccuracy float64 `json:"mean_accuracy"`
	Accuracy     Spread  `json:"accuracy"`
	// Gain is by how much MeanAccuracy is above that of the configuration that
	// this one is compared with, as a fraction; Ratio is the quotient of the
	// least times.
	Gain  float64 `json:"gain"`
	Ratio float64 `json:"ratio"`
	// Seconds are from outside, InitSeconds the means of what containers took to
	// start.
	Seconds     Spread  `json:"seconds"`
	InitSeconds float64 `json:"init_seconds"`
	GBSeconds   float64 `json:"gb_seconds"`
	// InferSeconds are those of the jobs that ran the models again; 0 without.
	InferSeconds Spread `json:"infer_seconds"`

	// Containers is the largest number of any run, Failed the sum over all runs,
	// the failed ones too.
	Containers int `json:"containers"`
	Failed     int `json:"failed_containers"`
	// Limit is the largest memory limit of a container, Peak the highest peak of
	// one, PeakSum the largest sum of a job's peaks.
	Limit   job.Bytes `json:"memory_limit_bytes"`
	Peak    job.Bytes `json:"memory_peak_bytes"`
	PeakSum job.Bytes `json:"memory_peak_sum_bytes"`
	// LeastMargin and MostMargin are the least and the largest difference of
	// predicted memory and measured peak of one call; below 0 a peak was above
	// its prediction. MostShare is the largest difference over its peak.
	LeastMargin job.Bytes `json:"least_margin_bytes"`
	MostMargin  job.Bytes `json:"most_margin_bytes"`
	MostShare   float64   `json:"most_margin_share"`
	// Outside is the number of calls whose peak was above its prediction or its
	// limit, or whose prediction was above the peak by more than both [MarginBytes]
	// and [MarginShare] of it.
	Outside int `json:"calls_outside"`
}

// MarginBytes and MarginShare are how far a prediction of memory may be above the
// peak: whichever is more.
const (
	MarginBytes = 2 * job.MB
	MarginShare = 0.15
)

func outside(a job.RecordAction) bool {
	margin := a.Predicted - a.Peak
	return margin < 0 || a.Peak > a.MemoryLimit || margin > MarginBytes && float64(margin) > MarginShare*float64(a.Peak)
}

// Summarise makes a row of each configuration.
func Summarise(all []Configuration, samples []Sample) []Row {
	rows := make([]Row, len(all))
	for i, c := range all {
		rows[i] = row(c, i, samples)
		if base := rows[c.Base]; base.Runs > base.FailedRuns && rows[i].Runs > rows[i].FailedRuns {
			rows[i].Gain = rows[i].MeanAccuracy - base.MeanAccuracy
			rows[i].Ratio = rows[i].Seconds.Min / base.Seconds.Min
		}
	}
	return rows
}

func row(c Configuration, index int, samples []Sample) Row {
	r := Row{Configuration: c}
	var accuracy, seconds, infer []float64
	margins := false
	for _, s := range samples {
		if s.Configuration != index {
			continue
		}
		m := s.Record.Metrics
		r.Runs++
		for _, record := range s.jobs() {
			r.Failed += record.Metrics.FailedContainers
		}
		if s.Failed() != nil {
			r.FailedRuns++
			continue
		}
		r.Replicas, r.LocalBatch, r.Rounds = s.Record.Replicas, s.Record.LocalBatch, s.Record.Rounds
		accuracy = append(accuracy, s.Record.Accuracy)
		seconds = append(seconds, s.Wall.Seconds())
		r.InitSeconds += m.InitSeconds
		r.GBSeconds += m.GBSeconds
		r.Containers = max(r.Containers, m.Containers)
		r.PeakSum = max(r.PeakSum, m.MemoryPeak)
		var calls []job.RecordAction
		for _, record := range s.jobs() {
			calls = append(calls, record.Actions...)
		}
		if s.Infer != nil {
			infer = append(infer, s.InferWall.Seconds())
		}
		for _, a := range calls {
			r.Limit, r.Peak = max(r.Limit, a.MemoryLimit), max(r.Peak, a.Peak)
			if a.Predicted == 0 || a.Peak == 0 || a.Outcome != "success" {
				continue
			}
			if outside(a) {
				r.Outside++
			}
			margin := a.Predicted - a.Peak
			if !margins {
				r.LeastMargin, r.MostMargin, margins = margin, margin, true
			}
			r.LeastMargin, r.MostMargin = min(r.LeastMargin, margin), max(r.MostMargin, margin)
			r.MostShare = max(r.MostShare, float64(margin)/float64(a.Peak))
		}
	}
	if n := float64(len(accuracy)); n > 0 {
		for _, a := range accuracy {
			r.MeanAccuracy += a / n
		}
		r.InitSeconds /= n
		r.GBSeconds /= n
	}
	r.Accuracy, r.Seconds, r.InferSeconds = SpreadOf(accuracy), SpreadOf(seconds), SpreadOf(infer)
	return r
}
