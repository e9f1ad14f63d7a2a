// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"

	"disdel/internal/bench"
	"disdel/internal/job"
)

// Bench prints an experiment: what was reached and how long it took, then what
// it took of memory.
func Bench(w io.Writer, machine bench.Machine, rows []bench.Row) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", oneLine(machine.String())); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	t := newTable(w)
	t.row("data set", "job", "replicas", "rounds", "runs", "accuracy", "lowest..highest", "points", "seconds", "median..most", "times", "failed")
	for _, r := range rows {
		name, settings := benchName(r)
		if r.Runs == r.FailedRuns {
			t.row(name, settings, "-", "-", r.Runs, "-", "-", "-", "-", "-", "-", benchFailed(r))
			continue
		}
		t.row(name, settings, fmt.Sprintf("%dx%d", r.Replicas, r.LocalBatch), r.Rounds, r.Runs, percent(r.MeanAccuracy),
			fmt.Sprintf("%.2f..%.2f", 100*r.Accuracy.Min, 100*r.Accuracy.Max), fmt.Sprintf("%+.2f", 100*r.Gain),
			fmt.Sprintf("%.2f", r.Seconds.Min), fmt.Sprintf("%.2f..%.2f", r.Seconds.Median, r.Seconds.Max),
			fmt.Sprintf("%.2f", r.Ratio), benchFailed(r))
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = newPart(w)
	t.row("data set", "job", "containers", "limit", "highest peak", "sum of peaks", "predicted above peak", "at most", "outside", "GB-seconds", "init", "infer")
	for _, r := range rows {
		name, settings := benchName(r)
		if r.Runs == r.FailedRuns {
			continue
		}
		t.row(name, settings, r.Containers, r.Limit, r.Peak, r.PeakSum,
			fmt.Sprintf("%.2f..%.2f MB", megabytes(r.LeastMargin), megabytes(r.MostMargin)), fmt.Sprintf("%.0f %%", 100*r.MostShare),
			r.Outside, fmt.Sprintf("%.3f", r.GBSeconds), fmt.Sprintf("%.3f s", r.InitSeconds), inferred(r))
	}
	return t.flush()
}

func inferred(r bench.Row) string {
	if r.InferSeconds.Min == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", r.InferSeconds.Min)
}

func megabytes(b job.Bytes) float64 { return float64(b) / float64(job.MB) }

func benchFailed(r bench.Row) string {
	text := fmt.Sprint(r.Failed)
	if r.FailedRuns > 0 {
		text += fmt.Sprintf(" (%d of %d runs failed)", r.FailedRuns, r.Runs)
	}
	return text
}

func benchName(r bench.Row) (dataset, settings string) {
	var all []string
	for _, list := range [][]bench.Setting{r.Configuration.Group, r.Configuration.Case} {
		for _, s := range list {
			all = append(all, s.String())
		}
	}
	if len(all) == 0 {
		all = []string{"defaults"}
	}
	return r.Configuration.Dataset, bench.HidePasswords(strings.Join(all, " "))
}
