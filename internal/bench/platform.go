// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"slices"
	"time"

	"disdel/internal/job"
)

// Latency sums up how long calls took, in seconds.
type Latency struct {
	Calls  int     `json:"calls"`
	Least  float64 `json:"least_seconds"`
	Median float64 `json:"median_seconds"`
	P99    float64 `json:"p99_seconds"`
	Most   float64 `json:"most_seconds"`
}

// Latencies sums up. Percentiles are those of calls that were made: the p99 of a
// hundred is the second longest.
func Latencies(all []time.Duration) Latency {
	if len(all) == 0 {
		return Latency{}
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(share float64) float64 {
		return sorted[min(len(sorted)-1, int(math.Ceil(share*float64(len(sorted))))-1)].Seconds()
	}
	return Latency{Calls: len(sorted), Least: sorted[0].Seconds(), Median: at(0.5), P99: at(0.99), Most: sorted[len(sorted)-1].Seconds()}
}

// PlatformRow is what a kind of containers takes beside the work itself.
type PlatformRow struct {
	Platform    string `json:"platform"`
	Enforcement string `json:"enforcement"`
	// Cold are calls of a task that does nothing, each of which starts a container;
	// Warm those that find one.
	Cold Latency `json:"cold"`
	Warm Latency `json:"warm"`
	// Outside is what warm training invocations of a job take beside the training
	// steps, from the call to the outcome.
	Outside Latency `json:"outside"`
	// Empty is what the engine takes to start a container of an empty program, see
	// it end and remove it; nil for platforms without an engine.
	Empty *Latency `json:"empty,omitempty"`
}

// Crowd is what came of calls that were made at once, several times.
type Crowd struct {
	AtOnce int `json:"at_once"`
	// Latency is of those that succeeded.
	Latency   Latency `json:"latency"`
	Throttled int     `json:"throttled"`
	Failed    int     `json:"failed"`
	// Error is one of the failures.
	Error string `json:"error,omitempty"`
	// Memory is the server's resident memory before the first time and after each.
	Memory []job.Bytes `json:"memory_bytes"`
}
