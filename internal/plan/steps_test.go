// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"strings"
	"testing"

	"disdel/internal/job"
)

// TestNumerics_StepsAndRoundsAreBounded: a job that nobody can finish, and whose
// log no store can hold, is refused with advice.
func TestNumerics_StepsAndRoundsAreBounded(t *testing.T) {
	d := job.Dataset{Name: "x", Height: 8, Width: 8, Channels: 1, Classes: 4, Train: 60_000, Test: 10, ShardRecords: 50}
	for _, c := range []struct {
		name  string
		spec  job.Spec
		train int
		says  string // "" is no error
	}{
		{"most rounds", job.Spec{Epochs: 1000, Replicas: 3, LocalBatch: 1}, 60_000, ""},
		{"too many rounds", job.Spec{Epochs: 1001, Replicas: 3, LocalBatch: 1}, 60_000, "1001000 rounds"},
		{"too many rounds without a fixed number", job.Spec{Epochs: job.MaxEpochs}, 60_000, "--rounds"},
		{"rounds are fixed", job.Spec{Epochs: 1001, Replicas: 3, LocalBatch: 1, Rounds: 10}, 60_000, ""},
		{"most steps", job.Spec{Epochs: 9, Replicas: 1, LocalBatch: 1}, 111_111_111, ""},
		{"too many steps", job.Spec{Epochs: 9, Replicas: 1, LocalBatch: 1}, 111_111_112, "more than the 999999999 steps"},
		{"far too many steps", job.Spec{Epochs: job.MaxEpochs, Replicas: 1, LocalBatch: 1}, 1 << 40, "fewer epochs or a larger --batch"},
	} {
		c.spec.Kind, c.spec.Dataset = job.Train, "x"
		data := d
		data.Train = c.train
		n, err := Numerics(c.spec.WithDefaults(), data, "k")
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.says == "" && (n.Steps > maxSteps || n.Rounds() > job.MaxRounds):
			t.Errorf("%s: %d steps, %d rounds", c.name, n.Steps, n.Rounds())
		case c.says != "" && (!errors.Is(err, job.ErrSpec) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v; want one that says %q", c.name, err, c.says)
		}
	}
}
