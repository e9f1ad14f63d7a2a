// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"

	"disdel/internal/bench"
)

// Engines prints how fast engines are, then what their processes took.
func Engines(w io.Writer, machine bench.Machine, rows []bench.EngineRow) error {
	features := ""
	if len(machine.Features) > 0 {
		features = "; " + strings.Join(machine.Features, " ")
	}
	if _, err := fmt.Fprintf(w, "%s%s\n\n", oneLine(machine.String()), oneLine(features)); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	t := newTable(w)
	t.row("model", "records", "batch", "threads", "mode", "engine", "best/s", "median/s", "least/s", "spread", "times", "GFLOP/s", "roofline", "latency")
	for _, r := range rows {
		c := r.Run.Case
		if r.Run.Absent != "" {
			t.row(c.Model, c.Shape, c.Batch, c.Threads, c.Mode, r.Run.Engine, "-", "-", "-", "-", "-", "-", "-", r.Run.Absent)
			continue
		}
		latency := "-"
		if c.Mode == bench.ModeInfer && r.Rates.Median > 0 {
			latency = fmt.Sprintf("%.3f ms", 1e3*float64(c.Batch)/r.Rates.Median)
		}
		t.row(c.Model, c.Shape, c.Batch, c.Threads, c.Mode, r.Run.Engine, whole(r.Best), whole(r.Rates.Median), whole(r.Rates.Min),
			benchSpread(r.Rates), orDash(r.Times, "%.2f"), orDash(r.FLOPS/1e9, "%.1f"), benchShare(r), latency)
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = newPart(w)
	t.row("model", "records", "batch", "threads", "mode", "engine", "version", "steps", "start to first step", "peak")
	for _, r := range rows {
		if c := r.Run.Case; r.Run.Absent == "" {
			peak := "-"
			if r.Run.Peak > 0 {
				peak = r.Run.Peak.String()
			}
			t.row(c.Model, c.Shape, c.Batch, c.Threads, c.Mode, r.Run.Engine, r.Run.Version, r.Run.Steps, orDash(1e3*r.Run.Start, "%.0f ms"), peak)
		}
	}
	return t.flush()
}

func whole(rate float64) string { return orDash(rate, "%.0f") }

// orDash formats a figure; one that is not known is 0.
func orDash(v float64, format string) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

// benchSpread is by how much the fastest is above the slowest, over the median.
func benchSpread(s bench.Spread) string {
	if s.Median == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*(s.Max-s.Min)/s.Median)
}

func benchShare(r bench.EngineRow) string {
	if r.Run.Roofline == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %% of %.1f", 100*r.Share, r.Run.Roofline/1e9)
}
