// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"slices"
)

// Strategy says how the work of a training job is divided.
type Strategy string

// The strategies.
const (
	// Distributed trains replicas in containers and averages them, as planned.
	Distributed Strategy = "distributed"
	// Single is the machine that the thesis compares with: the same training, one
	// batch after the other in one worker, without a platform's limits.
	Single Strategy = "single"
	// BruteForce is the thesis's baseline: one action that holds the whole
	// training part, at the platform's default limits, and again from the start
	// with more memory or time after each failure. Nothing is planned.
	BruteForce Strategy = "brute-force"
)

// Estimator says how memory is estimated.
type Estimator string

// The estimators.
const (
	// Exact counts what a worker takes, see package plan.
	Exact Estimator = "exact"
	// Thesis is the thesis's own formula, see package plan.
	Thesis Estimator = "thesis"
)

// Objective is what the scheduler makes small. Among equals the others decide.
type Objective string

// The objectives.
const (
	// LeastTime is the predicted wall time.
	LeastTime Objective = "time"
	// LeastMemory is the sum of the limits of all containers at once.
	LeastMemory Objective = "memory"
	// LeastCost is the limit of memory times time, summed over invocations.
	LeastCost Objective = "cost"
)

// Sequential reports whether one replica takes all steps, one after the other:
// nothing is divided and nothing averaged.
func (s Spec) Sequential() bool { return s.Strategy == Single || s.Strategy == BruteForce }

// checkStrategy checks the fields above. Jobs of older versions have none of
// them, which means the defaults.
func (s Spec) checkStrategy(check func(ok bool, format string, args ...any)) {
	check(known(s.Strategy, Distributed, Single, BruteForce), "strategy %.40q: want %s, %s or %s", s.Strategy, Distributed, Single, BruteForce)
	check(known(s.Estimator, Exact, Thesis), "estimator %.40q: want %s or %s", s.Estimator, Exact, Thesis)
	check(known(s.Minimize, LeastTime, LeastMemory, LeastCost), "minimize %.40q: want %s, %s or %s", s.Minimize, LeastTime, LeastMemory, LeastCost)
	if s.Sequential() {
		why := fmt.Sprintf("one worker takes all steps with strategy %s", s.Strategy)
		check(s.Replicas == 0, "workers %d: %s", s.Replicas, why)
		check(s.LocalBatch == 0, "local batch %d: %s", s.LocalBatch, why)
		check(s.Rounds == 0, "rounds %d: %s", s.Rounds, why)
	}
	if s.Strategy == BruteForce {
		const why = "nothing is planned with strategy brute-force"
		check(known(s.Estimator, Exact), "estimator %.40s: %s", s.Estimator, why)
		check(known(s.Minimize, LeastTime), "minimize %.40s: %s", s.Minimize, why)
	}
}

func known[T ~string](value T, values ...T) bool {
	return value == "" || slices.Contains(values, value)
}
