// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"

	"disdel/internal/bench"
	"disdel/internal/job"
)

func TestBench(t *testing.T) {
	rows := []bench.Row{
		{
			Configuration: bench.Configuration{Dataset: "mnist"}, Runs: 2, Replicas: 4, LocalBatch: 64, Rounds: 60,
			MeanAccuracy: 0.975, Accuracy: bench.Spread{Min: 0.97, Median: 0.975, Max: 0.98}, Ratio: 1,
			Seconds: bench.Spread{Min: 1, Median: 1.5, Max: 2}, Containers: 4, Limit: 128 * job.MB, Peak: 12 * job.MB, PeakSum: 40 * job.MB,
			LeastMargin: -job.MB / 4, MostMargin: job.MB, MostShare: 0.125, GBSeconds: 0.5, InitSeconds: 0.25,
			InferSeconds: bench.Spread{Min: 0.125, Median: 0.25, Max: 1}, Outside: 3,
		},
		{Configuration: bench.Configuration{Dataset: "mnist", Case: []bench.Setting{{Flag: "rounds", Value: "1"}}}, Runs: 1, FailedRuns: 1, Failed: 3},
		{Configuration: bench.Configuration{Dataset: "mnist", Case: []bench.Setting{{Flag: "store", Value: "redis://me:secret@host/1"}}}, Runs: 1},
	}
	var out bytes.Buffer
	if err := Bench(&out, bench.Machine{Processors: 2, System: "linux"}, rows); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"processor unknown, 2 processors, linux",
		"mnist     defaults                     4x64      60      2     97.50 %   97.00..98.00     +0.00   1.00     1.50..2.00    1.00   0\n",
		"mnist     rounds=1                     -         -       1     -         -                -       -        -             -      3 (1 of 1 runs failed)\n",
		"mnist     defaults                     4           128 MB  12 MB         40 MB         -0.25..1.00 MB        12 %     3        0.500       0.250 s  0.12 s\n",
		"store=redis://me:...@host/1",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not say %q:\n%s", want, &out)
		}
	}
}
