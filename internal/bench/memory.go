// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"disdel/internal/job"
)

// What the prediction of a worker's memory promises: never less than it takes, and
// the excess within these, whichever is more.
const (
	MedianExcessBytes = job.MB
	MedianExcessShare = 0.03
	WorstExcessBytes  = 2 * job.MB
	WorstExcessShare  = 0.10
	// MedianCases is from how many cases on the median is judged: that of a few says
	// more about which they are than about the prediction.
	MedianCases = 20
)

// MemoryCase is a training worker whose memory is predicted and measured.
type MemoryCase struct {
	Model     string `json:"model"`
	Height    int    `json:"height"`
	Width     int    `json:"width"`
	Channels  int    `json:"channels"`
	Classes   int    `json:"classes"`
	Batch     int    `json:"batch"`
	Optimizer string `json:"optimizer"`
	// Records are all, ShardRecords those of a shard.
	Records      int `json:"records"`
	ShardRecords int `json:"shard_records"`
}

// String is one line.
func (c MemoryCase) String() string {
	return fmt.Sprintf("%s %dx%dx%d, %d classes, batch %d, %s, %d records in shards of %d",
		c.Model, c.Height, c.Width, c.Channels, c.Classes, c.Batch, c.Optimizer, c.Records, c.ShardRecords)
}

const (
	// Sides of records, from the least that every named model takes.
	memoryLeastSide, memoryMostSide = 12, 40
	memoryMostBatch                 = 256
)

// MemoryCases are so many cases, drawn from the seed alone: batch sizes by their
// logarithm, all else evenly.
func MemoryCases(seed uint64, n int, models, optimizers []string) []MemoryCase {
	random := rand.New(rand.NewPCG(seed, 0))
	cases := make([]MemoryCase, n)
	for i := range cases {
		side := func() int { return memoryLeastSide + random.IntN(memoryMostSide-memoryLeastSide+1) }
		c := MemoryCase{
			Model: models[random.IntN(len(models))], Height: side(), Width: side(), Channels: []int{1, 3}[random.IntN(2)],
			Classes: 2 + random.IntN(99), Optimizer: optimizers[random.IntN(len(optimizers))],
			Batch: int(math.Round(math.Exp(random.Float64() * math.Log(memoryMostBatch)))),
		}
		c.Records = c.Batch + 300 + random.IntN(3000)
		c.ShardRecords = 1 + c.Records/(1+random.IntN(4))
		cases[i] = c
	}
	return cases
}

// MemoryRun is what a case took. Seconds is how long its prediction took.
type MemoryRun struct {
	Case      MemoryCase `json:"case"`
	Predicted job.Bytes  `json:"predicted_bytes"`
	Peak      job.Bytes  `json:"peak_bytes"`
	Seconds   float64    `json:"prediction_seconds"`
}

// Excess is by how much the prediction is above the peak.
func (r MemoryRun) Excess() job.Bytes { return r.Predicted - r.Peak }

// share is the excess over the peak.
func (r MemoryRun) share() float64 { return float64(r.Excess()) / float64(r.Peak) }

// MemorySummary says how good predictions were.
type MemorySummary struct {
	Cases int `json:"cases"`
	// Under counts the cases that took more than was predicted.
	Under int `json:"under"`
	// Excess is in bytes, Share over the peak.
	Excess Spread `json:"excess_bytes"`
	Share  Spread `json:"excess_share"`
	// BeyondWorst counts the cases whose excess is above both WorstExcessBytes and
	// WorstExcessShare.
	BeyondWorst int `json:"beyond_worst"`
	// Kept says that all that the prediction promises is true.
	Kept bool `json:"kept"`
	// Seconds is how long predictions took.
	Seconds Spread `json:"prediction_seconds"`
}

// SummariseMemory sums up runs.
func SummariseMemory(runs []MemoryRun) MemorySummary {
	s := MemorySummary{Cases: len(runs)}
	var excess, share, seconds []float64
	for _, r := range runs {
		excess, share, seconds = append(excess, float64(r.Excess())), append(share, r.share()), append(seconds, r.Seconds)
		if r.Excess() < 0 {
			s.Under++
		}
		if r.Excess() > WorstExcessBytes && r.share() > WorstExcessShare {
			s.BeyondWorst++
		}
	}
	s.Excess, s.Share, s.Seconds = SpreadOf(excess), SpreadOf(share), SpreadOf(seconds)
	middle := s.Cases < MedianCases || s.Excess.Median <= float64(MedianExcessBytes) || s.Share.Median <= MedianExcessShare
	s.Kept = s.Cases > 0 && s.Under == 0 && s.BeyondWorst == 0 && middle
	return s
}

// WorstMemory are the n runs with the least excess and the n with the largest.
func WorstMemory(runs []MemoryRun, n int) (least, most []MemoryRun) {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b MemoryRun) int { return cmp.Compare(a.Excess(), b.Excess()) })
	n = min(n, len(sorted))
	most = slices.Clone(sorted[len(sorted)-n:])
	slices.Reverse(most)
	return sorted[:n], most
}
