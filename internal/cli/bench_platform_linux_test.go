// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
)

// TestBenchPlatform: what was asked for is measured, and nothing fails.
func TestBenchPlatform(t *testing.T) {
	d := newDesk(t)
	args := []string{"bench", "platform", "--cold", "2", "--warm", "3", "--rounds", "2", "--at-once", "20", "--times", "2", "--json"}
	if partNamed("docker") {
		args = append(args, "--platforms", "process,docker")
	}
	said := d.run(args...).want(t, ExitOK, "measuring process", "making 20 calls at once").object(t)
	rows := field[[]any](t, said, "rows")
	for _, row := range rows {
		name := field[string](t, row, "platform")
		for what, calls := range map[string]float64{"cold": 2, "warm": 3, "outside": 4} {
			least, median, most := field[float64](t, row, what, "least_seconds"), field[float64](t, row, what, "median_seconds"), field[float64](t, row, what, "most_seconds")
			// The job's first training invocation may be the one that was warmed.
			if got := field[float64](t, row, what, "calls"); got > calls || got < calls-1 || least <= 0 || median < least || most < median {
				t.Errorf("%s, %s: %v", name, what, row)
			}
		}
		if _, engine := row.(map[string]any)["empty"]; engine != (name == platformDocker) {
			t.Errorf("%s: %v", name, row)
		}
	}
	want := 1
	if partNamed("docker") {
		want = 2
	}
	if len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	if calls, failed, throttled := field[float64](t, said, "crowd", "latency", "calls"), field[float64](t, said, "crowd", "failed"),
		field[float64](t, said, "crowd", "throttled"); calls != 40 || failed+throttled != 0 {
		t.Errorf("crowd: %v", said["crowd"])
	}
	if memory := field[[]any](t, said, "crowd", "memory_bytes"); len(memory) != 3 {
		t.Errorf("memory: %v", memory)
	}
	text := d.run("bench", "platform", "--cold", "1", "--warm", "1", "--rounds", "2", "--at-once", "0", "--quiet").want(t, ExitOK)
	if text.stderr != "" {
		t.Errorf("--quiet said %q", text.stderr)
	}
	for line, says := range map[string]string{"--platforms kube": "want process or docker", "--cold 0": `"--cold" flag: "0"`, "--at-once 1001": "0 to 1000"} {
		d.run(append([]string{"bench", "platform"}, strings.Fields(line)...)...).want(t, ExitUsage, says)
	}
}
