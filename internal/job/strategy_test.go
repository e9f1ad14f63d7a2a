// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"errors"
	"strings"
	"testing"

	"disdel/internal/job"
)

// TestSpec_Strategies: what a strategy, an estimator and an objective go with.
func TestSpec_Strategies(t *testing.T) {
	base := job.Spec{Kind: job.Train, Dataset: "mnist"}.WithDefaults()
	for _, c := range []struct {
		name   string
		change func(s *job.Spec)
		says   string // "" is no error
	}{
		{"an older version's job", func(s *job.Spec) { s.Strategy, s.Estimator, s.Minimize = "", "", "" }, ""},
		{"single", func(s *job.Spec) { s.Strategy = job.Single }, ""},
		{"brute force", func(s *job.Spec) { s.Strategy = job.BruteForce }, ""},
		{"all of distributed", func(s *job.Spec) {
			s.Replicas, s.LocalBatch, s.Rounds, s.Estimator, s.Minimize = 2, 3, 4, job.Thesis, job.LeastCost
		}, ""},
		{"single by the thesis", func(s *job.Spec) { s.Strategy, s.Estimator, s.Minimize = job.Single, job.Thesis, job.LeastMemory }, ""},
		{"strategy", func(s *job.Spec) { s.Strategy = "genius" }, `strategy "genius": want distributed, single or brute-force`},
		{"estimator", func(s *job.Spec) { s.Estimator = "guess" }, `estimator "guess": want exact or thesis`},
		{"minimize", func(s *job.Spec) { s.Minimize = "effort" }, `minimize "effort": want time, memory or cost`},
		{"workers", func(s *job.Spec) { s.Strategy, s.Replicas = job.Single, 1 }, "workers 1: one worker"},
		{"local batch", func(s *job.Spec) { s.Strategy, s.LocalBatch = job.BruteForce, 8 }, "local batch 8: one worker"},
		{"rounds", func(s *job.Spec) { s.Strategy, s.Rounds = job.Single, 1 }, "rounds 1: one worker"},
		{"planned brute force", func(s *job.Spec) { s.Strategy, s.Minimize = job.BruteForce, job.LeastMemory }, "minimize memory: nothing is planned"},
		{"estimated brute force", func(s *job.Spec) { s.Strategy, s.Estimator = job.BruteForce, job.Thesis }, "estimator thesis: nothing is planned"},
	} {
		s := base
		c.change(&s)
		switch err := s.Validate(); {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.says != "" && (!errors.Is(err, job.ErrSpec) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.says)
		}
	}
}
