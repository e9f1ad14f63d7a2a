// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math"
	"strings"

	"disdel/internal/job"
)

const (
	// accuracyPrice is the most accuracy, as a fraction, that a plan may be
	// expected to cost when the user has fixed none of what decides it.
	accuracyPrice = 0.02
	// negligible is what the spread over seeds hides.
	negligible = 0.005
	// Beyond so many steps and rounds more of them changed nothing that was
	// measured.
	plentySteps, plentyRounds = 1000, 50
	// alike is by how much a plan may be easier than a measured setting and still
	// count as that setting, as the logarithm to base 2 of a ratio.
	alike = 0.5
)

// setting is a way to divide training whose accuracy was measured. rounds 1 is
// plain averaging at the end; with more the outer optimizer acts.
type setting struct {
	replicas int
	spread   float64 // replicas x local batch, in sequential batches
	steps    int     // of each replica
	rounds   int
	measured []measurement
}

// measurement is what a setting cost on a data set: the accuracy of sequential
// training less that of the setting, in points.
type measurement struct {
	dataset string
	points  float64
}

// settings are all measured settings, the rows of docs/adr/0018: those of mnist,
// fashion_mnist and cifar10 are for 1 or 2 seeds, those of digits and
// binary_alpha_digits means over 5. Everywhere the model is cnn, the batch 64, with
// 5 epochs of Adam at 0.001. Steps and rounds are about those of the row.
var settings = []setting{
	// Rounds of 20 steps, outer Nesterov 0.7 / 0.9, many steps.
	{2, 2, 1000, 50, []measurement{{"cifar10", 0.4}}},
	{4, 4, 1000, 50, []measurement{{"mnist", 0}, {"fashion_mnist", -0.5}, {"cifar10", -0.8}}},
	{8, 4, 1000, 50, []measurement{{"mnist", 0.1}, {"fashion_mnist", 0}, {"cifar10", 0.2}}},
	{8, 8, 550, 28, []measurement{{"mnist", 0.3}, {"fashion_mnist", 1.0}, {"cifar10", 5.1}}},
	{16, 4, 1000, 50, []measurement{{"mnist", 0.1}, {"fashion_mnist", 0.4}, {"cifar10", 3.3}}},
	{16, 2, 2000, 50, []measurement{{"fashion_mnist", -0.4}, {"cifar10", 2.6}}},
	{32, 4, 1000, 50, []measurement{{"fashion_mnist", 0.7}, {"cifar10", 3.8}}},
	// The same, few steps.
	{2, 0.125, 800, 40, []measurement{{"digits", -5.2}, {"binary_alpha_digits", -9.0}}},
	{4, 0.25, 400, 20, []measurement{{"digits", -3.3}, {"binary_alpha_digits", -6.6}}},
	{4, 1, 100, 5, []measurement{{"digits", 0.4}, {"binary_alpha_digits", 6.9}}},
	{2, 0.5, 200, 10, []measurement{{"digits", -2.2}, {"binary_alpha_digits", -4.2}}},
	{2, 2, 52, 3, []measurement{{"digits", 5.7}, {"binary_alpha_digits", 13.7}}},
	{4, 2, 52, 3, []measurement{{"digits", 8.1}, {"binary_alpha_digits", 14.0}}},
	{4, 4, 27, 2, []measurement{{"digits", 22.1}, {"binary_alpha_digits", 27.6}}},
	{8, 2, 52, 3, []measurement{{"digits", 14.0}, {"binary_alpha_digits", 21.5}}},
	{8, 0.5, 200, 10, []measurement{{"digits", -1.3}, {"binary_alpha_digits", 2.4}}},
	{16, 1, 100, 5, []measurement{{"digits", 3.0}, {"binary_alpha_digits", 21.9}}},
	{32, 2, 52, 3, []measurement{{"digits", 26.1}, {"binary_alpha_digits", 41.5}}},
	{64, 4, 30, 2, []measurement{{"digits", 48.5}}},
	{256, 4, 30, 2, []measurement{{"digits", 71.4}}},
	// Few rounds.
	{4, 4, 1000, 5, []measurement{{"fashion_mnist", 0.8}}},
	{4, 0.25, 400, 5, []measurement{{"digits", -3.7}, {"binary_alpha_digits", -2.8}}},
	{4, 0.25, 400, 2, []measurement{{"digits", -1.1}, {"binary_alpha_digits", 2.6}}},
	// One average at the end.
	{2, 0.125, 800, 1, []measurement{{"digits", -3.5}, {"binary_alpha_digits", 5.4}}},
	{4, 0.25, 400, 1, []measurement{{"digits", -1.0}, {"binary_alpha_digits", 18.3}}},
	{8, 0.5, 200, 1, []measurement{{"digits", 6.0}, {"binary_alpha_digits", 30.0}}},
	{2, 2, 52, 1, []measurement{{"digits", 8.8}, {"binary_alpha_digits", 21.0}}},
	{4, 1, 100, 1, []measurement{{"digits", 5.9}, {"binary_alpha_digits", 25.2}}},
	{4, 4, 27, 1, []measurement{{"digits", 24.5}, {"binary_alpha_digits", 36.1}}},
	{8, 8, 15, 1, []measurement{{"digits", 44.7}, {"binary_alpha_digits", 45.9}}},
	{4, 4, 1000, 1, []measurement{{"mnist", 1.0}, {"fashion_mnist", 3.6}}},
	{8, 8, 550, 1, []measurement{{"mnist", 2.2}}},
}

