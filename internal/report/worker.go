// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"

	"disdel/internal/bench"
	"disdel/internal/job"
)

// Worker prints what a training worker takes.
func Worker(w io.Writer, machine bench.Machine, r bench.WorkerResult) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", oneLine(machine.String())); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	memory := func(s bench.Spread) string {
		return fmt.Sprintf("%v least, %v median, %v most", job.Bytes(s.Min), job.Bytes(s.Median), job.Bytes(s.Max))
	}
	cache := "warm"
	if r.Cold {
		cache = "cold"
	}
	least := "none that was tried"
	if r.Least > 0 {
		least = r.Least.String()
	}
	t := newTable(w)
	t.row("program", r.ProgramBytes)
	t.row("training", fmt.Sprintf("cnn 28x28x1, %d records, batch %d, %d steps, store %s", r.Records, r.Batch, r.Steps, r.Store))
	t.row("predicted", r.Predicted)
	t.row("peak of the process", memory(r.Process))
	t.row("with the kernel's part", memory(r.Peak))
	t.row("start to first step", fmt.Sprintf("%.1f ms least, %.1f ms median, %.1f ms most", 1e3*r.FirstStep.Min, 1e3*r.FirstStep.Median, 1e3*r.FirstStep.Max))
	t.row("least limit", fmt.Sprintf("%s (%s, %s cache of files)", least, r.Enforcement, cache))
	return t.flush()
}
