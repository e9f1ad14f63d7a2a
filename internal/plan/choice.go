// SPDX-License-Identifier: Apache-2.0

package plan

import "disdel/internal/job"

const (
	// maxThreads is the most threads that a container is granted unasked. Each takes
	// memory, and steps of common sizes are too short to be shared among many more.
	maxThreads = 16
	// threadGain is how much of a thread's rate each further thread adds.
	threadGain = 0.8
	// pieceRecords is what a piece of a step costs beside its records, in records:
	// pieces of 16 are a tenth slower than batches of 64, pieces of 4 half as fast
	// again (cnn, 28x28x1 and 32x32x3, kernels fma-1).
	pieceRecords = 2
	// remakeCost is how many times as long a step takes that makes the outputs of
	// batch normalisations again (resnet20 and cnn-deep, 32x32x3, kernels fma-1).
	remakeCost = 1.02
)

// choice is what a program is compiled with: threads of a container, the most
// records of a training step that are computed at once, 0 where a step cannot be
// cut, and whether the backward pass makes again what it can.
type choice struct {
	threads, micro int
	remake         bool
}

// remakeTime is how many times as long a step takes whose batch normalisations are
// made again.
func (c choice) remakeTime() float64 {
	if c.remake {
		return remakeCost
	}
	return 1
}

// micros are the numbers of records that are computed at once to be tried, the
// largest first; batch is the records of a step, 0 where it cannot be cut.
func micros(batch int) []int {
	all := []int{batch}
	for n := batch; n > 1; {
		n = pieceBelow(n)
		all = append(all, n)
	}
	return all
}

// pieceBelow returns the largest power of two below n, which is more than 1.
func pieceBelow(n int) int {
	p := 1
	for 2*p < n {
		p *= 2
	}
	return p
}

// pieceTime is how many times as long a step takes in pieces as whole.
func pieceTime(micro, batch int) float64 {
	if micro == 0 || micro >= batch {
		return 1
	}
	cost := func(records int) float64 { return 1 + pieceRecords/float64(records) }
	return cost(micro) / cost(batch)
}

// threadsFor are the numbers of threads to be tried in each of so many
// containers: what the user fixed; else one, and each container's share of the
// processors where there are fewer containers than those.
func threadsFor(spec job.Spec, limits job.Limits, containers int) []int {
	if spec.Threads > 0 {
		return []int{spec.Threads}
	}
	if share := min(limits.Processors/containers, maxThreads); share > 1 && !limits.Assumed {
		return []int{1, share}
	}
	return []int{1}
}

// speedup is how many times as fast as one thread those of a container are, while
// all containers compute.
func speedup(threads, containers int, limits job.Limits) float64 {
	own := max(1, min(threads, limits.Processors/containers))
	return 1 + threadGain*float64(own-1)
}
