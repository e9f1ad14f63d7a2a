// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"

	"disdel/internal/bench"
)

// Platforms prints what platforms take beside the work itself. There is no crowd
// where it is nil.
func Platforms(w io.Writer, machine bench.Machine, rows []bench.PlatformRow, crowd *bench.Crowd) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", oneLine(machine.String())); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	t := newTable(w)
	t.row("platform", "what", "calls", "least", "median", "p99", "most")
	for _, r := range rows {
		name := r.Platform + " (" + r.Enforcement + ")"
		t.row(latencyRow(name, "cold, a task that does nothing", r.Cold)...)
		t.row(latencyRow(name, "warm, a task that does nothing", r.Warm)...)
		t.row(latencyRow(name, "warm, training without its steps", r.Outside)...)
		if r.Empty != nil {
			t.row(latencyRow(name, "the engine with an empty program", *r.Empty)...)
		}
	}
	if crowd != nil {
		t.row(latencyRow("served", fmt.Sprintf("%d at once", crowd.AtOnce), crowd.Latency)...)
	}
	if err := t.flush(); err != nil || crowd == nil {
		return err
	}
	memory := make([]string, len(crowd.Memory))
	for i, m := range crowd.Memory {
		memory[i] = m.String()
	}
	t = newPart(w)
	t.row("served", "throttled", "failed", "memory of the server, before and after each time")
	t.row(fmt.Sprintf("%d at once", crowd.AtOnce), crowd.Throttled, crowd.Failed, strings.Join(memory, ", "))
	return t.flush()
}

func latencyRow(platform, what string, l bench.Latency) []any {
	ms := func(seconds float64) string { return fmt.Sprintf("%.2f ms", 1e3*seconds) }
	if l.Calls == 0 {
		return []any{platform, what, 0, "-", "-", "-", "-"}
	}
	return []any{platform, what, l.Calls, ms(l.Least), ms(l.Median), ms(l.P99), ms(l.Most)}
}
