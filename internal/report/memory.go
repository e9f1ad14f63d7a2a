// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"

	"disdel/internal/bench"
	"disdel/internal/job"
)

// memoryExtremes is how many cases are named on either side.
const memoryExtremes = 5

// Memory prints how good predictions of memory were.
func Memory(w io.Writer, machine bench.Machine, runs []bench.MemoryRun) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", oneLine(machine.String())); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	s := bench.SummariseMemory(runs)
	t := newTable(w)
	t.row("cases", s.Cases)
	t.row("under", s.Under)
	t.row("predicted above peak", fmt.Sprintf("%.2f MB least, %.2f MB median, %.2f MB most",
		megabytes(job.Bytes(s.Excess.Min)), megabytes(job.Bytes(s.Excess.Median)), megabytes(job.Bytes(s.Excess.Max))))
	t.row("of the peak", fmt.Sprintf("%.1f %% least, %.1f %% median, %.1f %% most", 100*s.Share.Min, 100*s.Share.Median, 100*s.Share.Max))
	t.row("beyond both bounds", fmt.Sprintf("%d (%.0f MB and %.0f %%)", s.BeyondWorst, megabytes(bench.WorstExcessBytes), 100*bench.WorstExcessShare))
	t.row("time of a prediction", fmt.Sprintf("%.2f ms median, %.2f ms most", 1e3*s.Seconds.Median, 1e3*s.Seconds.Max))
	if err := t.flush(); err != nil {
		return err
	}
	least, most := bench.WorstMemory(runs, memoryExtremes)
	t = newPart(w)
	t.row("above peak", "of it", "predicted", "peak", "case")
	for _, part := range [][]bench.MemoryRun{least, most} {
		for _, r := range part {
			t.row(fmt.Sprintf("%.2f MB", megabytes(r.Excess())), fmt.Sprintf("%.1f %%", 100*float64(r.Excess())/float64(r.Peak)), r.Predicted, r.Peak, r.Case)
		}
	}
	return t.flush()
}