// mean is what the setting cost on average, in points.
func (s setting) mean() float64 {
	sum := 0.0
	for _, m := range s.measured {
		sum += m.points
	}
	return sum / float64(len(s.measured))
}

// easier says by how much s is easier on accuracy than t: the sum of the logarithms
// to base 2 of the ratios by which s has fewer replicas, less spread, more steps and
// more rounds. What s has harder takes nothing off. One
// round is plain averaging, and harder than rounds with the outer optimizer.
func (s setting) easier(t setting) float64 {
	less := func(a, b float64) float64 { return max(0, math.Log2(b/a)) }
	steps := func(n int) float64 { return float64(min(max(n, 1), plentySteps)) }
	rounds := func(n int) float64 { return float64(min(max(n, 1), plentyRounds)) }
	return less(float64(s.replicas), float64(t.replicas)) + less(s.spread, t.spread) +
		less(steps(t.steps), steps(s.steps)) + less(rounds(t.rounds), rounds(s.rounds))
}

// dearest returns the setting of a numerics plan and, of the measured ones that it
// is no easier than, the one that cost most, the nearest among equals. A plan that is
// harder in one respect only joins more of them, so that its cost cannot be less.
// ok is false where all that was measured is harder.
func dearest(n job.Numerics) (own, worst setting, ok bool) {
	own = setting{
		replicas: n.Replicas, spread: float64(n.Replicas*n.LocalBatch) / float64(max(n.Batch, 1)), steps: n.Steps, rounds: n.Rounds(),
	}
	for _, s := range settings {
		if own.easier(s) > alike {
			continue
		}
		dearer := s.mean() > worst.mean() || s.mean() == worst.mean() && s.easier(own) < worst.easier(own)
		if !ok || dearer {
			worst, ok = s, true
		}
	}
	return own, worst, ok
}

// AccuracyCost is the accuracy that dividing the training among replicas is
// expected to cost, as a fraction, and where that comes from: the mean over data
// sets of what the dearest measured setting cost that is not harder. It never falls
// when replicas are added or steps taken away, all else equal. It is 0 with no note
// for one replica, for gradients averaged at every step, which is sequential training,
// and where the measured difference was negligible or a gain.
func AccuracyCost(n job.Numerics) (fraction float64, note string) {
	if n.Replicas <= 1 || n.Steps < 1 || n.RoundSteps < 1 || n.Sync == job.SyncStep {
		return 0, ""
	}
	own, s, ok := dearest(n)
	if !ok || s.mean()/100 < negligible {
		return 0, ""
	}
	fraction = s.mean() / 100
	var each []string
	for _, m := range s.measured {
		each = append(each, fmt.Sprintf("%s %.1f", m.dataset, m.points))
	}
	about := "about"
	if s.easier(own) > alike {
		about = "at least" // harder than what was measured
	}
	rounds := fmt.Sprintf("%d rounds", s.rounds)
	if s.rounds == 1 {
		rounds = "one average at the end"
	}
	return fraction, fmt.Sprintf("%s %.1f points less than one worker would reach; measured with %d replicas, about %d steps each, %s: %s.",
		about, s.mean(), s.replicas, s.steps, rounds, strings.Join(each, ", "))
}
